// Package load makes traffic between two kernel stacks, such as those of two
// pods, and measures it: pings, TCP streams, UDP floods, and round trips beside
// them; and loads that go on while something happens, of which every datagram and
// byte is accounted for. Sockets are opened in the namespaces of both sides; who
// reads and writes them is this process.
package load
