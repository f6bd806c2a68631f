package domains

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// life is a keeper that begins with what a journal has, at a time.
func life(t testing.TB, path string, at time.Time, patterns ...string) (*desk, *Journal, error) {
	d := newDesk(t)
	d.clock = at
	j, err := OpenJournal(path, d.Keeper)
	t.Cleanup(func() { _ = j.Close() })
	if err := d.Want(patterns, nil); err != nil {
		t.Fatal(err)
	}
	return d, j, err
}

// joined is what a keeper tells of new addresses.
func (d *desk) joined() string {
	var all []string
	if b := d.Take(); b != nil {
		for _, c := range b.Changes {
			all = append(all, fmt.Sprint(c.Pattern, c.Joined))
		}
	}
	return strings.Join(all, " ")
}

// What was learned and written outlives a process that is killed at any time.
func TestWhatWasLearnedOutlivesAnAgent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	d, j, err := life(t, path, start, "*.example", "gone.example")
	if err != nil {
		t.Fatal(err)
	}
	d.tell(1, "a.example", "192.0.2.1")
	if err := j.Write(); err != nil {
		t.Fatal(err)
	}
	d.tell(2, "gone.example", "2001:db8::1")
	d.clock = start.Add(20 * time.Second)
	d.tell(3, "a.example", "192.0.2.1") // for longer
	if err := j.Write(); err != nil {
		t.Fatal(err)
	}
	d.tell(4, "late.example", "192.0.2.4") // and is killed before it writes that
	next, _, err := life(t, path, start.Add(30*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if told := next.joined(); told != "" {
		t.Errorf("told of what nobody wants: %s", told)
	}
	if err := next.Want([]string{"*.example"}, nil); err != nil {
		t.Fatal(err)
	}
	if told := next.joined(); told != "*.example[192.0.2.1 2001:db8::1]" {
		t.Errorf("the next life begins with %q", told)
	}
	next.clock = start.Add(70 * time.Second)
	if b := next.Take(); b == nil || fmt.Sprint(b.Changes[0].Left) != "[2001:db8::1]" {
		t.Errorf("when the time of one is over: %+v", b)
	}
	next.clock = start.Add(81 * time.Second)
	if b := next.Take(); b == nil || fmt.Sprint(b.Changes[0].Left) != "[192.0.2.1]" {
		t.Errorf("when the time of both is over: %+v", b)
	}
	if s, _ := next.Stats(); s != (Stats{Patterns: 1}) {
		t.Errorf("what nobody wanted is kept: %+v", s)
	}
	early, _, err := life(t, path, start.Add(-365*24*time.Hour), "*.example") // a clock that was put right
	if err != nil || early.joined() == "" {
		t.Errorf("before it was written it has nothing: %v", err)
	}
	early.clock = early.clock.Add(maxTTL + time.Second)
	if early.Take(); early.book.entries != 0 {
		t.Error("kept for a year, since the clock was wrong")
	}
}

// However a journal is damaged, what is read was written, the damage is told, and the
// file is whole again.
func TestADamagedJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	d, j, err := life(t, path, start, "*.example")
	if err != nil {
		t.Fatal(err)
	}
	for i, a := range []string{"192.0.2.1", "2001:db8::1", "192.0.2.3"} {
		d.tell(uint64(i), fmt.Sprintf("n%d.example", i), a)
		if err := j.Write(); err != nil {
			t.Fatal(err)
		}
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const all = "*.example[192.0.2.1 192.0.2.3 2001:db8::1]"
	look := func(what string, text []byte) (told string, damaged bool) {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		d, _, err := life(t, path, start, "*.example")
		if told, damaged = d.joined(), errors.Is(err, ErrDamaged); err != nil && !damaged {
			t.Fatalf("%s: %v", what, err)
		}
		if again, _, err := life(t, path, start, "*.example"); err != nil || again.joined() != told {
			t.Fatalf("%s: the file is not whole again: %v", what, err)
		}
		for _, a := range strings.FieldsFunc(strings.TrimPrefix(told, "*.example"), func(r rune) bool { return strings.ContainsRune("[] ", r) }) {
			if !strings.Contains(all, a) {
				t.Fatalf("%s: %s was never learned", what, a)
			}
		}
		return told, damaged
	}
	if told, damaged := look("whole", whole); told != all || damaged {
		t.Errorf("whole it has %q, damaged: %v", told, damaged)
	}
	for i := 0; i < len(whole); i += 1 + len(whole)/60 {
		if told, damaged := look(fmt.Sprint("cut after ", i), whole[:i]); !damaged && whole[max(i-1, 0)] != '\n' || told == all {
			t.Errorf("cut after %d of %d bytes: %q, damaged: %v", i, len(whole), told, damaged)
		}
		turned := bytes.Clone(whole)
		turned[i] ^= 0x11
		if told, damaged := look(fmt.Sprint("turned at ", i), turned); told == all || !damaged {
			t.Errorf("byte %d turned: %q, damaged: %v", i, told, damaged)
		}
	}
	long := bytes.Replace(whole, []byte(heading), []byte(heading+strings.Repeat("x", 3*longestLine)+"\n"), 1)
	if told, damaged := look("a long line", long); told != all || !damaged {
		t.Errorf("a line that is too long: %q, damaged: %v", told, damaged)
	}
	if told, damaged := look("no heading", bytes.Repeat([]byte("x"), 3*longestLine)); told != "" || !damaged {
		t.Errorf("no heading: %q, damaged: %v", told, damaged)
	}
}

// Lines that were written, and say what cannot be, are damage, too.
func TestOddLinesOfAJournal(t *testing.T) {
	address := netip.MustParseAddr("192.0.2.1")
	for _, l := range []line{
		{"*", "a", address, 1 << 40}, {"*.example", "a.test", address, 1 << 40}, {Pattern: "*.example", Name: "a.example", Until: 1 << 40},
	} {
		d := newDesk(t, "*.example")
		if err := d.load(bytes.NewReader(append([]byte(heading), written([]line{l})...))); !errors.Is(err, ErrDamaged) || d.joined() != "" {
			t.Errorf("%+v: %v", l, err)
		}
	}
}

// A journal is written anew when most of it is old news, and after it could not be
// written.
func TestAJournalIsWrittenAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	d, j, err := life(t, path, start, "*.example")
	if err != nil {
		t.Fatal(err)
	}
	most := int64(0)
	for i := 0; most < slack || j.size > most; i++ {
		most = max(most, j.size)
		d.clock = d.clock.Add(time.Second)
		for n := range 100 {
			d.tell(uint64(n), fmt.Sprintf("%s%d.example", strings.Repeat("n", 60), n), "192.0.2.1")
		}
		if err := j.Write(); err != nil || i > 200 {
			t.Fatalf("after %d times it has %d bytes, once %d: %v", i, j.size, most, err)
		}
	}
	if i, err := os.Stat(path); err != nil || i.Size() != j.size || j.size > slack/10 {
		t.Errorf("written anew it has %d bytes, of %d: %v", j.size, most, err)
	}
	if err := j.file.Close(); err != nil { // as if the disk failed
		t.Fatal(err)
	}
	d.tell(1, "lost.example", "192.0.2.9")
	if err := j.Write(); err == nil {
		t.Error("a file that cannot be written is no error")
	}
	if err := j.Write(); err != nil {
		t.Error(err)
	}
	if next, _, err := life(t, path, d.clock, "*.example"); err != nil || !strings.Contains(next.joined(), "192.0.2.9") {
		t.Errorf("what could not be written at first is not there: %v", err)
	}
	if _, _, err := life(t, filepath.Join(path, "below"), start); err == nil {
		t.Error("a journal below a file is opened")
	}
}

func FuzzJournal(f *testing.F) {
	f.Add([]byte(heading))
	f.Add(append([]byte(heading), written([]line{{"*.example", "a.example", netip.MustParseAddr("192.0.2.1"), 1 << 40}})...))
	f.Add([]byte(heading + "00000000 {}\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		d := newDesk(t, "*.example")
		err := d.load(bytes.NewReader(b))
		first := append([]byte(heading), d.all()...)
		again := newDesk(t, "*.example")
		if err2 := again.load(bytes.NewReader(first)); err2 != nil {
			t.Errorf("what was read (%v) is written as %q, and cannot be read: %v", err, first, err2)
		}
		if a, b := d.joined(), again.joined(); a != b {
			t.Errorf("%s becomes %s", a, b)
		}
	})
}
