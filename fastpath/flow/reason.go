package flow

// Outcome is what the table says of a packet.
type Outcome uint8

// The outcomes of a lookup or an insertion.
const (
	Miss     Outcome = iota // no flow: judge the packet, and Insert it if it may pass
	Hit                     // belongs to the flow
	Stale                   // belongs to it and may pass, but tells nothing new: an old duplicate, a SYN or reset that its receiver must question
	Reopen                  // a SYN on a flow that has ended: judge it as a new one, and Insert it
	Inserted                // a flow was made, or made anew, for it
	Refused                 // must not pass; Reason says why
)

// String is the outcome's name in traces.
func (o Outcome) String() string {
	return [...]string{"miss", "hit", "stale", "reopen", "inserted", "refused"}[o]
}

// Reason is why a packet was refused. The set is closed.
type Reason uint8

// The reasons.
const (
	NoReason Reason = iota

	Malformed // transport header cut short, or lying about its length
	BadFlags  // TCP flags that no segment has (RFC 9293 section 3.1)

	// Of segments of a known flow (RFC 9293 section 3.10.7.4, RFC 5961).
	OutOfWindow // sequence number beyond what the receiver offered
	BadAck      // acknowledges what was never sent
	BadState    // a segment that cannot come at this point of a connection
	BadReset    // reset whose sequence number is not in the window

	// Of ICMP errors.
	BadQuote     // quotes no whole header, or one that its receiver did not send
	UnknownQuote // quotes a flow that there is not
	ForgedQuote  // quotes a TCP segment that is not on its way, or asks for an MTU below the least

	// Of fragments.
	FragmentUnknown  // its first has not come, or did not pass
	FragmentOverlap  // overlaps what came before, or is of a datagram where that happened (RFC 5722)
	FragmentRepeated // has come before
	FragmentScatter  // datagram in too many separate pieces
	FragmentFull     // too many datagrams under way between these two addresses

	// Of insertions.
	MidFlow    // no flow, and not a packet that may open one
	TableFull  // every entry is taken
	OverShare  // its endpoint holds more than its share of a table under pressure
	IndexFull  // the index has no room near the key's place
	TupleTaken // another flow's packets have the key of its answers
	reasons    // how many there are
)

// Reasons is how many reasons there are, NoReason included.
const Reasons = int(reasons)

// String is the reason's name in counters.
func (r Reason) String() string {
	return [Reasons]string{
		"none", "malformed", "bad-flags", "out-of-window", "bad-ack", "bad-state", "bad-reset",
		"bad-quote", "unknown-quote", "forged-quote",
		"fragment-unknown", "fragment-overlap", "fragment-repeated", "fragment-scatter", "fragment-full",
		"mid-flow", "table-full", "over-share", "index-full", "tuple-taken",
	}[r]
}

// State is how far a flow has come.
type State uint8

// The states. Of TCP they follow from what each side's segments have shown.
const (
	Free        State = iota
	Opening           // TCP: one side's SYN was seen
	Answered          // TCP: both SYNs were seen
	Established       // TCP: both SYNs are acknowledged
	HalfClosed        // TCP: one side's FIN was seen
	Closing           // TCP: both FINs were seen
	Closed            // TCP: both FINs are acknowledged; a SYN opens it again
	Reset             // TCP: a reset ended it; a SYN opens it again
	OneWay            // other protocols: the originator has sent
	BothWays          // other protocols: both sides have sent
	states            // how many there are
)

// States is how many states there are, Free included.
const States = int(states)

// String is the state's name.
func (s State) String() string {
	if s >= states {
		return "unknown"
	}
	return [States]string{"free", "opening", "answered", "established", "half-closed", "closing", "closed", "reset", "one-way", "both-ways"}[s]
}
