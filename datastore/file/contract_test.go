package file_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"margay.dev/margay/datastore"
	"margay.dev/margay/datastore/contract"
	"margay.dev/margay/datastore/file"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open opens a folder with little patience.
func open(t *testing.T, dir string) *file.Store {
	t.Helper()
	s, err := file.Open(file.Config{Dir: dir, Settle: metav1.Duration{Duration: 5 * time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// write puts a text into a file at once.
func write(t *testing.T, path, text string) {
	t.Helper()
	temp := filepath.Join(filepath.Dir(path), ".planted")
	if err := os.WriteFile(temp, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(temp, path); err != nil {
		t.Fatal(err)
	}
}

func TestContract(t *testing.T) {
	contract.Run(t, func(t *testing.T) contract.Subject {
		dir := t.TempDir()
		s := open(t, dir)
		return contract.Subject{
			Store: s,
			Other: func() datastore.Store { return open(t, dir) },
			Plant: func(key datastore.Key, text string) {
				write(t, filepath.Join(dir, strings.ToLower(key.Kind)+"."+key.Namespace+"."+key.Name+".yaml"), text)
			},
			Fill: func(texts map[datastore.Key]string) {
				file := 0
				for some := range slices.Chunk(slices.Collect(maps.Values(texts)), 100) {
					write(t, filepath.Join(dir, fmt.Sprint(file)+".yaml"), strings.Join(some, "\n---\n"))
					file++
				}
			},
			Forget: func() { file.Forget(s) },
		}
	})
}
