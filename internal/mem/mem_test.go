package mem

import (
	"bytes"
	"errors"
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestAttachSeesWhatCreateWrote(t *testing.T) {
	r, err := Create("margay-test", KindArena, 7, 10_000)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	copy(r.Payload(), "hello")
	dup, err := unix.Dup(r.FD())
	if err != nil {
		t.Fatal(err)
	}
	other, err := Attach(dup, KindArena, 7)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if got := string(other.Payload()[:5]); got != "hello" {
		t.Errorf("second mapping reads %q, want %q", got, "hello")
	}
	if got := len(other.Payload()); got != 10_000 {
		t.Errorf("payload is %d bytes, want 10000", got)
	}
}

func TestAttachRefuses(t *testing.T) {
	tests := map[string]struct {
		spoil   func(r *Region)
		kind    Kind
		version uint32
		want    error
	}{
		"another kind":    {func(*Region) {}, KindArena + 1, 1, ErrKind},
		"another version": {func(*Region) {}, KindArena, 2, ErrVersion},
		"no header":       {func(r *Region) { r.data[0] = 'x' }, KindArena, 1, ErrNotOurs},
		"flipped bit":     {func(r *Region) { r.data[17] ^= 1 }, KindArena, 1, ErrCorrupt},
		"absurd size":     {func(r *Region) { r.writeHeader(KindArena, 1, 1<<40) }, KindArena, 1, ErrCorrupt},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r, err := Create("margay-test", KindArena, 1, 100)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = unmap(r.data); _ = unix.Close(r.fd) }()
			tt.spoil(r)
			if _, err := Attach(r.FD(), tt.kind, tt.version); !errors.Is(err, tt.want) {
				t.Errorf("attach says %v, want %v", err, tt.want)
			}
		})
	}
}

func TestAttachRefusesWhatIsNoRegion(t *testing.T) {
	shrinks, err := unix.MemfdCreate("margay-test", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	empty, err := unix.MemfdCreate("margay-test", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Ftruncate(shrinks, 2*HeaderSize); err != nil {
		t.Fatal(err)
	}
	var pipe [2]int
	if err := unix.Pipe(pipe[:]); err != nil {
		t.Fatal(err)
	}
	for name, fd := range map[string]int{"memory that may shrink": shrinks, "nothing": empty, "a pipe": pipe[0], "another pipe": pipe[1]} {
		if _, err := Attach(fd, KindArena, 1); !errors.Is(err, ErrNotOurs) {
			t.Errorf("attach to %s says %v, want %v", name, err, ErrNotOurs)
		}
		if err := unix.Close(fd); err != nil {
			t.Errorf("a failed attach to %s closed its descriptor: %v", name, err)
		}
	}
	if _, err := Attach(-1, KindArena, 1); err == nil {
		t.Error("no descriptor was attached to")
	}
}

// A header that its other user spoils later cannot reach beyond the mapping.
func TestPayloadIsAsLargeAsItWas(t *testing.T) {
	r, err := Create("margay-test", KindArena, 1, 100)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	r.data[16], r.data[22] = 0xff, 0xff
	if got := len(r.Payload()); got != 100 {
		t.Errorf("payload has %d bytes, want 100", got)
	}
}

func TestRegionCannotShrinkUnderItsReaders(t *testing.T) {
	r, err := Create("margay-test", KindArena, 1, 8192)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := unix.Ftruncate(r.FD(), 4096); err == nil {
		t.Error("a sealed region was cut short")
	}
}

func TestViewChecksBoundsAndAlignment(t *testing.T) {
	r, err := Create("margay-test", KindArena, 1, 64)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b := r.Payload()
	v, err := View[uint64](b, 8)
	if err != nil || len(v) != 8 {
		t.Fatalf("view of 8 words in 64 bytes: %v, %d cells", err, len(v))
	}
	v[1] = 0x0102030405060708
	if b[8] != 8 {
		t.Error("the view does not share the payload's memory")
	}
	if _, err := View[uint64](b, 9); err == nil {
		t.Error("a view longer than its memory was given out")
	}
	if _, err := View[uint64](b[1:], 1); err == nil {
		t.Error("an unaligned view was given out")
	}
}

// Regions come and go without leaving addresses behind, whatever their size.
func TestMappingsAreGivenBack(t *testing.T) {
	count := func() int {
		b, err := os.ReadFile("/proc/self/maps")
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Count(b, []byte("margay-test"))
	}
	for _, size := range []int{1, hugePage - HeaderSize, hugePage, 5*hugePage + 12345} {
		r, err := Create("margay-test", KindArena, 1, size)
		if err != nil {
			t.Fatal(err)
		}
		r.Payload()[size-1] = 1
		if size >= hugePage && uintptr(unsafe.Pointer(&r.data[0]))%hugePage != 0 {
			t.Errorf("region of %d bytes is not aligned to huge pages", size)
		}
		if count() == 0 {
			t.Errorf("region of %d bytes is not mapped", size)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if n := count(); n != 0 {
			t.Errorf("%d mappings are left of a region of %d bytes", n, size)
		}
	}
}
