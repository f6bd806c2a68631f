// Package fib answers the forwarder's question "where does this packet go":
// address → longest prefix → next hop → adjacency, for IPv4 and IPv6.
//
//	destination ──trie──► NextHopID ──next hops──► AdjacencyID ──slots──► Adjacency (64 bytes)
//	                                └─ or one of 128 buckets of an ECMP group ─┘
//
// One writer changes a Table; any number of readers look things up at the same
// time without a lock. A reader takes a View once per vector and uses it for
// that vector only. Every change is made of single 32-bit atomic stores into
// the tables in force, in an order that keeps them whole between any two
// stores: for any one address a reader sees the next hop of before or of
// after, never a third one. Tables grow by publishing a bigger copy; a View
// taken before that goes on with the old copy.
//
// What a change makes unreachable (a block of the trie, the buckets of a group,
// the slot of an adjacency) may still be under a reader's eyes. It is kept
// until the writer's owner reports that all readers have moved on: see
// Table.Generation and Table.Quiesced.
//
// All tables are slices of integers or of pointer-free structs: the garbage
// collector does not look into them, however many routes they hold.
//
// The trie: a root of 65,536 cells for the first 16 bits, then blocks of 256
// cells for 8 bits each. A cell holds a next hop, a block, or a jump. A jump is
// a key to compare: where only one route, or only one block further down, lies
// under a cell, a jump of 32 bytes stands for the chain of blocks of 1 KiB
// that would lead there. So a host route, a /48 and a /64 cost the same
// few loads. IPv4 addresses are the upper 32 bits of the same keys: writers
// have one code path for both families.
package fib
