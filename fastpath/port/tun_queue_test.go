package port

import (
	"bytes"
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"

	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/umem"
)

// vnetOf is a vnet header.
func vnetOf(flags, kind byte, head, size, start, offset int) (h [vnetSize]byte) {
	h[0], h[1] = flags, kind
	for i, n := range []int{head, size, start, offset} {
		binary.LittleEndian.PutUint16(h[2+2*i:], uint16(n))
	}
	return h
}

// arrive lets the queue receive one packet as its device would give it.
func (w *wire) arrive(t testing.TB, io *graph.IO, h [vnetSize]byte, p []byte) []graph.Meta {
	t.Helper()
	if _, err := unix.Write(w.other, append(h[:], p...)); err != nil {
		t.Fatal(err)
	}
	ms := make([]graph.Meta, 8)
	return ms[:w.RxBurst(io, ms)]
}

func TestVnetHeadersThatContradictThePacket(t *testing.T) {
	tcp4, _ := packetSpec{payload: 5000, gso: 1000}.build()
	tcp6, _ := packetSpec{v6: true, payload: 5000, gso: 1000}.build()
	udp4, _ := packetSpec{udp: true, payload: 5000, gso: 1000}.build()
	tests := map[string]struct {
		h  [vnetSize]byte
		p  []byte
		ok bool
	}{
		"no offload":                        {vnetOf(0, 0, 0, 0, 0, 0), tcp4, true},
		"verified by the device":            {vnetOf(vnetDataValid, 0, 0, 0, 0, 0), tcp4, true},
		"partial checksum":                  {vnetOf(1, 0, 0, 0, 20, 16), tcp4, true},
		"IPv4 TCP superpacket":              {vnetOf(1, vnetTCP4, 40, 1000, 20, 16), tcp4, true},
		"IPv4 TCP superpacket with ECN":     {vnetOf(1, vnetTCP4|vnetECN, 40, 1000, 20, 16), tcp4, true},
		"IPv6 TCP superpacket":              {vnetOf(1, vnetTCP6, 60, 1000, 40, 16), tcp6, true},
		"UDP superpacket":                   {vnetOf(1, vnetUDP, 28, 1000, 20, 6), udp4, true},
		"checksum starts beyond":            {vnetOf(1, 0, 0, 0, 5039, 16), tcp4, false},
		"checksum starts in the IP header":  {vnetOf(1, 0, 0, 0, 4, 16), tcp4, false},
		"checksum field beyond":             {vnetOf(1, 0, 0, 0, 20, 65534), tcp4, false},
		"checksum field at an odd byte":     {vnetOf(1, 0, 0, 0, 20, 15), tcp4, false},
		"segment size zero":                 {vnetOf(1, vnetTCP4, 40, 0, 20, 16), tcp4, false},
		"headers longer than the packet":    {vnetOf(1, vnetTCP4, 6000, 1000, 20, 16), tcp4, false},
		"superpacket with a whole checksum": {vnetOf(0, vnetTCP4, 40, 1000, 20, 16), tcp4, false},
		"UDP fragmentation, never asked":    {vnetOf(1, 3, 28, 1000, 20, 6), udp4, false},
		"unknown kind":                      {vnetOf(1, 77, 40, 1000, 20, 16), tcp4, false},
		"ECN on UDP":                        {vnetOf(1, vnetUDP|vnetECN, 28, 1000, 20, 6), udp4, false},
		"ECN on nothing":                    {vnetOf(1, vnetECN, 28, 1000, 20, 6), udp4, false},
		"IPv6 called IPv4":                  {vnetOf(1, vnetTCP4, 60, 1000, 40, 16), tcp6, false},
		"IPv4 called IPv6":                  {vnetOf(1, vnetTCP6, 40, 1000, 20, 16), tcp4, false},
		"UDP called TCP":                    {vnetOf(1, vnetTCP4, 28, 1000, 20, 16), udp4, false},
		"TCP called UDP":                    {vnetOf(1, vnetUDP, 40, 1000, 20, 6), tcp4, false},
		"a superpacket of headers only":     {vnetOf(1, vnetTCP4, 40, 1000, 20, 16), tcp4[:40], false},
		"a byte":                            {vnetOf(0, 0, 0, 0, 0, 0), []byte{0x45}, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			io := testIO(t, 64, 4)
			w := newWire(t)
			ms := w.arrive(t, io, tt.h, tt.p)
			if got := io.Counters().Drops[graph.RxOffload]; tt.ok != (len(ms) == 1) || tt.ok == (got == 1) {
				t.Errorf("%d packets, %d dropped for their offload header", len(ms), got)
			}
			if refused := ms[:1][0]; !tt.ok && !bytes.Equal(gather(io, &refused), tt.p) {
				t.Errorf("who looks at the refused packet sees %x", gather(io, &refused))
			}
			for i := range ms {
				if !bytes.Equal(gather(io, &ms[i]), tt.p) {
					t.Error("the packet has changed")
				}
				io.Free(&ms[i])
			}
			io.Cache.Free(w.spare)
		})
	}
}

