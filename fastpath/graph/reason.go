package graph

// Reason is why a packet was dropped. The set is closed and documented: a drop
// without a reason does not exist, and each is counted once, in wire segments.
type Reason uint8

// The reasons, in the order in which a packet may meet them.
const (
	NoReason Reason = iota // not dropped; a drop that carries it is a bug and is counted as such

	// Reception.
	RxRunt      // shorter than its link-layer header
	RxOversize  // longer than the port's MTU allows, or more buffers than we follow
	RxOffload   // offload header from the port contradicts the packet
	RxNoBuffer  // no free buffer to receive into
	RxPortGone  // received or queued on a port that has been removed
	EthType     // EtherType we do not speak
	VLANUnknown // VLAN id that no port of ours has
	VLANStack   // more VLAN tags than one
	NotForUs    // unicast to a MAC address that is not ours
	SpoofedMAC  // source MAC is not the endpoint's
	ARPInvalid  // malformed ARP, or one that an endpoint may not send
	NDInvalid   // malformed neighbour discovery (RFC 4861), or one that an endpoint may not send

	// The IP header (RFC 1812 section 5.2.2, RFC 8200 section 3).
	IPTruncated    // ends before its header, or total length says more than came
	IPVersion      // version is neither 4 nor 6
	IPHeaderLength // IHL under 5 or beyond the packet
	IPChecksum     // header checksum is wrong
	IPOptions      // source route or another option that we refuse
	IPMartian      // source or destination that may not appear on a wire, or not beyond its link
	IPMulticast    // multicast or broadcast that we do not forward
	ExtHeader      // extension-header chain malformed, too long, or routing type 0
	FragInvalid    // fragment that overlaps its header, is tiny, or runs past 65,535 bytes
	L4Truncated    // ends before its transport header
	L4Length       // transport header's length contradicts the packet

	// Forwarding.
	NoPolicy      // endpoint has no policy state yet
	SpoofedSource // strict reverse path: source does not live behind the port
	NoRoute       // no route to the destination
	Blackhole     // route says blackhole
	Prohibited    // route says prohibit
	TTLSpent      // hop limit spent
	TooBig        // exceeds the MTU and may not be fragmented
	Loop          // would leave by the port of an endpoint it came in by
	Unresolved    // neighbour did not answer in time
	HoldFull      // too many packets wait for a neighbour, or too many neighbours are waited for
	NoHostPort    // for the node itself, and there is no host port

	// Policy.
	EgressDenied  // policy of the endpoint that sends it, or that opened its flow
	IngressDenied // policy of the endpoint that it is for, or that its flow was opened to
	HostDenied    // from an endpoint to its own node, which does not take that
	Encapsulated  // from an endpoint, and would carry other packets past policy

	// The flow table, see package flow; in its order.
	FlowMalformed
	FlowBadFlags
	FlowOutOfWindow
	FlowBadAck
	FlowBadState
	FlowBadReset
	FlowBadQuote
	FlowUnknownQuote
	FlowForgedQuote
	FlowFragmentUnknown
	FlowFragmentOverlap
	FlowFragmentRepeated
	FlowFragmentScatter
	FlowFragmentFull
	FlowMidFlow
	FlowTableFull
	FlowOverShare
	FlowIndexFull
	FlowTupleTaken

	// Packets of our own.
	EchoInvalid // echo request to us that cannot be answered

	// Transmission.
	TxNoPort   // its port has gone
	TxFull     // transmit ring or hand-off ring is full
	TxDown     // the device is down or vanished
	TxNoBuffer // no free buffer to segment into
	TxOffload  // superpacket that cannot be segmented
	TxOversize // frame longer than the port takes

	HandedOver // held when another forwarder took over, which then failed

	// Former is the sum of what a forwarder before this one dropped for reasons
	// that this version does not have.
	Former

	reasons // how many there are
)

// Reasons is the number of drop reasons, NoReason included.
const Reasons = int(reasons)

