package file_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"margay.dev/margay/datastore"
	"margay.dev/margay/datastore/file"
)

// BenchmarkList lists 10,000 objects of 100 files: as a process that begins, as one
// that knows them, and as one that knows all but one file.
func BenchmarkList(b *testing.B) {
	const files, each = 100, 100
	dir := b.TempDir()
	write := func(i int, nets string) {
		var docs []string
		for j := range each {
			docs = append(docs, doc(fmt.Sprintf("s%d-%d", i, j), nets))
		}
		path := filepath.Join(dir, fmt.Sprint(i, ".yaml"))
		if err := os.WriteFile(path, []byte(strings.Join(docs, "---\n")), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	for i := range files {
		write(i, "10.0.0.0/8")
	}
	open := func() *file.Store {
		s, err := file.Open(file.Config{Dir: dir, Settle: metav1.Duration{Duration: time.Nanosecond}})
		if err != nil {
			b.Fatal(err)
		}
		return s
	}
	list := func(s *file.Store) {
		if l, err := s.List(b.Context(), datastore.Scope{}); err != nil || len(l.Objects) != files*each {
			b.Fatalf("%v", err)
		}
	}
	known := open()
	list(known)
	for name, do := range map[string]func(i int){
		"cold":             func(int) { s := open(); list(s); _ = s.Close() },
		"known":            func(int) { list(known) },
		"one file changed": func(i int) { write(0, fmt.Sprintf("10.%d.0.0/16", i%256)); list(known) },
	} {
		b.Run(name, func(b *testing.B) {
			i := 0
			for b.Loop() {
				do(i)
				i++
			}
			b.ReportMetric(b.Elapsed().Seconds()*1e9/float64(b.N*files*each), "ns/object")
		})
	}
}
