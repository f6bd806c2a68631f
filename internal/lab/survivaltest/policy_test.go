package survivaltest

import (
	"flag"
	"testing"
	"time"
)

var turns = flag.Int("turns", 20, "how often TestPolicyTurnsUnderTraffic turns policy round, in each family; the long form is 1000")

// Policy is turned round as fast as the lab does that, while pods talk. What all
// policies allow goes on unharmed, what none allows never comes, and what one allows
// comes while that is in force.
func TestPolicyTurnsUnderTraffic(t *testing.T) {
	w := raise(t, 2, nil)
	few, more := `{action: Allow, source: {selector: pod == "amy"}}`, `{action: Allow, source: {selector: 'pod in {"amy", "cleo"}'}}`
	w.police(few)
	for _, six := range []bool{false, true} {
		always, never, sometimes := w.connections([2]string{"amy", "dave"}), w.udp("ann", "dave", six), w.udp("cleo", "dave", six)
		began := time.Now()
		for i := range *turns {
			w.police([]string{more, few}[i%2])
		}
		t.Logf("IPv6 %v: %d turns, %.0f a second", six, *turns, float64(*turns)/time.Since(began).Seconds())
		w.police(more)
		sometimes.goesOn(w)
		w.police(few)
		w.eventually("what is denied now comes no more", func() bool {
			was := sometimes.received.Load()
			time.Sleep(200 * time.Millisecond) // in which some two hundred would come
			return sometimes.received.Load() == was
		})
		w.lived(always)
		if n := never.received.Load(); n != 0 {
			t.Errorf("IPv6 %v: %d datagrams came that no policy allows", six, n)
		}
		never.end()
		sometimes.end()
	}
	w.balanced()
}