var reasonNames = [Reasons]string{
	NoReason: "none",
	RxRunt:   "rx-runt", RxOversize: "rx-oversize", RxOffload: "rx-offload", RxNoBuffer: "rx-no-buffer", RxPortGone: "rx-port-gone",
	EthType: "ethertype", VLANUnknown: "vlan-unknown", VLANStack: "vlan-stack", NotForUs: "not-for-us", SpoofedMAC: "spoofed-mac",
	ARPInvalid: "arp-invalid", NDInvalid: "nd-invalid",
	IPTruncated: "ip-truncated", IPVersion: "ip-version", IPHeaderLength: "ip-header-length", IPChecksum: "ip-checksum",
	IPOptions: "ip-options", IPMartian: "ip-martian", IPMulticast: "ip-multicast", ExtHeader: "ext-header", FragInvalid: "fragment-invalid",
	L4Truncated: "l4-truncated", L4Length: "l4-length",
	NoPolicy: "no-policy", SpoofedSource: "spoofed-source", NoRoute: "no-route", Blackhole: "blackhole", Prohibited: "prohibited",
	TTLSpent: "ttl-spent", TooBig: "too-big", Loop: "loop", Unresolved: "unresolved", HoldFull: "hold-full", NoHostPort: "no-host-port",
	EgressDenied: "egress-denied", IngressDenied: "ingress-denied", HostDenied: "host-denied", Encapsulated: "encapsulated",
	FlowMalformed: "flow-malformed", FlowBadFlags: "flow-bad-flags", FlowOutOfWindow: "flow-out-of-window", FlowBadAck: "flow-bad-ack",
	FlowBadState: "flow-bad-state", FlowBadReset: "flow-bad-reset", FlowBadQuote: "flow-bad-quote", FlowUnknownQuote: "flow-unknown-quote",
	FlowForgedQuote: "flow-forged-quote", FlowFragmentUnknown: "flow-fragment-unknown", FlowFragmentOverlap: "flow-fragment-overlap",
	FlowFragmentRepeated: "flow-fragment-repeated", FlowFragmentScatter: "flow-fragment-scatter", FlowFragmentFull: "flow-fragment-full",
	FlowMidFlow: "flow-mid-flow", FlowTableFull: "flow-table-full", FlowOverShare: "flow-over-share", FlowIndexFull: "flow-index-full",
	FlowTupleTaken: "flow-tuple-taken",
	EchoInvalid:    "echo-invalid",
	TxNoPort:       "tx-no-port", TxFull: "tx-full", TxDown: "tx-down", TxNoBuffer: "tx-no-buffer", TxOffload: "tx-offload", TxOversize: "tx-oversize",
	HandedOver: "handed-over", Former: "former",
}

// String is the reason's name in counters and traces.
func (r Reason) String() string {
	if int(r) >= Reasons {
		return "unknown"
	}
	return reasonNames[r]
}

// FlowReason is the reason for which package flow refuses a packet, by its number there.
func FlowReason(n uint8) Reason { return FlowMalformed + Reason(n) - 1 }

// Origin is what kind of packet we made ourselves.
type Origin uint8

// The packets we make.
const (
	MadeICMPError Origin = iota
	MadeEchoReply
	MadeARP
	MadeND
	MadeFragment
	MadeFormer // by a forwarder before this one, of kinds that this version does not have
	origins
)

// Origins is the number of kinds of packets we make.
const Origins = int(origins)

// String is the kind's name in counters.
func (o Origin) String() string {
	return [Origins]string{"icmp-error", "echo-reply", "arp", "nd", "fragment", "former"}[o]
}

// Use is how we consumed a packet instead of passing it on.
type Use uint8

// The uses of packets that end with us.
const (
	UsedEcho   Use = iota // an echo request we answered
	UsedARP               // an ARP message we took note of
	UsedND                // a neighbour discovery message we took note of
	UsedSplit             // a packet that went on as fragments
	UsedFormer            // by a forwarder before this one, in ways that this version does not have
	uses
)

// Uses is the number of ways in which a packet ends with us.
const Uses = int(uses)

// String is the use's name in counters.
func (u Use) String() string { return [Uses]string{"echo", "arp", "nd", "split", "former"}[u] }