func FuzzVnet(f *testing.F) {
	for _, spec := range superpackets() {
		p, m := spec.build()
		var h [vnetSize]byte
		putVnet(&h, p, &m)
		f.Add(h[:], p[:min(len(p), 3000)])
	}
	f.Fuzz(func(t *testing.T, header, p []byte) {
		if len(header) < vnetSize || len(p) == 0 || len(p) > 1<<16-1 {
			return
		}
		h := (*[vnetSize]byte)(header)
		m := graph.Meta{Len: uint32(len(p)), Head: uint32(len(p)), Bufs: 1, Segments: 1}
		if !readVnet(h, p, &m) {
			return
		}
		// What was accepted can be sent on: whole, and unless it is cut too small, in segments.
		var back [vnetSize]byte
		if !putVnet(&back, p, &m) {
			t.Fatalf("header %x was accepted, yet none can be written for %+v", h, m)
		}
		again := graph.Meta{Len: m.Len, Head: m.Head, Bufs: 1, Segments: 1}
		if !readVnet(&back, p, &again) || again != m {
			t.Fatalf("header %x became %x: %+v, want %+v", h, back, again, m)
		}
		if m.GSO != graph.GSONone {
			var s superpacket
			if !s.open(p, &m) || s.count() != int(m.Segments) {
				t.Fatalf("superpacket %+v cannot be cut into its %d segments", m, m.Segments)
			}
		}
	})
}

func TestReceivedPacketsLieWhereTheyBelong(t *testing.T) {
	io := testIO(t, 64, 4)
	w := newWire(t)
	for _, size := range []int{1, 40, 1500, copyMost, copyMost + 1, 65535} {
		p := bytes.Repeat([]byte{0x45, 7}, size)[:size]
		ms := w.arrive(t, io, [vnetSize]byte{}, p)
		if len(ms) != 1 {
			t.Fatalf("%d bytes: %d packets", size, len(ms))
		}
		m := ms[0]
		want := graph.Meta{Off: io.Arena.Start(m.Buf) + umem.Headroom, Len: uint32(size), Head: uint32(size), Buf: m.Buf, Bufs: 1, Segments: 1}
		if m != want || io.Arena.IsFrame(m.Buf) != (size <= copyMost) || !bytes.Equal(gather(io, &m), p) {
			t.Errorf("%d bytes: %+v, want %+v", size, m, want)
		}
		io.Free(&m)
	}
	if ms := w.arrive(t, io, [vnetSize]byte{}, nil); len(ms) != 0 || io.Counters().Drops[graph.RxRunt] != 1 || ms[:1][0].Len != 0 {
		t.Error("a packet of no bytes was not counted as a runt")
	}
	long := bytes.Repeat([]byte{0x45}, 65536)
	if ms := w.arrive(t, io, [vnetSize]byte{}, long); len(ms) != 0 || io.Counters().Drops[graph.RxOversize] != 1 || !bytes.Equal(gather(io, &ms[:1][0]), long) {
		t.Error("a packet that is too long was not refused as it is")
	}
	io.Cache.Free(w.spare)
}

func TestBurstsEndBy256KiB(t *testing.T) {
	io := testIO(t, 64, 16)
	w := newWire(t)
	h := make([]byte, vnetSize+60_000)
	for range 6 {
		if _, err := unix.Write(w.other, h); err != nil {
			t.Fatal(err)
		}
	}
	ms := make([]graph.Meta, 64)
	n := w.RxBurst(io, ms)
	if want := (burstBytes + 60_000) / 60_010; n != want {
		t.Errorf("a burst of %d packets of 60,000 bytes, want %d", n, want)
	}
	n += w.RxBurst(io, ms[n:])
	if n != 6 {
		t.Errorf("received %d packets, want 6", n)
	}
	for i := range ms[:n] {
		io.Free(&ms[i])
	}
	io.Cache.Free(w.spare)
}

