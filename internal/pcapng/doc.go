// Package pcapng has capture files. A Writer makes pcapng files (the IETF's
// draft-ietf-opsawg-pcapng) as Wireshark and tcpdump read them: interfaces by
// name, nanoseconds, each packet's direction and a comment on it. A Reader reads
// those, and files of the older pcap format, wherever they come from.
//
// gopacket's package pcapgo, the obvious choice, does neither: its writer knows no
// options of packets, and its reader divides by zero and allocates gigabytes
// where a file says so. Tests hold ours against it.
//
// All of it is for one goroutine at a time, and none of it is for the packet
// path: who captures on the path hands copies to a goroutine that writes.
package pcapng
