package truth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
)

func suite(t *testing.T) *Suite {
	t.Helper()
	s, err := Cyclonus()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCyclonusIsAllThere(t *testing.T) {
	s := suite(t)
	ids, steps := map[int]bool{}, 0
	verdicts := map[Verdict]int{}
	refusing := map[Family]map[int]bool{4: {}, 6: {}}
	for _, c := range s.Cases {
		ids[c.ID] = true
		for _, step := range c.Steps {
			steps++
			for q, v := range step.Want {
				verdicts[v]++
				if v == Refused && (c.Around == 0 || c.Around == q.Family) {
					refusing[q.Family][c.ID] = true
				}
			}
		}
	}
	if len(ids) != 230 || len(s.Cases) != 268 || steps != 294 {
		t.Errorf("%d cases in %d forms with %d steps, want 230, 268 and 294", len(ids), len(s.Cases), steps)
	}
	if len(refusing[4]) != 219 || len(refusing[6]) != 223 {
		t.Errorf("%d cases refuse something by IPv4, %d by IPv6, want 219 and 223", len(refusing[4]), len(refusing[6]))
	}
	if verdicts[Allowed] != 204080 || verdicts[Refused] != 48664 || len(verdicts) != 2 {
		t.Errorf("verdicts are %v, want 204080 allowed and 48664 refused", verdicts)
	}
	if !strings.Contains(s.Source, "MIT License, Copyright (c) 2021 Matt Fenwick") {
		t.Errorf("the source is %q, which does not say whose the cases are", s.Source)
	}
}

func TestStatesHaveWhatTheWorldAndTheStepSay(t *testing.T) {
	for _, c := range suite(t).Cases {
		if c.Name != "Create/delete namespace" {
			continue
		}
		names := func(s State) (out []string) {
			for _, p := range s.Pods {
				out = append(out, p.Key())
			}
			return out
		}
		nine := []string{"x/a", "x/b", "x/c", "y/a", "y/b", "y/c", "z/a", "z/b", "z/c"}
		with := slices.Insert(slices.Clone(nine), 3, "y-2/a", "y-2/b")
		for i, want := range [][]string{nine, with, nine} {
			if got := names(c.Steps[i].State); !slices.Equal(got, want) {
				t.Errorf("step %d has pods %v, want %v", i+1, got, want)
			}
			if n := len(want); len(c.Steps[i].Want) != n*(n-1)*12 {
				t.Errorf("step %d has %d answers, want one for each of 12 ports and pair of %d pods", i+1, len(c.Steps[i].Want), n)
			}
		}
		if got := c.Steps[1].Namespaces["y-2"]["kubernetes.io/metadata.name"]; got != "y-2" || c.Steps[2].Namespaces["y-2"] != nil {
			t.Errorf("namespace y-2 is labelled %q in step 2, and %v in step 3", got, c.Steps[2].Namespaces["y-2"])
		}
		return
	}
	t.Fatal("the case that makes and deletes a namespace is not there")
}

func TestManifestsAreWhatAUserWouldWrite(t *testing.T) {
	s := suite(t).Cases[0].Steps[0].State
	docs, err := s.Manifests()
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]int{}
	for _, b := range docs {
		var o struct {
			APIVersion, Kind string
			Metadata         struct {
				Name   string
				Labels map[string]string
			}
			Spec   struct{ Containers []struct{ Ports []any } }
			Status struct{ PodIPs []struct{ IP string } }
		}
		if err := json.Unmarshal(b, &o); err != nil {
			t.Fatal(err)
		}
		kinds[o.APIVersion+" "+o.Kind]++
		if o.Metadata.Name == "" {
			t.Errorf("an object has no name: %s", b)
		}
		if o.Kind == "Pod" && (len(o.Spec.Containers[0].Ports) != 6 || len(o.Status.PodIPs) != 2 || o.Metadata.Labels["pod"] == "") {
			t.Errorf("pod lacks ports, addresses or labels: %s", b)
		}
	}
	if kinds["v1 Namespace"] != 3 || kinds["v1 Pod"] != 9 || kinds["networking.k8s.io/v1 NetworkPolicy"] != 1 || len(kinds) != 3 {
		t.Errorf("kinds are %v", kinds)
	}
}

