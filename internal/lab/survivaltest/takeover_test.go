package survivaltest

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	v1 "margay.dev/margay/api/dataplane/v1"
)

const handOvers = 12

// A forwarder hands over to another under load: nothing of a connection is lost,
// the account goes on, and the kernels' own packets pass untouched. With two
// workers pods have policy: no connection that the one forwarder has judged is
// strange to the other.
func TestHandedOverUnderLoad(t *testing.T) {
	for _, workers := range []int{1, 2} {
		w := raise(t, workers, nil)
		if workers == 2 {
			w.police(`{action: Allow}`)
		}
		w.everybody()
		frames := w.frames("north")
		l := loadUp(w)
		l.goOn()
		devices, counted := w.podDevices(), w.counters("north")
		random := rand.New(rand.NewPCG(uint64(workers), 7))
		for i := range handOvers {
			time.Sleep(time.Duration(random.IntN(100)) * time.Millisecond)
			w.takeOver("north")
			if i%4 == 3 { // twice in a row, at once
				w.takeOver("north")
			}
			l.goOn()
			w.inForce("north")
			now := w.counters("north")
			if was, is := counted.Account, now.Account; is.GetRx() < was.GetRx() || is.GetTx() < was.GetTx() {
				t.Errorf("the account went back: it was %v, it is %v", was, is)
			}
			for name, was := range counted.Ports {
				if is := now.Ports[name]; is.Rx < was.Rx || is.Tx < was.Tx {
					t.Errorf("counters of port %s went back: they were %+v, they are %+v", name, was, is)
				}
			}
			counted = now
		}
		l.kernelsHeard()
		if after := w.podDevices(); after != devices {
			t.Errorf("pods have other devices than before: indexes were %v, are %v", devices, after)
		}
		w.everybody()
		l.end()
		w.balanced()
		if now := w.frames("north"); now != frames {
			t.Errorf("%d frames are free after %d hand-overs under load, %d were before", now, handOvers, frames)
		}
	}
}

// What a client had in force when it was cut off by a hand-over stays, what it
// changes meanwhile waits, and it comes back by itself.
func TestPodIsAddedDuringAHandOver(t *testing.T) {
	w := raise(t, 1, nil)
	w.everybody()
	l := loadUp(w)
	l.goOn()
	state, err := w.Desired("north")
	if err != nil {
		t.Fatal(err)
	}
	whole := state
	for i := range 6 {
		state = whole
		if i%2 == 0 { // amy leaves, and comes back with the next round
			state.Endpoints = slices.DeleteFunc(slices.Clone(whole.Endpoints), func(e *v1.Endpoint) bool { return e.GetPort() == "pod-amy" })
			state.Ports = slices.DeleteFunc(slices.Clone(whole.Ports), func(p *v1.Port) bool { return p.GetName() == "pod-amy" })
		}
		applied := make(chan error, 1)
		go func() {
			_, err := w.Stream("north").Apply(t.Context(), state)
			applied <- err
		}()
		time.Sleep(time.Duration(i) * 2 * time.Millisecond)
		w.takeOver("north")
		if err := <-applied; err != nil {
			t.Fatalf("round %d: a commit during a hand-over: %v", i, err)
		}
		for _, c := range l.talks[:2] { // of pods that stay
			c.goesOn(w)
		}
	}
	l.kernelsHeard()
	w.everybody()
	l.end()
	w.balanced()
}

// kernelsHeard ends the pings between the kernels and wants none of them lost:
// no steering program was taken off at any time.
func (l *loaded) kernelsHeard() {
	l.t.Helper()
	for i, p := range l.host {
		if lost := p.end(); lost > 0 || p.received == 0 {
			l.t.Errorf("%d of %d pings between the kernels were lost (IPv6 %v), want none: %v", lost, p.sent, i == 1, p.last)
		}
	}
}

// letGo reports, when it is certain, that a forwarder of which a taker was killed had let go, and has ended. One that goes
// on answers, which one that is just about to end does not: its socket was given away.
func (w *world) letGo(node string, giver int) (gone bool) {
	w.t.Helper()
	w.eventually("the forwarder of "+node+" answers, or has ended", func() bool {
		gone = w.PID(node) != giver
		_, err := w.inspect(node).GetStatus(w.t.Context(), &v1.StatusRequest{})
		return gone || err == nil
	})
	return gone
}

// A taker that is killed, whenever, costs no connection: before it was told to go
// the one that ran goes on, and after that the next start finds everything.
func TestTakerIsKilledAtAnyMoment(t *testing.T) {
	w := raise(t, 1, nil)
	w.everybody()
	frames := w.frames("north")
	l := loadUp(w)
	l.goOn()
	taken := 0
	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 3))
	for range kills {
		first := w.PID("north")
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(random.IntN(300))*time.Millisecond)
		err := w.TakeOver(ctx, "north") // kills it when ctx ends
		cancel()
		if err == nil { // it was too fast to be killed
			taken++
		} else if w.letGo("north", first) {
			taken++
			w.launch("north")
		}
		l.goOn()
		w.inForce("north")
	}
	t.Logf("%d of %d takers came through", taken, kills)
	w.takeOver("north")
	for _, p := range l.host { // a start after a death takes the program off and on
		p.end()
	}
	w.everybody()
	l.end()
	w.balanced()
	if now := w.frames("north"); now != frames {
		t.Errorf("%d frames are free after %d takers, most of them killed, %d were before", now, kills, frames)
	}
}
