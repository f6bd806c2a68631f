//go:build !race

package plain

import (
	"testing"
	"unsafe"

	"margay.dev/margay/fastpath/graph"
)

// TestPlacesOfFields holds what the assembly takes for the places of fields against the fields.
func TestPlacesOfFields(t *testing.T) {
	var m graph.Meta
	for name, places := range map[string][2]uintptr{
		"Meta":       {unsafe.Sizeof(m), 64},
		"Meta.Off":   {unsafe.Offsetof(m.Off), metaOff},
		"Meta.Len":   {unsafe.Offsetof(m.Len), metaLen},
		"Meta.Head":  {unsafe.Offsetof(m.Head), metaHead},
		"Meta.L3":    {unsafe.Offsetof(m.L3), metaL3},
		"Meta.L4":    {unsafe.Offsetof(m.L4), metaL4},
		"Meta.Flags": {unsafe.Offsetof(m.Flags), metaFlags},
		"Meta.GSO":   {unsafe.Offsetof(m.GSO), metaFlags + 6},
		"Meta.Proto": {unsafe.Offsetof(m.Proto), metaProto},
		"Meta.Bufs":  {unsafe.Offsetof(m.Bufs), metaBufs},
		"Meta.To":    {unsafe.Offsetof(m.To), metaTo},
		"DontFrag":   {graphDF, 0x40},
	} {
		if places[0] != places[1] {
			t.Errorf("%s: %d, the assembly has %d", name, places[0], places[1])
		}
	}
}

const graphDF = uintptr(graph.DontFrag) // lies in the flags where DF lies in an IPv4 header's upper two bytes

// TestAcceptBelievesNoMeta has nothing read of a packet that memory does not hold, where Go would
// panic.
func TestAcceptBelievesNoMeta(t *testing.T) {
	for _, accept := range []loop{accept4, accept6} {
		for _, off := range []uint32{1, 64, 1 << 31, 1<<32 - 1} {
			m := graph.Meta{Off: off, Head: 64, Len: 64, Bufs: 1}
			if n := accept(make([]byte, 64), &graph.Slots{m}, []uint16{0}, make([]graph.Edge, 1), edge); n != 0 {
				t.Errorf("a packet at %d of 64 bytes is taken", off)
			}
		}
	}
}
