//go:build linux

package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	dataplanev1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/internal/render"
)

// meanings says for each drop reason what an operator should read in it.
var meanings = map[string]string{
	"none":             "a drop without a reason: report it as a bug",
	"rx-runt":          "shorter than a link-layer header",
	"rx-oversize":      "longer than the port's MTU allows",
	"rx-offload":       "offload header contradicts the packet",
	"rx-no-buffer":     "no free buffer to receive into: more frames are needed",
	"rx-port-gone":     "its port was removed under it",
	"ethertype":        "neither IP, ARP nor VLAN",
	"vlan-unknown":     "VLAN that no port has",
	"vlan-stack":       "more VLAN tags than one",
	"not-for-us":       "unicast to another MAC address",
	"spoofed-mac":      "an endpoint sent with a MAC address that is not its own",
	"arp-invalid":      "malformed ARP, or one the endpoint may not send",
	"nd-invalid":       "malformed neighbour discovery, or one the endpoint may not send",
	"ip-truncated":     "ends before its header or total length",
	"ip-version":       "IP version is neither 4 nor 6",
	"ip-header-length": "IP header length lies",
	"ip-checksum":      "IP header checksum is wrong",
	"ip-options":       "source route or another refused option",
	"ip-martian":       "an address that may not appear on a wire",
	"ip-multicast":     "multicast or broadcast, which is not forwarded",
	"ext-header":       "IPv6 extension headers are malformed or too many",
	"fragment-invalid": "fragment that is tiny, overlaps its header or runs too far",
	"l4-truncated":     "ends before its transport header",
	"l4-length":        "transport header contradicts the length",
	"no-policy":        "the endpoint has no policy state yet",
	"spoofed-source":   "source address does not live behind the port, or no way leads back to it",
	"no-route":         "no route to the destination",
	"blackhole":        "the route says to drop it",
	"prohibited":       "the route says to refuse it",
	"ttl-spent":        "hop limit spent: a loop, or traceroute",
	"too-big":          "over the MTU and may not be fragmented",
	"loop":             "would go back to the endpoint it came from",
	"unresolved":       "the neighbour did not answer",
	"hold-full":        "too many packets wait for a neighbour, or too many neighbours are waited for",
	"no-host-port":     "for the node itself, and there is no host port",
	"egress-denied":    "policy of the endpoint that sent it, or that opened its connection; of what comes by an uplink, the host's ingress policy",
	"ingress-denied":   "policy of the endpoint that it is for, or that its connection was opened to; of what leaves by an uplink, the host's egress policy",
	"host-denied":      "from an endpoint to its own node, which takes nothing from it",
	"encapsulated":     "an endpoint's packet that would carry others past policy: IP in IP, or VXLAN",

	"flow-malformed":         "transport header that is cut short or lies about its length",
	"flow-bad-flags":         "TCP flags that no segment has",
	"flow-out-of-window":     "TCP segment beyond what its receiver has offered",
	"flow-bad-ack":           "TCP segment that acknowledges what was never sent",
	"flow-bad-state":         "TCP segment that cannot come at this point of its connection",
	"flow-bad-reset":         "TCP reset that does not fit its connection: late, or forged",
	"flow-bad-quote":         "ICMP error that quotes no whole header, or one that its receiver did not send",
	"flow-unknown-quote":     "ICMP error about a connection that there is not",
	"flow-forged-quote":      "ICMP error about a segment that is not on its way, or with an MTU below the least",
	"flow-fragment-unknown":  "fragment whose first has not come, or was dropped",
	"flow-fragment-overlap":  "fragment that overlaps another of its datagram",
	"flow-fragment-repeated": "fragment that has come before",
	"flow-fragment-scatter":  "fragment of a datagram in too many separate pieces",
	"flow-fragment-full":     "fragment while too many datagrams between these two are under way",
	"flow-mid-flow":          "of a connection that nobody knows, such as one from before a restart",
	"flow-table-full":        "a new connection, and the table is full: raise flows in the configuration",
	"flow-over-share":        "a new connection of an endpoint that holds more than its share of a full table",
	"flow-index-full":        "a new connection, and its place in the table's index is full",
	"flow-tuple-taken":       "a new connection whose answers would be taken for another's",

	"echo-invalid": "ping to us that cannot be answered",
	"tx-no-port":   "the port to leave by was removed",
	"tx-full":      "transmit or hand-off ring is full: the other side is slower",
	"tx-down":      "the device is down or gone",
	"tx-no-buffer": "no free buffer to segment into: more frames are needed",
	"tx-offload":   "superpacket that cannot be cut into segments",
	"tx-oversize":  "longer than the port takes",
	"handed-over":  "held when another forwarder took over, which then failed",
	"former":       "by the forwarder before this one, for reasons that this version does not have",
}

func dropTable(w io.Writer, l *dataplanev1.DropList) error {
	if len(l.GetDrops()) == 0 {
		fmt.Fprintln(w, "nothing was dropped")
	} else {
		t := render.NewTable("REASON", ">PACKETS", "MEANING")
		for _, d := range l.GetDrops() {
			t.Row(d.GetReason(), render.Count(d.GetPackets()), meanings[d.GetReason()])
		}
		if err := t.Write(w); err != nil {
			return err
		}
	}
	if l.GetAccount() == nil {
		return nil
	}
	_, err := fmt.Fprintf(w, "\n%s\n", account(l))
	return err
}

// account is what came in against what became of it, in wire segments, and
// whether the two agree.
func account(l *dataplanev1.DropList) string {
	a := l.GetAccount()
	made, consumed := sum(a.GetMade()), sum(a.GetConsumed())
	in := a.GetRx() + made
	out := a.GetTx() + a.GetPunt() + a.GetDropped() + consumed + a.GetHeld()
	var b strings.Builder
	fmt.Fprintf(&b, "account: rx %d + made %d = tx %d + punt %d + dropped %d + consumed %d + held %d\n",
		a.GetRx(), made, a.GetTx(), a.GetPunt(), a.GetDropped(), consumed, a.GetHeld())
	b.WriteString(parts("made", a.GetMade()))
	b.WriteString(parts("consumed", a.GetConsumed()))
	if n := a.GetMadeRefused(); n > 0 {
		fmt.Fprintf(&b, "  not made: %d, for their rate or for want of a buffer or an address\n", n)
	}
	byReason := uint64(0)
	for _, d := range l.GetDrops() {
		byReason += d.GetPackets()
	}
	switch {
	case in != out:
		fmt.Fprintf(&b, "DOES NOT BALANCE: %d in, %d out. %s", in, out, moving)
	case byReason != a.GetDropped():
		fmt.Fprintf(&b, "DOES NOT BALANCE: the reasons add up to %d, %d were dropped. %s", byReason, a.GetDropped(), moving)
	default:
		b.WriteString("every packet is accounted for")
	}
	return b.String()
}

// moving is why sums may disagree for a moment.
const moving = "Counters of workers are read one after another: ask again when traffic rests, and report a difference that stays as a bug"

func sum(parts map[string]uint64) (n uint64) {
	for _, v := range parts {
		n += v
	}
	return n
}

// parts is a line that takes a sum apart, nothing if it is empty.
func parts(what string, counts map[string]uint64) string {
	var some []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		if counts[name] > 0 {
			some = append(some, fmt.Sprintf("%s %d", name, counts[name]))
		}
	}
	if len(some) == 0 {
		return ""
	}
	return fmt.Sprintf("  %s: %s\n", what, strings.Join(some, ", "))
}
