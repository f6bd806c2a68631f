package resources

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/control/pending"
	"margay.dev/margay/datastore"
	"margay.dev/margay/datastore/file"
)

// listener does something once when a word is written.
type listener struct {
	bytes.Buffer
	word string
	do   func()
}

func (l *listener) Write(p []byte) (int, error) {
	n, err := l.Buffer.Write(p)
	if do := l.do; do != nil && strings.Contains(l.String(), l.word) {
		l.do = nil
		do()
	}
	return n, err
}

// When the time of a change is over before all of it is made, nothing of it stays:
// neither what was made nor what was being written.
func TestChangeThatTakesTooLong(t *testing.T) {
	const three = `
apiVersion: v1
kind: List
items:
- {apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: a}, spec: {order: 1}}
- {apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: b}, spec: {order: 2}}
- {apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: c}, spec: {order: 3}}
`
	for name, tt := range map[string]struct{ there, command, word string }{
		"before it is made":        {"", "apply -f - --confirm-within 1m", "is undone in"},
		"after the first":          {"", "apply -f - --confirm-within 1m", "Tier a created"},
		"with the last":            {"", "create -f - --confirm-within 1m", "Tier c created"},
		"when some are deleted":    {three, "delete tier a b c --confirm-within 1m", "Tier b deleted"},
		"when all are deleted":     {three, "delete tier a b c --confirm-within 1m", "Tier c deleted"},
		"before one is patched":    {three, "patch tier b -p '{spec: {order: 9}}' --confirm-within 1m", "is undone in"},
		"before they are replaced": {strings.ReplaceAll(three, "order: ", "order: 4"), "replace -f - --confirm-within 1m", "is undone in"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s, err := file.Open(file.Config{Dir: dir})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			tiers := func(kind string) []v3.Object {
				l, err := s.List(t.Context(), datastore.Scope{Kind: kind})
				if err != nil {
					t.Fatal(err)
				}
				return l.Objects
			}
			run := func(out io.Writer, in, command string) error {
				tool := &Tool{In: strings.NewReader(in), Out: out, Err: io.Discard, Now: time.Now, Env: func(name string) string {
					return map[string]string{folderVariable: dir}[name]
				}}
				for _, c := range tool.Commands() {
					if args := words(command); c.Name() == args[0] {
						c.SetArgs(args[1:])
						c.SilenceErrors, c.SilenceUsage = true, true
						return c.ExecuteContext(context.Background())
					}
				}
				t.Fatalf("there is no command %q", command)
				return nil
			}
			if tt.there != "" {
				if err := run(io.Discard, tt.there, "create -f -"); err != nil {
					t.Fatal(err)
				}
			}
			before := orders(tiers(v3.KindTier))
			out := &listener{word: tt.word, do: func() {
				if err := pending.Undo(t.Context(), s, tiers(v3.KindPendingChange)[0].(*v3.PendingChange)); err != nil {
					t.Fatal(err)
				}
			}}
			if err := run(out, three, tt.command); !errors.Is(err, pending.ErrOver) {
				t.Errorf("it ends with %v, want ErrOver", err)
			}
			if out.do != nil {
				t.Fatalf("%q was not written: %s", tt.word, out.String())
			}
			if strings.Contains(out.String(), "Successfully") {
				t.Errorf("it says\n%s", out.String())
			}
			if after := orders(tiers(v3.KindTier)); after != before {
				t.Errorf("there is %q, and was %q", after, before)
			}
		})
	}
}

// orders are tiers, each with its order.
func orders(tiers []v3.Object) (text string) {
	for _, o := range tiers {
		spec := o.(*v3.Tier).Spec
		text += o.GetName()
		if spec.Order != nil {
			text += strings.Repeat(" ", int(*spec.Order))
		}
	}
	return text
}
