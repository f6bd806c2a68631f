//go:build !amd64 || race

package flow

// locate is locatePortable.
//
//fastpath:hot
func locate(index []bucket, entries []entry, s *seed, packets []Packet, refs []Ref) {
	locatePortable(index, entries, s, packets, refs)
}

// steady is steadyPortable.
//
//fastpath:hot
func steady(entries []entry, now Tick, packets []Packet, refs []Ref, out []Result) int {
	return steadyPortable(entries, now, packets, refs, out)
}