func TestReceptionWithoutBuffersGoesOnWhenThereAreSome(t *testing.T) {
	io := testIO(t, 64, 2)
	w := newWire(t)
	large := make([]byte, 50_000)
	first := w.arrive(t, io, [vnetSize]byte{}, large)
	if len(first) != 1 {
		t.Fatal("nothing came")
	}
	if ms := w.arrive(t, io, [vnetSize]byte{}, large); len(ms) != 0 || io.Counters().Drops[graph.RxNoBuffer] != 1 || !bytes.Equal(gather(io, &ms[:1][0]), large) {
		t.Errorf("%d packets, drops %v", len(ms), io.Counters().Drops)
	}
	small := w.arrive(t, io, [vnetSize]byte{}, large[:100]) // needs no super of its own
	if len(small) != 1 {
		t.Fatal("a small packet did not come")
	}
	io.Free(&first[0])
	again := w.arrive(t, io, [vnetSize]byte{}, large)
	if len(again) != 1 {
		t.Fatal("nothing came after a buffer was free again")
	}
	io.Free(&small[0])
	io.Free(&again[0])
	io.Cache.Free(w.spare)
}

// A device that takes no more refuses packets, alone and in trains; all of them
// stay the caller's, as they came.
func TestTUNThatIsFull(t *testing.T) {
	io := testIO(t, 2048, 4)
	w := newWire(t)
	sent := 0
	for round, full := 0, 0; full < 2; round++ {
		var ms []graph.Meta
		var packets [][]byte
		for i, s := range trainOf(30, packetSpec{v6: round%2 == 1}) {
			if i%10 == 9 {
				s.sport = 7 // alone
			}
			s.payload = 1000
			s.seq = uint32(i) * 1000
			p, _ := s.build()
			ms, packets = append(ms, place(t, io, p, graph.Meta{}, true)), append(packets, p)
		}
		v := graph.NewVector(ms...)
		refused := w.TxBurst(io, v)
		full += refused / 30
		marked := 0
		for i := range v.Len() {
			if m := v.Meta(i); m.Reason != graph.NoReason {
				marked++
				if m.Reason != graph.TxFull {
					t.Fatalf("refused for %v", m.Reason)
				}
				if !bytes.Equal(gather(io, m), packets[i]) {
					t.Errorf("refused packet %d is not what it was", i)
				}
				io.Free(m)
			}
		}
		if marked != refused {
			t.Fatalf("%d marked, %d refused", marked, refused)
		}
		sent += 30 - refused
	}
	got := 0
	for _, b := range w.written(t) {
		got += len(parts(t, b))
	}
	if got != sent {
		t.Errorf("%d packets came out, %d were accepted", got, sent)
	}
}

func TestTUNBurstsAllocateNothing(t *testing.T) {
	io := testIO(t, 512, 16)
	w := newWire(t)
	super, m := packetSpec{payload: 60_000, gso: 1448}.build()
	segments := plainSegments(super, 20, 1448, false)
	ms := make([]graph.Meta, 64)
	v := graph.NewVector(make([]graph.Meta, len(segments)+1)...)
	h := make([]byte, vnetSize)
	putVnet((*[vnetSize]byte)(h), super, &m)
	in, out := append(h, super...), make([]byte, 1<<17)
	allocs := testing.AllocsPerRun(50, func() {
		for i, b := range segments {
			f, _ := io.Cache.Frame()
			off := io.Arena.Start(f) + umem.Headroom
			copy(io.Mem[off:], b)
			*v.Meta(i) = graph.Meta{Off: off, Len: uint32(len(b)), Head: uint32(len(b)), Buf: f, Bufs: 1, Segments: 1}
		}
		_, _ = unix.Write(w.other, in)
		if n := w.RxBurst(io, ms); n != 1 || ms[0].Segments != 42 {
			t.Fatalf("received %d packets, %d segments", n, ms[0].Segments)
		}
		*v.Meta(len(segments)) = ms[0]
		if w.TxBurst(io, v) != 0 {
			t.Fatal("refused")
		}
		for range 2 {
			if n, err := unix.Read(w.other, out); err != nil || n != vnetSize+len(super) {
				t.Fatalf("%d bytes came out (%v), want two superpackets", n, err)
			}
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations per burst, want 0", allocs)
	}
	io.Cache.Free(w.spare)
}