func TestPlayTellsWhichStepAndCell(t *testing.T) {
	s := suite(t)
	c := &s.Cases[0]
	var applied []State
	apply := func(_ context.Context, s State) error {
		applied = append(applied, s)
		return nil
	}
	answer := func(change func(Table)) Ask {
		return func(_ context.Context, queries []Query) (Table, error) {
			got := Table{}
			for _, q := range queries {
				got[q] = c.Steps[0].Want[q]
			}
			change(got)
			return got, nil
		}
	}
	refused := Query{"x/a", "x/b", 4, TCP, 81}
	allowed := Query{"x/b", "x/c", 6, SCTP, 80}
	tests := map[string]struct {
		change func(Table)
		want   []string
	}{
		"as it must be":   {func(Table) {}, nil},
		"more than asked": {func(t Table) { t[Query{"n/n", "m/m", 4, TCP, 80}] = Refused }, nil},
		"one is open":     {func(t Table) { t[refused] = Allowed }, []string{"case 1, set namespace to x, step 1 of 1: 1 of 864 answers differ", "v4 TCP/81\n", "OPEN"}},
		"one is shut":     {func(t Table) { t[allowed] = Refused }, []string{"v6 SCTP/80\n", "SHUT"}},
		"one is unknown":  {func(t Table) { t[allowed] = Unknown }, []string{"v6 SCTP/80\n", "?"}},
		"one is missing":  {func(t Table) { delete(t, allowed) }, []string{"v6 SCTP/80\n", "?"}},
		"two look the same": {func(t Table) {
			t[refused] = Allowed
			six := refused
			six.Family = 6
			t[six] = Allowed
		}, []string{"2 of 864", "v4 TCP/81, v6 TCP/81\n"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			applied = nil
			faults, err := c.Play(t.Context(), apply, answer(tt.change))
			if err != nil || len(applied) != 1 {
				t.Fatalf("played with error %v, applied %d states", err, len(applied))
			}
			if (len(faults) == 0) != (tt.want == nil) {
				t.Fatalf("faults are %v", faults)
			}
			for _, want := range tt.want {
				if text := faults[0].Error(); !strings.Contains(text, want) {
					t.Errorf("the fault does not say %q:\n%s", want, text)
				}
			}
		})
	}
	sorry := errors.New("sorry")
	if _, err := c.Play(t.Context(), func(context.Context, State) error { return sorry }, answer(func(Table) {})); !errors.Is(err, sorry) {
		t.Errorf("what could not be applied gave %v", err)
	}
	if _, err := c.Play(t.Context(), apply, func(context.Context, []Query) (Table, error) { return nil, sorry }); !errors.Is(err, sorry) {
		t.Errorf("what could not be asked gave %v", err)
	}
}

func TestSpoiltFilesAreRefused(t *testing.T) {
	tests := map[string]struct{ old, new string }{
		"a key that nobody reads":   {`"id":1,`, `"id":1,"idd":1,`},
		"a row too few":             {`"rows":["-XXXXXXXX",`, `"rows":[`},
		"a letter too few":          {`"rows":["-XXXXXXXX",`, `"rows":["-XXXXXXX",`},
		"a letter of another kind":  {`"rows":["-XXXXXXXX",`, `"rows":["-XXXXXXXY",`},
		"a pod asks itself":         {`"rows":["-XXXXXXXX",`, `"rows":["XXXXXXXXX",`},
		"no family":                 {`"of":["v4 TCP/80"`, `"of":["TCP/80"`},
		"a port that is no number":  {`"of":["v4 TCP/80"`, `"of":["v4 TCP/http"`},
		"a pod without IPv6":        {`"10.79.1.17","fd79:0:0:1::11"`, `"10.79.1.17"`},
		"labels of an unknown pod":  {`{"id":1,"name":"set namespace to x","steps":[{`, `{"id":1,"name":"set namespace to x","steps":[{"pods":{"x/q":{}},`},
		"it ends before its end is": {`]}`, ``},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			spoilt := bytes.Replace(cyclonus, []byte(tt.old), []byte(tt.new), 1)
			if bytes.Equal(spoilt, cyclonus) {
				t.Fatal("the file has nothing to spoil that way")
			}
			if _, err := parse(spoilt); err == nil {
				t.Error("taken as it is")
			}
		})
	}
}
