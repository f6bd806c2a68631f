package policy

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/classifier"
)

// The sets of addresses that rules name: each side's hosts, and sets of others,
// which come and go.
const (
	sideSet  classifier.SetID = 1 // of side 0; the next is side 1's
	otherSet classifier.SetID = 3
	others                    = 64
)

// ruleList is n rules for one direction. One in four, and the last, lets the
// conversations of the benchmark pass, each to a port of its own; the others are
// for sets that hold others, or deny other ports to everybody.
func ruleList(n int, ingress bool) []classifier.Rule {
	list := make([]classifier.Rule, n)
	for i := range list {
		r := classifier.Rule{ID: uint32(i + 1), Action: classifier.Allow}
		set, port := otherSet+classifier.SetID(i%others), rulePort(i)
		switch {
		case isOpen(i, n) && ingress:
			set = sideSet
		case isOpen(i, n):
			set = sideSet + 1
		case i%4 == 0:
			r.Action, set, port = classifier.Deny, 0, port+32_768
		}
		if set != 0 && ingress {
			r.Source.Sets = []classifier.SetID{set}
		} else if set != 0 {
			r.Destination.Sets = []classifier.SetID{set}
		}
		r.Destination.Ports = []classifier.Range{{First: port, Last: port}}
		list[i] = r
	}
	return list
}

// rulePort is the port that rule i of at most 10,000 is about; a denial is of one
// far above.
func rulePort(i int) uint16 { return uint16(1000 + i) }

// isOpen tells whether rule i of n lets the conversations of the benchmark pass.
func isOpen(i, n int) bool { return i%4 == 2 || i == n-1 }

// openPorts are those that conversations may go to under n rules; any, under none.
func openPorts(n int) (ports []uint16) {
	for i := range max(n, 1) {
		if isOpen(i, max(n, 1)) {
			ports = append(ports, rulePort(i))
		}
	}
	return ports
}

// image compiles a list, for addresses that are in one set at most.
func image(list []classifier.Rule) ([]byte, error) {
	var alone [][]classifier.SetID
	for set := range otherSet + others {
		alone = append(alone, []classifier.SetID{set + 1})
	}
	c, err := classifier.Compile(list, classifier.Options{Combinations: alone})
	if err != nil {
		return nil, err
	}
	return c.Image, nil
}

// columns are hosts' prefixes as the contract has them.
func columns(addrs ...netip.Addr) *pb.PrefixColumns {
	c := &pb.PrefixColumns{}
	for _, a := range addrs {
		if a.Is4() {
			c.Addresses4, c.Lengths4 = append(c.Addresses4, a.AsSlice()...), append(c.Lengths4, 32)
		} else {
			c.Addresses6, c.Lengths6 = append(c.Addresses6, a.AsSlice()...), append(c.Lengths6, 128)
		}
	}
	return c
}

// program is an image in as many chunks as it takes.
func program(id uint32, image []byte) (all []*pb.Chunk) {
	const most = 1 << 19
	for at := 0; at < len(image); at += most {
		part := &pb.ProgramPart{Id: id, Size: uint32(len(image)), Offset: uint32(at), Image: image[at:min(at+most, len(image))]}
		all = append(all, &pb.Chunk{Programs: []*pb.ProgramPart{part}})
	}
	return all
}

// beginning is a state in which an endpoint on each side is judged by a list of so
// many rules: what side 0 sends, and what side 1 is sent.
func beginning(rules int) (all []*pb.Chunk, err error) {
	c := &pb.Chunk{}
	for side := range 2 {
		list, err := image(ruleList(rules, side == 1))
		if err != nil {
			return nil, err
		}
		id, name := uint32(side+1), fmt.Sprint("side", side)
		all = append(all, program(id, list)...)
		c.Ports = append(c.Ports, &pb.Port{Name: name, Kind: &pb.Port_Tun{Tun: &pb.TunPort{}}})
		stage := []*pb.Stage{{Program4: id, Program6: id, Name: "default"}}
		e := &pb.Endpoint{Id: name, Port: name, Policy: pb.Endpoint_POLICY_ENFORCED}
		for _, ipv6 := range []bool{false, true} {
			e.Addresses = append(e.Addresses, address(ipv6, side, 0).String())
		}
		if side == 0 { // opens all conversations
			e.Egress = stage
		} else {
			e.Ingress = stage
		}
		c.Endpoints = append(c.Endpoints, e)
		set := &pb.SetMembers{Set: uint32(sideSet) + uint32(side), Joined: &pb.PrefixColumns{}}
		for host := range uint16(hosts) {
			four, six := columns(address(false, side, host)), columns(address(true, side, host))
			set.Joined.Addresses4, set.Joined.Lengths4 = append(set.Joined.Addresses4, four.Addresses4...), append(set.Joined.Lengths4, 32)
			set.Joined.Addresses6, set.Joined.Lengths6 = append(set.Joined.Addresses6, six.Addresses6...), append(set.Joined.Lengths6, 128)
		}
		c.Sets = append(c.Sets, set)
	}
	for i := range uint32(others) {
		c.Sets = append(c.Sets, &pb.SetMembers{Set: uint32(otherSet) + i, Joined: columns(stranger(false, i), stranger(true, i))})
	}
	return append(all, c), nil
}

// address is that of a side's host: 10 and 20 point its side, or fd00:1 and fd00:2.
func address(ipv6 bool, side int, host uint16) netip.Addr {
	if ipv6 {
		b := [16]byte{0: 0xfd, 3: byte(1 + side)}
		binary.BigEndian.PutUint16(b[14:], host)
		return netip.AddrFrom16(b)
	}
	b := [4]byte{0: byte(10 * (1 + side))}
	binary.BigEndian.PutUint16(b[2:], host)
	return netip.AddrFrom4(b)
}

// covering is the route to a side's hosts.
func covering(ipv6 bool, side int) netip.Prefix {
	bits := 8
	if ipv6 {
		bits = 32
	}
	return netip.PrefixFrom(address(ipv6, side, 0), bits)
}

// stranger is an address of neither side, by its number.
func stranger(ipv6 bool, n uint32) netip.Addr {
	if ipv6 {
		b := [16]byte{0: 0xfd, 3: 9}
		binary.BigEndian.PutUint32(b[12:], n)
		return netip.AddrFrom16(b)
	}
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 90<<24|n)))
}
