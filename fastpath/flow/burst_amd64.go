//go:build !race

package flow

// locate is locatePortable.
//
//go:noescape
func locate(index []bucket, entries []entry, s *seed, packets []Packet, refs []Ref)

// steady is steadyPortable.
//
//go:noescape
func steady(entries []entry, now Tick, packets []Packet, refs []Ref, out []Result) int
