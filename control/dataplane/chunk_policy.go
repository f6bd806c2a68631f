package dataplane

import (
	"fmt"
	"net/netip"

	v1 "margay.dev/margay/api/dataplane/v1"
)

// memberSize is the bytes of a member of a set in columns, at most: address and length.
const memberSize = 16 + 1

// imagePart is how much of an image travels in one message beside others.
const imagePart = ChunkLimit / 2

// policy packs what judges endpoints.
func (p *packer) policy(s *State) error {
	for _, x := range s.Sets {
		if err := p.set(x, func(m *v1.SetMembers) **v1.PrefixColumns { return &m.Joined }); err != nil {
			return err
		}
	}
	for _, x := range s.Programs {
		if err := p.program(x); err != nil {
			return err
		}
	}
	for _, x := range s.Rules {
		if err := p.add(x, fmt.Sprintf("rule %d", x.GetId()), func(c *v1.Chunk) { c.Rules = append(c.Rules, x) }); err != nil {
			return err
		}
	}
	return nil
}

// policyRemovals packs what no longer does.
func (p *packer) policyRemovals(d *Delta) error {
	for _, x := range d.Left {
		if err := p.set(x, func(m *v1.SetMembers) **v1.PrefixColumns { return &m.Left }); err != nil {
			return err
		}
	}
	for what, ids := range map[string][]uint32{"set": d.RemovedSets, "program": d.RemovedPrograms, "rule": d.RemovedRules} {
		for _, id := range ids {
			if err := p.room(5, "removed "+what); err != nil {
				return err
			}
			switch c := p.chunk; what {
			case "set":
				c.RemovedSets = append(c.RemovedSets, id)
			case "program":
				c.RemovedPrograms = append(c.RemovedPrograms, id)
			case "rule":
				c.RemovedRules = append(c.RemovedRules, id)
			}
		}
	}
	return nil
}

// set packs the name of a set and members that join or leave it, as columns picks,
// by as many messages as they need. Joining nobody makes a set that is empty.
func (p *packer) set(x Set, columns func(*v1.SetMembers) **v1.PrefixColumns) error {
	var m *v1.SetMembers
	var in *v1.Chunk
	for i := 0; i < max(1, len(x.Members)); i++ {
		size := wrapping/2 + len(x.Name)
		if in == p.chunk {
			size = memberSize
		}
		if err := p.room(size, "set"); err != nil {
			return err
		}
		if in != p.chunk {
			in, m = p.chunk, &v1.SetMembers{Set: x.ID, Name: x.Name}
			*columns(m) = &v1.PrefixColumns{}
			in.Sets = append(in.Sets, m)
		}
		if i < len(x.Members) {
			if err := addMember(*columns(m), x.Members[i]); err != nil {
				return fmt.Errorf("send set %d: %w", x.ID, err)
			}
		}
	}
	return nil
}

func addMember(c *v1.PrefixColumns, prefix netip.Prefix) error {
	a := prefix.Addr()
	if err := checkPrefix(prefix); err != nil {
		return err
	}
	if a.Is4() {
		c.Addresses4, c.Lengths4 = append(c.Addresses4, a.AsSlice()...), append(c.Lengths4, byte(prefix.Bits()))
	} else {
		c.Addresses6, c.Lengths6 = append(c.Addresses6, a.AsSlice()...), append(c.Lengths6, byte(prefix.Bits()))
	}
	return nil
}

func (p *packer) program(x Program) error {
	name := fmt.Sprintf("program %d", x.ID)
	if len(x.Image) == 0 {
		return fmt.Errorf("send %s: it has no image", name)
	}
	for at := 0; at < len(x.Image); at += imagePart {
		part := &v1.ProgramPart{Id: x.ID, Size: uint32(len(x.Image)), Offset: uint32(at), Image: x.Image[at:min(at+imagePart, len(x.Image))]}
		if err := p.add(part, name, func(c *v1.Chunk) { c.Programs = append(c.Programs, part) }); err != nil {
			return err
		}
	}
	return nil
}

// checkPrefix says why a prefix cannot be sent.
func checkPrefix(prefix netip.Prefix) error {
	if a := prefix.Addr(); !prefix.IsValid() || a.Is4In6() || a.Zone() != "" || prefix.Masked() != prefix {
		return fmt.Errorf("%v is no prefix in its shortest form", prefix)
	}
	return nil
}
