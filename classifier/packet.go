package classifier

// Packet is what lists ask about. It is not a key yet, for each program may know
// an address by a number of its own. An ICMP packet has source
// port 0 and destination port type<<8 | code.
type Packet struct {
	Source, Destination           uint32 // IPv4 addresses as numbers; 0 for IPv6
	SourceClass, DestinationClass uint32 // as the label table gives them
	SourcePort, DestinationPort   uint16
	Protocol                      uint8
}

// Key puts the packet's key in a program into key.
//
//fastpath:hot
func (p *Program) Key(k *Packet, key *Key) {
	source, destination := k.Source, k.Destination
	if p.mode == Classes {
		source, destination = p.Source(k.SourceClass), p.Destination(k.DestinationClass)
	}
	key[0], key[1] = keyWords(source, destination, k.Protocol, k.SourcePort, k.DestinationPort)
}

// Keys puts the keys of packets into keys, in the order in which idx names them. keys is
// at least as long as idx.
//
//fastpath:hot
func (p *Program) Keys(packets []Packet, idx []uint8, keys []Key) {
	keys = keys[:len(idx)]
	if p.mode != Classes {
		for j, i := range idx {
			k := &packets[i]
			keys[j][0], keys[j][1] = keyWords(k.Source, k.Destination, k.Protocol, k.SourcePort, k.DestinationPort)
		}
		return
	}
	source, destination := *p.sides[0].cells.Load(), *p.sides[1].cells.Load()
	for j, i := range idx {
		k := &packets[i]
		keys[j][0], keys[j][1] = keyWords(localOf(source, k.SourceClass), localOf(destination, k.DestinationClass), k.Protocol, k.SourcePort, k.DestinationPort)
	}
}
