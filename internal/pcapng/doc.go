// Package pcapng has capture files. A Writer makes pcapng files (the IETF's
// draft-ietf-opsawg-pcapng) as Wireshark and tcpdump read them: interfaces by
// name, nanoseconds, each packet's direction and a comment on it.
//
// All of it is for one goroutine at a time, and none of it is for the packet
// path: who captures on the path hands copies to a goroutine that writes.
package pcapng
