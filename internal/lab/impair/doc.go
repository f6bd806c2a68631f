// Package impair is a bad wire: a pump in userspace between two links that
// loses, delays, reorders, duplicates, slows down or cuts what passes, for
// kernels that have no netem.
//
//	link a ── AF_PACKET ──► Path a to b ── AF_PACKET ──► link b      and the same the other way
//	                          Offer ► queue ► Due
//
// A Path is a plain machine: frames, a clock and a seed in, frames out. The same
// seed and the same frames at the same times give the same losses.
package impair
