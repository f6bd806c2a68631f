// Package xsk is the forwarder's contact with AF_XDP: memory shared with the
// kernel (UMEM), sockets with their four rings (Socket), and the XDP program
// that steers what is ours into them (Steering, Program).
//
//	            UMEM: one memory, anchored on lo of a private namespace
//	           ┌──────────────┴──────────────┐
//	Socket (port a, queue 0)        Socket (port b, queue 0)
//	 fill ► rx      tx ► completion   fill ► rx      tx ► completion
//	   ▲
//	Program on port a ── what is ours is redirected, the rest goes to the kernel
//
// Every socket of a UMEM has fill and completion rings of its own, so one worker
// owns a queue whole, and a frame received on one port is sent on another by its
// address, without a copy.
//
// The kernel ties three things to the first bind of a UMEM: the mode (copy or
// zero-copy), need_wakeup and multi-buffer. A later bind that shares the UMEM
// inherits them and may set no flag of its own. Sharing ends when the device of
// the socket named in the bind goes away. A copy UMEM is therefore anchored by a
// socket on a device that nobody deletes: lo of a namespace that this socket
// alone keeps alive.
//
// The kernel may write to a frame from Fill until Receive returns it, and read it
// from Transmit until Complete returns it. Nothing here tracks that; the owner of
// the frames does (internal/mem's depot and the port's caches).
//
// All of it can pass to another process that gets the descriptors (Adopt and what
// begins so): the rings of a bound socket may be mapped again, and a bpf_link takes
// another program between two frames. One process at a time uses a socket.
//
// Zero-copy mode is written by the kernel's documentation and has not met a
// driver that offers it: veth and the virtual devices it is tested on refuse it.
//
// A Socket is owned by one goroutine: none of its methods may run at the same
// time as another. UMEM, Steering and Program may be used by several.
package xsk
