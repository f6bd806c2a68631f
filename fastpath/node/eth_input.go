package node

import (
	"encoding/binary"

	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/internal/pkt"
)

// eth-input strips the Ethernet header off frames from L2 ports.
//
// Uses: Off, Len, Head, InPort. Sets: L3, VLAN, InPort (to the sub-port of a
// VLAN), flags IPv6 and Broadcast. Drops: rx-runt, ethertype, vlan-unknown,
// vlan-stack, not-for-us, spoofed-mac.
const (
	ethDrop graph.Edge = iota
	ethARP
	ethIP
)

func ethInputSpec(t *Tables) graph.Spec {
	return graph.Spec{
		Name:  EntryL2,
		Edges: []string{ethDrop: graph.DropName, ethARP: "arp", ethIP: EntryL3},
		New:   func(int) graph.Node { return &ethInput{t} },
	}
}

type ethInput struct{ *Tables }

const macMask = 1<<48 - 1

// Process looks at the Ethernet header of each frame.
//
//fastpath:hot
func (n *ethInput) Process(w *graph.Worker, v *graph.Vector, next []graph.Edge) {
	st := n.state.Load()
	mem := w.Mem
	for i := range next {
		m := v.Meta(i)
		if m.Head < pkt.EthernetSize {
			next[i] = dropped(m, graph.RxRunt)
			continue
		}
		h := (*[pkt.EthernetSize]byte)(mem[m.Off:])
		p := st.port(m.InPort)
		m.L3 = pkt.EthernetSize
		etherType := binary.BigEndian.Uint16(h[12:14])
		if etherType == pkt.EtherVLAN || etherType == pkt.EtherQinQ || p.VLAN != 0 {
			if p, etherType = st.untag(mem, m, etherType); p == nil {
				next[i] = ethDrop
				continue
			}
		}
		if dst := binary.LittleEndian.Uint64(h[0:8]) & macMask; dst != p.mac {
			if dst&1 == 0 {
				next[i] = dropped(m, graph.NotForUs)
				continue
			}
			m.Flags |= graph.Broadcast
		}
		if p.peer != 0 && binary.LittleEndian.Uint64(h[6:14])&macMask != p.peer {
			next[i] = dropped(m, graph.SpoofedMAC)
			continue
		}
		switch etherType {
		case pkt.EtherIPv4:
			next[i] = ethIP
		case pkt.EtherIPv6:
			m.Flags |= graph.IPv6
			next[i] = ethIP
		case pkt.EtherARP:
			next[i] = ethARP
		default:
			next[i] = dropped(m, graph.EthType)
		}
	}
}

// untag finds the sub-port of a tagged frame and the EtherType behind the tag.
// VLAN 0 is priority only (IEEE 802.1Q section 9.6): the frame is untagged.
func (s *State) untag(mem []byte, m *graph.Meta, etherType uint16) (*Port, uint16) {
	if etherType != pkt.EtherVLAN && etherType != pkt.EtherQinQ {
		m.Reason = graph.VLANUnknown
		return nil, 0
	}
	if m.Head < pkt.EthernetSize+pkt.VLANSize {
		m.Reason = graph.RxRunt
		return nil, 0
	}
	tag := mem[m.Off+pkt.EthernetSize : m.Off+pkt.EthernetSize+pkt.VLANSize]
	inner := binary.BigEndian.Uint16(tag[2:])
	if inner == pkt.EtherVLAN || inner == pkt.EtherQinQ {
		m.Reason = graph.VLANStack
		return nil, 0
	}
	m.L3 += pkt.VLANSize
	m.VLAN = binary.BigEndian.Uint16(tag) & 0xfff
	if m.VLAN != 0 {
		sub, ok := s.SubPorts[SubPort{Main: m.InPort, VLAN: m.VLAN}]
		if !ok {
			m.Reason = graph.VLANUnknown
			return nil, 0
		}
		m.InPort = sub
	}
	return s.port(m.InPort), inner
}

// dropped notes why a packet is dropped and answers with the edge that does it.
//
//fastpath:hot
func dropped(m *graph.Meta, r graph.Reason) graph.Edge {
	m.Reason = r
	return graph.Drop
}
