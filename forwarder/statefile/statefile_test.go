package statefile

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func open(t *testing.T, dir string) (*Store, []Record) {
	t.Helper()
	s, records, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, records
}

func chunks(texts ...string) (out [][]byte) {
	for _, s := range texts {
		out = append(out, []byte(s))
	}
	return out
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, got []Record, generations ...uint64) {
	t.Helper()
	if len(got) != len(generations) {
		t.Fatalf("%d records, want %d", len(got), len(generations))
	}
	for i, g := range generations {
		if got[i].Generation != g {
			t.Errorf("record %d is of generation %d, want %d", i, got[i].Generation, g)
		}
	}
}

// filled is a store with a snapshot and two deltas, closed.
func filled(t *testing.T) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "state")
	s, records := open(t, dir)
	want(t, records)
	must(t, s.Replace(3, chunks("ports", "", "routes")))
	must(t, s.Append(4, chunks("delta")))
	must(t, s.Append(5, nil))
	must(t, s.Close())
	return dir
}

func TestWhatIsStoredIsReadAgain(t *testing.T) {
	dir := filled(t)
	s, records := open(t, dir)
	want(t, records, 3, 4, 5)
	if got := records[0].Chunks; len(got) != 3 || string(got[2]) != "routes" || len(got[1]) != 0 {
		t.Errorf("snapshot's chunks are %q", got)
	}
	must(t, s.Append(6, chunks("more"))) // behind what was there
	must(t, s.Close())
	s, records = open(t, dir)
	want(t, records, 3, 4, 5, 6)
	must(t, s.Replace(7, chunks("all")))
	must(t, s.Close())
	_, records = open(t, dir)
	want(t, records, 7)
}

// The log cut anywhere: every record that is whole is there, none is corrupt,
// and the store goes on.
func TestTornLog(t *testing.T) {
	dir := filled(t)
	log := filepath.Join(dir, logName)
	whole, err := os.ReadFile(log)
	must(t, err)
	for cut := range len(whole) {
		for name, tail := range map[string][]byte{"cut": nil, "followed by blanks": make([]byte, 50)} {
			must(t, os.WriteFile(log, append(bytes.Clone(whole[:cut]), tail...), 0o600))
			s, records, err := Open(dir)
			if err != nil && !(tail != nil && errors.Is(err, ErrCorrupt)) {
				t.Fatalf("log %s at %d: %v", name, cut, err)
			}
			if err != nil { // blanks in the middle of a record look like damage, and are told
				restore(t, s, dir, whole)
				continue
			}
			n := len(records)
			must(t, s.Append(99, chunks("next")))
			must(t, s.Close())
			s, records, err = Open(dir)
			must(t, err)
			if len(records) != n+1 || records[n].Generation != 99 {
				t.Fatalf("log %s at %d: %d records before, %d after one more", name, cut, n, len(records))
			}
			must(t, s.Close())
		}
	}
}

// restore brings back what setAside took away.
func restore(t *testing.T, s *Store, dir string, log []byte) {
	t.Helper()
	must(t, s.Close())
	must(t, os.Rename(filepath.Join(dir, snapshotName+".corrupt"), filepath.Join(dir, snapshotName)))
	must(t, os.WriteFile(filepath.Join(dir, logName), log, 0o600))
}

// A flipped bit anywhere is noticed, or makes no difference; never another state.
func TestFlippedBits(t *testing.T) {
	for _, name := range []string{snapshotName, logName} {
		dir := filled(t)
		path := filepath.Join(dir, name)
		whole, err := os.ReadFile(path)
		must(t, err)
		other, err := os.ReadFile(filepath.Join(dir, snapshotName))
		must(t, err)
		for i := range whole {
			b := bytes.Clone(whole)
			b[i] ^= 1 << (i % 8)
			must(t, os.WriteFile(filepath.Join(dir, snapshotName), other, 0o600))
			must(t, os.WriteFile(path, b, 0o600))
			s, records, err := Open(dir)
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("bit flipped in byte %d of %s: error is %v with %d records, want it noticed", i, name, err, len(records))
			}
			if len(records) != 0 {
				t.Fatalf("bit flipped in byte %d of %s: %d records of a corrupt file", i, name, len(records))
			}
			must(t, s.Replace(1, chunks("new"))) // usable
			must(t, s.Close())
			if _, err := os.Stat(path + ".corrupt"); err != nil {
				t.Fatalf("the corrupt file was not set aside: %v", err)
			}
		}
	}
}

func TestOldLogBesideNewSnapshotIsSkipped(t *testing.T) {
	dir := filled(t)
	log, err := os.ReadFile(filepath.Join(dir, logName))
	must(t, err)
	s, _ := open(t, dir)
	must(t, s.Replace(9, chunks("all")))
	must(t, s.Close())
	must(t, os.WriteFile(filepath.Join(dir, logName), log, 0o600)) // as if a crash came before the log was emptied
	s, records := open(t, dir)
	want(t, records, 9)
	must(t, s.Append(10, nil))
	must(t, s.Close())
	_, records = open(t, dir)
	want(t, records, 9, 10)
}

func TestFull(t *testing.T) {
	s, _ := open(t, t.TempDir())
	must(t, s.Replace(1, nil))
	for i := range uint64(5) {
		if s.Full() != (i == 4) {
			t.Errorf("after %d deltas of 300 kB Full is %v", i, s.Full())
		}
		must(t, s.Append(2+i, [][]byte{make([]byte, 300_000)}))
	}
	must(t, s.Replace(99, nil))
	if s.Full() {
		t.Error("full after it was folded")
	}
}

// FuzzParse reads any bytes as records: what is accepted is exactly what encode
// would have written.
func FuzzParse(f *testing.F) {
	b, err := encode(1, 7, chunks("ports", "routes"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(append(b, b...))
	f.Add(make([]byte, 64))
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 0 {
			r, seq, rest, err := parse(b)
			if err != nil {
				return
			}
			again, err := encode(seq, r.Generation, r.Chunks)
			if one := b[:len(b)-len(rest)]; err != nil || !bytes.Equal(again, one) && len(again) == len(one) {
				t.Fatalf("accepted %x, which encodes to %x, %v", one, again, err)
			}
			b = rest
		}
	})
}
