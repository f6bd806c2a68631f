// Package probe finds out who reaches whom, with real packets: TCP and UDP
// servers in every pod, and SCTP associations begun by INIT and INIT ACK over raw
// sockets, since few kernels have SCTP. Its answers are a truth.Table.
//
//	Ask ──► round: every query that is open, from a source port never used before
//	          │    answered: allowed
//	          ├──► a while later: is the destination alive, does the source's node forward?
//	          │    both asked from the pod's own node, which may always ask
//	          └──► unanswered, though both are: one of three such rounds that make a refusal
//
// A lost packet is thus no refusal, and neither is a machine that is busy with
// other things: rounds that show no life do not count, and take as long as life
// takes. What shows no life at all stays truth.Unknown.
package probe
