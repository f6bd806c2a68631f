package paths

import (
	"net/netip"
	"time"

	"margay.dev/margay/forwarder/desired"
)

// Known is a station whose link-layer address is known, for another process
// that goes on with the tables.
type Known struct {
	Port   string
	Addr   netip.Addr
	MAC    desired.MAC
	Source Source
	Heard  time.Time // when it was last told
}

// Export lists what is known of stations, in no order.
func (w *Writer) Export() []Known {
	var out []Known
	for key, n := range w.neigh {
		if n.mac != (desired.MAC{}) && !n.failed {
			out = append(out, Known{Port: key.port, Addr: key.addr, MAC: n.mac, Source: n.source, Heard: n.heard})
		}
	}
	return out
}

// Import takes up what another process knew, where ways or prefixes lead to it.
// Call it when the routes are in force.
func (w *Writer) Import(known []Known) {
	for _, k := range known {
		if n := w.neigh[neighbourKey{k.Port, k.Addr}]; n != nil && n.mac == k.MAC && n.source == k.Source {
			n.heard = k.Heard
			continue
		}
		w.Reached(k.Port, k.Addr, k.MAC, k.Source)
		if n := w.neigh[neighbourKey{k.Port, k.Addr}]; n != nil {
			n.heard = k.Heard
		}
	}
}
