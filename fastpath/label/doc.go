// Package label answers "which sets hold this address": address → class, for
// IPv4 and IPv6.
//
//	(set, prefix) joins, leaves ──Table──► trie: address ──► Class ──► the sets of it
//
// A class is an interned list of sets: all addresses that the same sets hold
// have the same class, and class 0 is that of addresses in no set. An address is
// in a set when any prefix that joined the set covers it, so the class of a
// prefix is made of the sets that it joined itself and of those of all prefixes
// around it. Rules are judged by class; a member that comes or goes changes cells
// of the trie and compiles nothing.
//
// One writer changes a Table; any number of readers look addresses up at the
// same time without a lock. For any one address a reader sees the class of
// before a call of the writer or that of after it, never a third one, also when
// the call changes many memberships at once. Readers find what a class holds
// before they can meet the class.
//
// The trie is that of package fib, whose next hops are classes here: one lookup,
// one set of rules for what readers may see, one piece of code that both keep
// warm. (One trie for both, of pairs of a next hop and a class, would save a
// lookup of those packets that no flow is known of, and make every member that
// moves a change of routing.) The writer's own books are two sorted lists, of
// prefixes and of memberships, and the interned lists: chunks without pointers,
// which the garbage collector does not look into.
//
// The work of a change is that of the prefixes whose classes it changes: one,
// for a host; all that lie below it, for a prefix that covers others.
//
// Memory: the writer's lists hold about 70 bytes a member. The trie comes to
// 50 bytes a member where they are dense, as the hosts of a cluster are, and to
// 80 (IPv4) or 150 (IPv6) for a million prefixes all over the address space; one
// that is alone in its neighbourhood may take 1.1 KiB, and 1 GiB is the end. The
// lists of sets take 4 bytes for each set of each class, 256 MiB at most.
package label
