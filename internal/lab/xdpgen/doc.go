// Package xdpgen offers frames to a veth and counts those that come out at
// another, millions a second from one CPU, so that what is measured is what lies
// between.
//
// The kernel's own packet generator is a module that many kernels lack. What all
// have since 5.18 is BPF_PROG_TEST_RUN with live frames: an XDP program is run on
// the same page over and over, and what it redirects is sent for good. A Source's
// program redirects into one end of a veth pair; at the other end the frames come
// in as from a wire, provided that this end polls (NAPI), which a veth does only
// while it has a native XDP program or GRO is on. A Sink is a native XDP program
// that counts the frames of any Source and drops them; whatever else comes goes on
// to the kernel.
//
// Which receive queue a Source's frames come in at follows from its CPU: see Queue.
// A Sink counts its queues apart.
package xdpgen
