package classifier

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"testing"
	"unsafe"
)

// The tables lie in memory as docs/CLASSIFIER.md has them.
var (
	_ = [1]struct{}{}[unsafe.Sizeof(box{})-boxSize]
	_ = [1]struct{}{}[offRoots+(maxTrees+1)*rootSize+48-headerSize]
)

// imageOf compiles a small list with tables on several levels and a Log rule.
func imageOf(t testing.TB) []byte {
	list := []Rule{{Action: Log, Source: Side{Ports: []Range{{5, 9}}}}}
	for i := range 81 {
		n := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i % 9), 0, 0}), 16)
		port := uint16(i / 9)
		list = append(list, Rule{ID: uint32(i), Action: Deny, Source: Side{Nets: []netip.Prefix{n}}, Destination: Side{Ports: []Range{{port, port}}}})
	}
	c, err := Compile(list, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c.Image
}

// classImageOf is the same over classes, with local classes on both sides.
func classImageOf(t testing.TB) []byte {
	list := []Rule{{Action: Log, Source: Side{Sets: []SetID{1}}}}
	for i := range 40 {
		port := uint16(i / 4)
		list = append(list, Rule{ID: uint32(i), Action: Deny, Source: Side{Sets: []SetID{SetID(1 + i%5)}, Ports: []Range{{port, port}}}, Destination: Side{NotSets: []SetID{SetID(1 + i%3)}}})
	}
	c, err := Compile(list, Options{Combinations: [][]SetID{{1, 2}, {1, 3, 5}, {2, 4}}})
	if err != nil {
		t.Fatal(err)
	}
	return c.Image
}

// editedImageOf is a short one over classes with rules removed, and rules added,
// one of which names a set that no other does.
func editedImageOf(t testing.TB) []byte {
	var list []Rule
	for i := range 6 {
		port := uint16(i)
		list = append(list, Rule{ID: uint32(i), Action: Deny, Source: Side{Sets: []SetID{SetID(1 + i%2)}, Ports: []Range{{port, port}}}})
	}
	list[0].Action = Log
	c, err := Compile(list, Options{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := Load(c.Image)
	if err != nil {
		t.Fatal(err)
	}
	other := Rule{ID: 99, Action: Allow, Source: Side{Sets: []SetID{5}}, Destination: Side{NotSets: []SetID{1}}}
	p, err = p.Edit(nil, Edit{Position: 3, Rule: other}, Edit{Position: 5, Remove: true}, Edit{Position: 4, Rule: Rule{Action: Log}}, Edit{Position: 2, Remove: true})
	if err != nil {
		t.Fatal(err)
	}
	return p.Image()
}

// seal makes the checksum and the size right again.
func seal(image []byte) {
	binary.LittleEndian.PutUint64(image[offSize:], uint64(len(image)))
	binary.LittleEndian.PutUint32(image[offChecksum:], checksum(image))
}

// roam walks a program with many keys: whatever was loaded, each walk must end.
func roam(p *Program, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 0))
	keys := make([]Key, 2*Burst+1)
	for i := range keys {
		if p.mode == Classes && i%2 == 0 { // local classes, those that nobody has included
			keys[i] = NewKey(rng.Uint32N(12), rng.Uint32N(12), uint8(rng.UintN(256)), uint16(rng.UintN(20)), uint16(rng.UintN(100)))
			continue
		}
		keys[i] = NewKey(0x0a000000|rng.Uint32()&0x073f0f, rng.Uint32(), uint8(rng.UintN(256)), uint16(rng.UintN(20)), uint16(rng.UintN(100)))
	}
	out := make([]Verdict, len(keys))
	p.Match(keys, out)
	for i := range keys {
		p.MatchOne(&keys[i])
		p.Logged(&keys[i], nil)
	}
	p.AddClass(3, []SetID{1, 2, 3, 4, 5})
	p.Key(&Packet{SourceClass: 3, DestinationClass: 4}, new(Key))
}

func TestEveryBrokenByteIsRefused(t *testing.T) {
	for _, image := range [][]byte{imageOf(t), classImageOf(t), editedImageOf(t)} {
		breakEveryByte(t, image)
	}
}

func breakEveryByte(t *testing.T, image []byte) {
	p, err := Load(image)
	if err != nil {
		t.Fatal(err)
	}
	if p.levels < 2 && !p.Edited() || !p.HasLog() {
		t.Fatalf("%d levels, log %v: the image is too plain to break", p.levels, p.HasLog())
	}
	for i := range image {
		for _, flip := range []byte{1, 0x80, 0xff} {
			image[i] ^= flip
			if _, err := Load(image); !errors.Is(err, ErrImage) {
				t.Errorf("byte %d xor %#x: got %v", i, flip, err)
			}
			image[i] ^= flip
		}
		if _, err := Load(image[:i]); !errors.Is(err, ErrImage) {
			t.Errorf("cut to %d bytes: got %v", i, err)
		}
	}
}

// With the checksum made right, each broken byte is refused or walked safely.
func TestEveryForgedByteIsRefusedOrWalked(t *testing.T) {
	for _, image := range [][]byte{imageOf(t), classImageOf(t), editedImageOf(t)} {
		forgeEveryByte(t, image)
	}
}

