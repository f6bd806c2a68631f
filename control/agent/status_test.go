package agent

import (
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/control/converge"
	"margay.dev/margay/datastore"
)

// saying is an object of some generation with a writer for each of some nodes.
type saying struct {
	o       *v3.NetworkPolicy
	key     datastore.Key
	writers map[string]*writer
}

func newSaying(nodes ...string) *saying {
	s := &saying{o: &v3.NetworkPolicy{}, writers: map[string]*writer{}}
	s.o.Namespace, s.o.Name, s.o.Generation = "shop", "web", 1
	s.key = datastore.KeyOf(s.o)
	for _, n := range nodes {
		s.writers[n] = newWriter(n, nil, quiet)
	}
	return s
}

// report has a node's writer report, and write at once if it would.
func (s *saying) report(node string, r converge.Report) (wrote bool) {
	w := s.writers[node]
	w.report(s.key, s.o, r)
	r, wrote = w.pending[s.key]
	delete(w.pending, s.key)
	if wrote {
		w.describe(s.o.Conditions(), s.o.GetGeneration(), r)
	}
	return wrote
}

func (s *saying) says() string {
	if c := meta.FindStatusCondition(*s.o.Conditions(), Understood); c != nil && c.Status == metav1.ConditionFalse {
		return c.Message
	}
	return ""
}

// Agents that see different faults agree to differ, and one that sees none and begins
// takes away what another has said only until that one hears of it.
func TestAgentsThatSeeDifferentFaultsComeToRest(t *testing.T) {
	s := newSaying("n0", "n1", "n2")
	faults := map[string]converge.Report{"n0": {Faults: []string{"too long here"}}, "n1": {Faults: []string{"too long there"}}, "n2": {}}
	for round, again := range []bool{false, true, true} {
		wrote := false
		for _, node := range []string{"n0", "n1", "n2"} { // each when it begins, and then when it hears of what the others write
			r := faults[node]
			r.Again = again
			wrote = s.report(node, r) || wrote
		}
		if round == 2 && wrote {
			t.Error("they write for ever")
		}
		if round > 0 && s.says() == "" {
			t.Error("there are faults, and nothing says so")
		}
	}
	s.o.Generation++
	if r := faults["n1"]; !s.report("n1", converge.Report{Faults: r.Faults, Again: true}) || s.says() != r.Faults[0] {
		t.Errorf("of another generation is said %q", s.says())
	}
	if !s.report("n0", converge.Report{}) || s.says() != "" {
		t.Errorf("it is mended, and said is %q", s.says())
	}
}

// What waits to be written is not forgotten because the store tells of the object
// meanwhile, as it was.
func TestWhatWaitsIsWrittenWhateverIsToldAgain(t *testing.T) {
	s := newSaying("n0")
	s.report("n0", converge.Report{Faults: []string{"one"}})
	w := s.writers["n0"]
	w.report(s.key, s.o, converge.Report{Faults: []string{"two"}})
	w.report(s.key, s.o, converge.Report{Faults: []string{"two"}, Again: true})
	if r, waits := w.pending[s.key]; !waits || r.Faults[0] != "two" || r.Again {
		t.Errorf("what waits is %+v (%v), want the second fault", r, waits)
	}
	mine := converge.Report{Ours: true}
	if s.report("n0", mine); meta.FindStatusCondition(*s.o.Conditions(), InForce) == nil {
		t.Fatal("what is in force does not say so")
	}
	*s.o.Conditions() = nil
	if mine.Again = true; !s.report("n0", mine) {
		t.Error("the object has lost that it is in force, and nobody says it again")
	}
}
