// Package port has the doors of the graph: TUN devices of pods and of the node
// (TUN), AF_XDP sockets on NICs and veth ends (XSK), capture files (Pcap), and
// rings in process for tests and benchmarks (Memory). Each gives the engine
// queues that implement graph.Queue.
//
// Ports differ in what they can take, and hide it from the graph:
//
//	from ► to       TUN                             XSK, Memory without offload
//	TUN             whole, no copy                  cut into segments, checksums completed
//	XSK, Memory     TCP segments coalesced (GRO),   frames straight, no copy
//	                one writev from the frames
//
// Pcap takes what XSK takes, and copies it to its file.
//
// A superpacket is a TCP or UDP packet of up to 64 KiB that stands for several
// wire segments (Meta.GSO, GSOSize, Segments). Its L4 checksum is partial: the
// field holds the pseudo-header sum only, over the whole L4 length.
//
// TUN and XSK ports can pass to another process with their devices as they are:
// Handover, Adopt, Flight, Land, Forsake.
//
// A queue belongs to one worker; nothing here may be called while another
// goroutine is inside it, but for what says otherwise.
package port
