package mem

import (
	"bufio"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// huge counts the bytes of the region called name that huge pages map, as the
// kernel tells it.
func huge(t *testing.T, name string) (n int) {
	t.Helper()
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	inside := false
	for lines := bufio.NewScanner(f); lines.Scan(); {
		words := strings.Fields(lines.Text())
		switch {
		case strings.Contains(words[0], "-"):
			inside = strings.Contains(lines.Text(), "memfd:"+name)
		case inside && words[0] == "ShmemPmdMapped:":
			kib, err := strconv.Atoi(words[1])
			if err != nil {
				t.Fatal(err)
			}
			n += kib << 10
		}
	}
	return n
}

// refuseHugePages has the kernel refuse them to this process until the test ends.
func refuseHugePages(t *testing.T) {
	t.Helper()
	set := func(off uintptr) {
		if err := unix.Prctl(unix.PR_SET_THP_DISABLE, off, 0, 0, 0); err != nil {
			t.Fatal(err)
		}
	}
	set(1)
	t.Cleanup(func() { set(0) })
}

// Whatever the machine has: it is huge pages throughout, or it is told.
func TestSmallPagesAreTold(t *testing.T) {
	const size = 4*hugePage + 12345
	create := func() (hugely int, told []string) {
		r, err := Create("margay-huge", KindArena, 1, size)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		return huge(t, "margay-huge"), r.Fallbacks()
	}
	if got, told := create(); (got == size/hugePage*hugePage) != (len(told) == 0) {
		t.Errorf("huge pages hold %d of %d bytes, and the fallbacks are %q", got, size, told)
	}
	refuseHugePages(t)
	got, told := create()
	if got != 0 || len(told) != 1 {
		t.Fatalf("huge pages hold %d bytes though they were refused, and the fallbacks are %q", got, told)
	}
	for _, word := range []string{"8 MiB", unix.EINVAL.Error(), "PR_SET_THP_DISABLE"} {
		if !strings.Contains(told[0], word) {
			t.Errorf("the fallback does not tell %q: %s", word, told[0])
		}
	}
}

// Who attaches has the huge pages that the maker got, and tells nothing that the
// maker has told.
func TestAttachHasTheMakersPages(t *testing.T) {
	const size = 4*hugePage + 12345
	attach := func(r *Region) (hugely int, told []string) {
		fd, err := unix.FcntlInt(uintptr(r.FD()), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			t.Fatal(err)
		}
		other, err := Attach(fd, KindArena, 1)
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		return huge(t, "margay-huge"), other.Fallbacks()
	}
	for _, refused := range []bool{false, true} {
		if refused {
			refuseHugePages(t)
		}
		r, err := Create("margay-huge", KindArena, 1, size)
		if err != nil {
			t.Fatal(err)
		}
		alone := huge(t, "margay-huge")
		if both, told := attach(r); both != 2*alone || len(told) != 0 {
			t.Errorf("huge pages hold %d bytes of both mappings and %d of the maker's, and who attached tells %q", both, alone, told)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestRegionsTooSmallForHugePagesTellNothing(t *testing.T) {
	refuseHugePages(t)
	r, err := Create("margay-huge", KindArena, 1, hugePage-2*HeaderSize)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if told := r.Fallbacks(); len(told) != 0 {
		t.Errorf("fallbacks are %q", told)
	}
}

func TestEveryRefusalOfHugePagesComesWithAdvice(t *testing.T) {
	seen := map[string]error{}
	for _, err := range []error{unix.ENOMEM, unix.EBUSY, unix.EAGAIN, unix.EINVAL, errors.New("another")} {
		advice := adviceCollapse(err)
		if advice == "" || seen[advice] != nil {
			t.Errorf("%v and %v have the advice %q", err, seen[advice], advice)
		}
		seen[advice] = err
	}
}
