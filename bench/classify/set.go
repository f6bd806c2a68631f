package classify

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"margay.dev/margay/bench/classbench"
	"margay.dev/margay/classifier"
)

// shipped are the sets that the bench carries, small ones first, as a quick run
// may end early.
func shipped() []string {
	return []string{"acl1_1k", "fw1_1k", "ipc1_1k", "acl1_10k", "fw1_10k", "ipc1_10k"}
}

// seed is that of made traces.
const seed = 1

// set is a list of rules with a trace whose answers are true.
type set struct {
	name  string
	list  []classifier.Rule
	trace []classbench.Header
}

// source says where a set comes from: one that is shipped, or the user's files.
type source struct {
	name         string
	rules, trace string
	files        fs.FS // nil: the paths are the user's
}

// sources are the sets of a run.
func sources(shippedFiles fs.FS, rules, trace string) ([]source, error) {
	if rules != "" {
		name := strings.TrimSuffix(filepath.Base(rules), ".gz")
		return []source{{name: name, rules: rules, trace: trace}}, nil
	}
	if trace != "" {
		return nil, fmt.Errorf("trace %s is of no rule set: name its set with --rules", trace)
	}
	var all []source
	for _, name := range shipped() {
		all = append(all, source{name, "testdata/" + name + ".gz", "testdata/" + name + "_trace.gz", shippedFiles})
	}
	return all, nil
}

// load reads the rules and the trace. A trace that is missing is made; where
// answers are missing, or some of a sample are not true, all are found by a scan.
func (s source) load(say func(string, ...any)) (*set, error) {
	f, err := s.open(s.rules)
	if err != nil {
		return nil, fmt.Errorf("open rule set: %w", err)
	}
	defer f.Close()
	list, err := classbench.ReadRules(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.rules, err)
	}
	if s.trace == "" {
		n := headers(len(list))
		say("%s: make a trace of %d headers, seed %d", s.name, n, seed)
		return &set{s.name, list, classbench.MakeTrace(list, n, seed)}, nil
	}
	t, err := s.open(s.trace)
	if err != nil {
		return nil, fmt.Errorf("open trace: %w", err)
	}
	defer t.Close()
	trace, told, err := classbench.ReadTrace(t, len(list))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.trace, err)
	}
	scan, start := classbench.NewScan(list), time.Now()
	if !told || scan.Check(trace, 1000) > 0 {
		scan.Answer(trace)
		say("%s: the trace's own answers are missing or not true: found all by a scan in %.1f s", s.name, time.Since(start).Seconds())
	}
	return &set{s.name, list, trace}, nil
}

func (s source) open(path string) (fs.File, error) {
	if s.files != nil {
		return s.files.Open(path)
	}
	return os.Open(path)
}

// headers is how many a made trace has: fewer where each costs a long scan.
func headers(rules int) int {
	if rules > 20_000 {
		return 20_000
	}
	return 100_000
}

// wrong counts verdicts that are not the trace's answers.
func (s *set) wrong(out []classifier.Verdict) (n int) {
	for i, v := range out {
		got := int32(classbench.None)
		if v.Action() != classifier.NoMatch {
			got = int32(v.Rule())
		}
		if got != s.trace[i].Answer {
			n++
		}
	}
	return n
}
