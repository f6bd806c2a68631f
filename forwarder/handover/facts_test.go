package handover

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func TestVersionsAreAgreed(t *testing.T) {
	tests := map[string]struct {
		giver, taker span
		want         uint32
		says         string
	}{
		"equal":                   {span{"old", 1, 1}, span{"new", 1, 1}, 1, ""},
		"a newer taker":           {span{"old", 2, 1}, span{"new", 4, 2}, 2, ""},
		"an older taker":          {span{"old", 4, 2}, span{"new", 3, 1}, 3, ""},
		"a giver that is too old": {span{"old", 1, 1}, span{"new", 3, 2}, 0, `"old" is the older: stop the running forwarder`},
		"a taker that is too old": {span{"old", 5, 4}, span{"new", 3, 1}, 0, `"new" is the older: take a newer one`},
		"no versions":             {span{"old", 1, 1}, span{"new", 0, 0}, 0, "are none"},
		"versions backwards":      {span{"old", 1, 1}, span{"new", 1, 2}, 0, "are none"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := agree("hand-over", tt.giver, tt.taker)
			if got != tt.want || (err == nil) != (tt.says == "") {
				t.Fatalf("agreed on %d (%v), want %d", got, err, tt.want)
			}
			if err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Errorf("the error is %v, want %q", err, tt.says)
			}
		})
	}
}

func TestFactsThatDifferAreToldAllAtOnce(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*Facts)
		says   []string
	}{
		"arena":     {func(f *Facts) { f.Arena++ }, []string{"frame memory is 2", "3 in the new"}},
		"workers":   {func(f *Facts) { f.Workers++ }, []string{"workers is 2", "3 in the new"}},
		"frames":    {func(f *Facts) { f.Frames++ }, []string{"frames is 4096"}},
		"supers":    {func(f *Facts) { f.Supers = 0 }, []string{"superpacket buffers is 64"}},
		"contracts": {func(f *Facts) { f.Contract, f.MinContract = 9, 8 }, []string{"versions 1 to 3", "8 to 9"}},
		"all of it": {func(f *Facts) { f.Workers, f.Frames, f.Arena = 1, 1, 1 }, []string{"workers", "frames", "memory"}},
	} {
		t.Run(name, func(t *testing.T) {
			g := &fake{}
			s := serveFake(t, g, patient())
			mine := facts()
			tt.change(&mine)
			_, _, err := take(t.Context(), s.path, mine, patient())
			for _, word := range append(tt.says, "without --take-over") {
				if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), word) {
					t.Errorf("the taker hears %v, want a refusal with %q", err, word)
				}
			}
			g.did(t) // nothing at all
		})
	}
}

// A taker of another version is told which is to be upgraded, and one that also
// speaks ours is served whatever else it says.
func TestVersionSkew(t *testing.T) {
	for name, tt := range map[string]struct {
		newest, oldest uint32
		kind           kind
		says           string
	}{
		"newer, and speaks ours too": {Version + 2, MinVersion, offer, ""},
		"newer":                      {Version + 2, Version + 1, refusal, `("margay-forwarder v1.2.3") speaks versions 1 to 1`},
		"older than any":             {0, 0, refusal, "are none"},
	} {
		t.Run(name, func(t *testing.T) {
			noLeak(t)
			g := &fake{}
			s := serveFake(t, g, patient())
			f, err := json.Marshal(facts())
			if err != nil {
				t.Fatal(err)
			}
			b, err := json.Marshal(map[string]any{
				"kind": "hello", "version": tt.newest, "min_version": tt.oldest, "facts": json.RawMessage(f), "later": []int{1, 2, 3},
			})
			if err != nil {
				t.Fatal(err)
			}
			c := connect(t, s.path)
			send(c, packet{b, []int{self(t)}})
			in := newConn(c)
			var m message
			for m.Kind != tt.kind {
				var fds []int
				if m, fds, err = in.recv(1); err != nil {
					t.Fatal(err)
				}
				closeAll(fds)
				if m.Kind == welcome && m.Version != Version {
					t.Errorf("agreed on version %d, want %d", m.Version, Version)
				}
			}
			if !strings.Contains(m.Text, tt.says) {
				t.Errorf("the giver says %q, want %q", m.Text, tt.says)
			}
		})
	}
}
