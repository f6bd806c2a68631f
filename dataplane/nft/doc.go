// Package nft has the kernel judge what processes of a host send and get, and
// what the kernel forwards, by policy of host endpoints: nftables in a table of
// our own, in one atomic transaction for each change.
//
//	prerouting  untracked ingress ─► tracking ─► preDNAT ─► translation
//	forward     forward ingress of where it came in ─► forward egress of where it leaves
//	input       tunnels ─► normal ingress
//	output      untracked egress ─► tracking ─► translation
//	postrouting tunnels ─► normal egress, of what the host itself sends
//
// It takes the same lists of rules as the compiled programs, and knows nothing of
// the resources that they come of.
package nft