func forgeEveryByte(t *testing.T, image []byte) {
	refused, walked := 0, 0
	for i := range image {
		for _, flip := range []byte{1, 0x10, 0x80, 0xff} {
			forged := append([]byte(nil), image...)
			forged[i] ^= flip
			seal(forged)
			p, err := Load(forged)
			if err != nil {
				refused++
				continue
			}
			walked++
			roam(p, uint64(i))
		}
	}
	if refused == 0 || walked == 0 {
		t.Errorf("%d refused and %d walked: one of the two was never seen", refused, walked)
	}
}

// A cell that leads back to its own level would make a walk endless.
func TestLoopIsRefused(t *testing.T) {
	image := imageOf(t)
	p, err := Load(image)
	if err != nil {
		t.Fatal(err)
	}
	for level := range p.levels {
		at := int(p.starts[level])
		forged := append([]byte(nil), image...)
		binary.LittleEndian.PutUint64(forged[headerSize+at*cellSize:], tableCell(uint32(at), 0, 0, 0))
		seal(forged)
		if _, err := Load(forged); !errors.Is(err, ErrImage) {
			t.Errorf("level %d: got %v", level, err)
		}
	}
}

func TestLeavesEndBeforeThePadding(t *testing.T) {
	image := imageOf(t)
	p, err := Load(image)
	if err != nil {
		t.Fatal(err)
	}
	boxes, none := uint32(len(p.boxes)-padBoxes), uint32(p.Rules())
	for name, tt := range map[string]struct {
		cell uint64
		ok   bool
	}{
		"all boxes":           {leafCell(0, boxes-1, none), true},
		"nothing at the end":  {leafCell(boxes, 0, none), true},
		"one too many":        {leafCell(0, boxes, none), false},
		"padding alone":       {leafCell(boxes, 1, none), false},
		"the last of padding": {leafCell(boxes+1, 0, none), false},
		"a rank too high":     {leafCell(0, 1, none+1), false},
	} {
		forged := append([]byte(nil), image...)
		binary.LittleEndian.PutUint64(forged[offRoots:], tt.cell)
		seal(forged)
		if p, err := Load(forged); (err == nil) != tt.ok || err != nil && !errors.Is(err, ErrImage) {
			t.Errorf("%s: got %v", name, err)
		} else if err == nil {
			roam(p, 1)
		}
	}
}

// Edits that contradict the list, or themselves, are refused.
func TestForgedEditsAreRefused(t *testing.T) {
	image := editedImageOf(t)
	h, err := readHeader(image)
	if err != nil {
		t.Fatal(err)
	}
	at := h.parts()
	plain, err := Compile([]Rule{{Action: Allow}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		image  []byte
		offset int
		value  uint32
	}{
		"removals out of order":        {image, at[partRemoved], 5},
		"a removal behind the end":     {image, at[partRemoved] + 4, 6},
		"additions out of order":       {image, at[partBefore], 6},
		"an addition behind the end":   {image, at[partBefore] + 4, 7},
		"a box of no added rule":       {image, at[partAddedBoxes] + 4, 2 << 18},
		"a term of a set that is none": {image, at[partAddedTerms], 3},
		"terms out of order":           {image, at[partAddedTermAt] + 4, 9},
		"too many additions":           {image, offAdded, MaxAdded + 1},
		"too many removals":            {image, offRemoved, MaxRemoved + 1},
		"too many boxes":               {image, offEdits, maxAddedBoxes + 1},
		"edits of an earlier version":  {image, offVersion, version},
		"no edits of a later version":  {plain.Image, offVersion, editedTo},
		"edits of a list that is not":  {editedTrees(t), offMode, uint32(Addresses)},
	} {
		forged := append([]byte(nil), tt.image...)
		binary.LittleEndian.PutUint32(forged[tt.offset:], tt.value)
		seal(forged)
		if p, err := Load(forged); !errors.Is(err, ErrImage) {
			t.Errorf("%s: got %v, %v", name, p, err)
		}
	}
}

// editedTrees is an edited image of which the list beside the trees is gone.
func editedTrees(t *testing.T) []byte {
	c, err := Compile([]Rule{{Action: Allow}}, Options{Editable: true})
	if err != nil {
		t.Fatal(err)
	}
	p, err := Load(c.Image)
	if err != nil {
		t.Fatal(err)
	}
	if p, err = p.Edit(nil, Edit{Remove: true}); err != nil {
		t.Fatal(err)
	}
	p.linear = block{}
	return p.Image()
}

func TestTablesBeginOnLines(t *testing.T) {
	for range 50 {
		p, err := Load(imageOf(t))
		if err != nil {
			t.Fatal(err)
		}
		for name, at := range map[string]unsafe.Pointer{
			"cells": unsafe.Pointer(&p.cells[0]), "boxes": unsafe.Pointer(&p.boxes[0]), "verdicts": unsafe.Pointer(&p.verdicts[0]),
		} {
			if uintptr(at)%lineSize != 0 {
				t.Errorf("%s begin at %p", name, at)
			}
		}
	}
}

func FuzzLoad(f *testing.F) {
	image := imageOf(f)
	f.Add(image, true)
	f.Add(image[:headerSize], true)
	f.Add(classImageOf(f), true)
	f.Add(editedImageOf(f), true)
	f.Fuzz(func(t *testing.T, image []byte, sealed bool) {
		if sealed && len(image) >= headerSize {
			seal(image)
		}
		if p, err := Load(image); err == nil {
			roam(p, 1)
		} else if !errors.Is(err, ErrImage) {
			t.Error(err)
		}
	})
}
