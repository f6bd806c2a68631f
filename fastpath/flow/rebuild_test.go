package flow

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"margay.dev/margay/internal/pkt"
)

// FuzzRebuild writes anything anywhere into a table's memory: who attaches to it
// and rebuilds it is refused, or has a table that is whole.
func FuzzRebuild(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 1, 255}, uint64(0))
	f.Add([]byte("spoil the head"), uint64(1))
	for seed := range uint64(8) {
		f.Add([]byte{}, seed+2)
	}
	f.Fuzz(func(t *testing.T, writes []byte, seed uint64) {
		memory := make([]byte, MinBytes)
		table, err := New(memory, Config{Workers: 4, Endpoints: 16, Timeouts: DefaultTimeouts()})
		if err != nil {
			t.Fatal(err)
		}
		w := table.Worker(0)
		for i := range uint32(200) {
			open(w, 0, opener(int(i%2), []uint8{pkt.ProtoTCP, pkt.ProtoUDP}[i/2%2], i), i%16)
		}
		table.Advance(0, 1<<10)
		spoil(memory, writes, seed)
		again, err := Attach(memory)
		if err != nil {
			return
		}
		n := again.Rebuild()
		balanced(t, again)
		seen := 0
		for flow := range again.All(0) {
			var out [1]Result
			for d := range flow.Key {
				again.Worker(0).Lookup(0, []Packet{{Key: flow.Key[d], Kind: Plain, Segments: 1}}, out[:])
				if out[0].Ref == 0 || out[0].Generation != 0 {
					t.Errorf("%v is there and found as %+v", flow.Key[d], out[0])
				}
			}
			seen++
		}
		if seen != n {
			t.Errorf("%d flows are there, Rebuild counted %d", seen, n)
		}
		drain(t, again, 0)
	})
}

// spoil writes at the places that writes names, and at some of a random choice:
// in the head, or where the flows are.
func spoil(memory, writes []byte, seed uint64) {
	for ; len(writes) >= 6; writes = writes[6:] {
		at := binary.LittleEndian.Uint32(writes) % uint32(len(memory))
		memory[at] = writes[4]
		memory[(at+1)%uint32(len(memory))] = writes[5]
	}
	r := rand.New(rand.NewPCG(seed, 1))
	const head = 4096
	for range seed % 500 {
		at := head + r.IntN(len(memory)-head-8)
		if seed%3 == 0 {
			at = len(memory) - 8 - r.IntN(len(memory)/2)
		}
		binary.LittleEndian.PutUint64(memory[at:], r.Uint64()>>r.IntN(64))
	}
}
