// Package flow is the table of conversations: which packets belong to one that was
// let through, how far it has come, and what was decided about it.
//
//	bytes ──Packet.Read──► Packet ──Lookup──► Hit, Stale:  goes on by what was decided, if that is still in force
//	                          ▲               Miss, Reopen: judge it by policy, then Insert
//	  later fragments: Follow ┘               Refused:      drop it, for its Reason
//
// One table serves all workers. Its memory is given to it, holds no pointers, and
// can be taken over by another process (Attach). A flow is one entry of four cache
// lines, found under two keys: that of the originator's packets and that of
// replies, which address translation makes unequal.
//
//	index: bucket ──tags, references──► entry: side 0 │ side 1 │ core │ rest
//
// A side belongs to one direction: key, counters, tick of the latest packet. The
// core is what both read: state, TCP's numbers, what was decided. The rest is for
// the owner of the table.
//
// Lookups take no lock: a packet of a known flow reads its bucket, side and core,
// and writes to its side, and to its own direction's numbers of TCP. What changes
// a flow's state claims it for a moment by compare-and-swap. Insertion locks the
// buckets of both keys, so that two workers who meet both directions at once make
// one flow. Only the owner takes flows out (Advance); an entry is used again after
// every reader has begun another vector (Generation, Quiesced).
//
// # What belongs to a flow
//
// TCP is followed by sequence number, acknowledgement and window, in the manner
// of Linux's own connection tracking and at least as strict: what it refuses is not
// passed, but for what its tests name. A flow begins with a SYN alone; a connection
// that was under way before is not trusted. A reset ends a connection only with
// exactly the number that is expected (RFC 5961). A SYN on a connection that has
// ended is judged as a new one. A superpacket is one long segment.
//
// UDP, ICMP queries and all other protocols are followed by their tuple: one way,
// until a reply comes. An ICMP error belongs to the flow that it quotes, if the
// quoted packet can be on its way, and goes to who sent that; it changes nothing
// and keeps nothing alive. Fragments follow their first, by a table of their own
// that is bounded for each pair of hosts; where fragments overlap, nothing more of
// the datagram passes.
//
// # How flows end
//
// Each has a timeout by its protocol and state. The owner keeps flows in a wheel of
// quarters of a second, in the slot in which they would have ended when they were
// last looked at: a packet costs the wheel nothing, and no sweep is ever made. A
// flow whose state makes it end earlier is looked at anew.
//
// # Full
//
// Every flow is charged to an endpoint. At the limit new flows are refused, for
// TableFull; before that an endpoint is refused for OverShare that holds more than
// four times what is vacant. One endpoint alone may so have 4/5 of the table, two
// that want all they can get 4/9 each: who holds most is refused first, and one who
// holds little finds room. Flows that there are stay.
//
// # Deciding anew
//
// An entry carries what was decided, and the generation of the tables that it was
// decided by. The caller compares that with the one in force. Where they differ it
// looks at what the decision was made from (Decision): if that is as it was, it
// stamps the flow with the new generation (Renew); if not, it judges the flow again by
// the originator's key, and stamps that (Stamp, Original).
package flow
