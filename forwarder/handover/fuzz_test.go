package handover

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// Whatever is read as a message can be said again, and fits.
func FuzzMessage(f *testing.F) {
	ours := facts()
	for _, m := range []message{
		{Kind: hello, Version: 1, MinVersion: 1, Facts: &ours},
		{Kind: offer, Bytes: 1 << 40, FDs: MaxFDs},
		{Kind: refusal, Busy: true, Text: strings.Repeat("\x00<", maxText)},
	} {
		b, err := m.encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"kind":"hello","facts":null}`))
	f.Add([]byte(`{"kind":"batch","fds":-1,"later":{}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decode(b)
		if err != nil {
			return
		}
		again, err := m.encode()
		if err != nil || len(again) > maxMessage+len(m.Kind)*6 {
			t.Fatalf("%.100q is said again in %d bytes (%v)", b, len(again), err)
		}
		same, err := decode(again)
		if len(m.Kind) < 100 && (err != nil || same.Kind != kind(strings.ToValidUTF8(string(m.Kind), "\ufffd")) || same.FDs != m.FDs || same.Bytes != m.Bytes) {
			t.Fatalf("%.100q becomes %+v (%v), want %+v", b, same, err, m)
		}
	})
}

// turn is one thing that a taker of the fuzzer does.
type turn struct {
	packet packet
	due    kind // what it would be right for
	reply  kind // what the giver says to it then
}

func turns(t *testing.T, garbage []byte) []turn {
	file := numbered(t, 1)
	return []turn{
		{greeting(t), hello, offer},
		{say(t, message{Kind: ready}), ready, flight},
		{say(t, message{Kind: applied}), applied, start},
		{say(t, message{Kind: running}), running, done},
		{say(t, message{Kind: abort, Text: "no"}), "", ""},
		{packet{bytes: garbage}, "", ""},
		{say(t, message{Kind: ready}, file...), "", ""},
		{packet{fds: file}, "", ""},
		{say(t, message{Kind: hello}, file...), "", ""},
		{say(t, message{Kind: start}), "", ""},
	}
}

// Whatever a taker says, and in whatever order, the giver ends where the order
// of the steps alone says.
func FuzzGiver(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3}, []byte("{}"))
	f.Add([]byte{0, 1, 2, 4}, []byte(`{"kind":"ready"`))
	f.Add([]byte{0, 1, 5}, []byte("\xff"))
	f.Add([]byte{0, 6}, []byte(""))
	f.Add([]byte{7, 0, 1, 2}, []byte("[]"))
	f.Add([]byte{0, 0}, []byte("null"))
	f.Add([]byte{0, 1, 2}, []byte("0"))
	steps := []kind{hello, ready, applied, running}
	asked := [][]string{
		nil,
		{"prepare", "resume touched=false"},
		{"prepare", "freeze", "resume touched=false"},
		{"prepare", "freeze", "resume touched=true"},
		{"prepare", "freeze", "done"},
	}
	f.Fuzz(func(t *testing.T, script, garbage []byte) {
		if m, err := decode(garbage); err == nil && slices.Contains(append(steps, abort), m.Kind) {
			return // it is no garbage
		}
		g := &fake{flight: []byte("flight")}
		s := serveFake(t, g, patient())
		c := connect(t, s.path)
		_ = c.SetReadDeadline(time.Now().Add(time.Minute))
		in, all, at := newConn(c), turns(t, garbage), 0
		for _, b := range script {
			next := all[int(b)%len(all)]
			send(c, next.packet)
			if at == len(steps) || next.due != steps[at] {
				break
			}
			at++
			hear(t, in, next.reply)
		}
		_ = c.Close()
		g.did(t, asked[at]...)
	})
}

// hear hears the giver until it says what is due.
func hear(t *testing.T, in *conn, due kind) {
	t.Helper()
	for {
		m, fds, err := in.recv(kernelFDs)
		if err != nil {
			t.Fatalf("wait for %q: %v", due, err)
		}
		closeAll(fds)
		if m.Kind == due {
			return
		}
	}
}
