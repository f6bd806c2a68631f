package desired

import (
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"strconv"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/classifier"
)

// Limits of what a state says about policy.
const (
	MaxImage  = 256 << 20           // bytes of one compiled list
	MaxStages = classifier.MaxTiers // of an endpoint in one direction: a verdict has no room for more
	maxTier   = 253                 // bytes of a tier's name, as Kubernetes limits names
)

// Program is a compiled rule list.
type Program struct {
	ID     uint32
	Image  []byte
	Loaded *classifier.Program
}

// Stage is a tier of policy, or the profiles, as one endpoint meets it in one
// direction.
type Stage struct {
	Program4, Program6 uint32 // 0 decides nothing
	UndecidedPasses    bool
	Name               string
}

// RuleName says what a rule is that verdicts name by its id.
type RuleName struct {
	Tier   string // empty for a profile's
	Policy string // kind/name or kind/namespace/name
	Egress bool
	Index  int
	Text   string // what it says, for people; empty if nobody said
}

// parts are the parts of images that a change has gathered.
type parts struct {
	size  uint32
	image []byte
}

// SetChange is what a change does to a set: 1 for a member that joins, 0 for one
// that leaves.
type SetChange struct {
	removed bool
	name    string // empty: as it was
	members Routes
}

// SetChanges are changes of sets, by their ids.
type SetChanges map[uint32]*SetChange

// Joined yields the members that join.
func (c *SetChange) Joined() iter.Seq[netip.Prefix] { return c.each(1) }

// Left yields the members that leave.
func (c *SetChange) Left() iter.Seq[netip.Prefix] { return c.each(0) }

func (c *SetChange) each(joins uint32) iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		for p, j := range c.members.All() {
			if j == joins && !yield(p) {
				return
			}
		}
	}
}

// Sets is the changes of sets.
func (c *Change) Sets() SetChanges { return c.sets }

// Rules yields the ids of the rules that get another name, or lose theirs.
func (c *Change) Rules() iter.Seq[uint32] { return maps.Keys(c.rules) }

func (c *Change) addPolicy(m *pb.Chunk) {
	for _, o := range m.GetSets() {
		c.addMembers(o)
	}
	for _, id := range m.GetRemovedSets() {
		if c.sets[id] != nil {
			c.faults.say("%s: changed and removed, or removed twice, in one commit", setName(id))
		}
		c.sets[id] = &SetChange{removed: true}
	}
	for _, o := range m.GetPrograms() {
		c.addPart(o)
	}
	for _, id := range m.GetRemovedPrograms() {
		put(c, c.programs, programName(id), id, nil)
	}
	p := parser{&c.faults}
	for _, o := range m.GetRules() {
		put(c, c.rules, ruleName(o.GetId()), o.GetId(), p.rule(o))
	}
	for _, id := range m.GetRemovedRules() {
		put(c, c.rules, ruleName(id), id, nil)
	}
}

func (c *Change) addMembers(m *pb.SetMembers) {
	id := m.GetSet()
	if id == 0 {
		c.faults.add("set/0", "set", 0, "above 0")
		return
	}
	s := c.sets[id]
	if s == nil {
		s = &SetChange{members: NewRoutes()}
		c.sets[id] = s
	}
	if s.removed {
		c.faults.say("%s: changed and removed in one commit", setName(id))
		return
	}
	c.nameSet(s, m)
	for by, columns := range map[uint32]*pb.PrefixColumns{1: m.GetJoined(), 0: m.GetLeft()} {
		put := func(p netip.Prefix) {
			if was, twice := s.members.Get(p); twice && was != by {
				c.faults.say("%s: member %v joins and leaves in one commit", setName(id), p)
			}
			s.members.set(p, by)
		}
		c.eachPrefix(setName(id), 4, columns.GetAddresses4(), columns.GetLengths4(), put)
		c.eachPrefix(setName(id), 16, columns.GetAddresses6(), columns.GetLengths6(), put)
	}
}

// eachPrefix reads prefixes from their columns.
func (c *Change) eachPrefix(object string, width int, addrs, lengths []byte, put func(netip.Prefix)) {
	if len(addrs) != width*len(lengths) {
		c.faults.say("%s: columns hold %d bytes of addresses and %d lengths, want %d bytes an address", object, len(addrs), len(lengths), width)
		return
	}
	for i, n := range lengths {
		if p, ok := c.prefixAt(object, addrs[i*width:(i+1)*width], int(n)); ok {
			put(p)
		}
	}
}

// prefixAt is a prefix of a column, if it is sound.
func (c *Change) prefixAt(object string, addr []byte, bits int) (netip.Prefix, bool) {
	a, _ := netip.AddrFromSlice(addr)
	p := netip.PrefixFrom(a, bits)
	switch {
	case !p.IsValid():
		c.faults.say("%s: length of %v is %d, want 0 to %d", object, a, bits, a.BitLen())
	case a.Is4In6():
		c.faults.say("%s: prefix %v is IPv4 mapped into IPv6, want plain IPv4", object, p)
	case p != p.Masked():
		c.faults.say("%s: prefix %v has bits behind its length, want %v", object, p, p.Masked())
	default:
		return p, true
	}
	return p, false
}

func (c *Change) addPart(m *pb.ProgramPart) {
	object := programName(m.GetId())
	if m.GetId() == 0 || m.GetSize() == 0 || m.GetSize() > MaxImage {
		c.faults.say("%s: id is %d and size %d, want an id above 0 and 1 to %d bytes", object, m.GetId(), m.GetSize(), MaxImage)
		return
	}
	p := c.parts[m.GetId()]
	if p == nil {
		p = &parts{size: m.GetSize()}
		c.parts[m.GetId()] = p
	}
	if m.GetSize() != p.size || int(m.GetOffset()) != len(p.image) || len(m.GetImage()) > int(p.size)-len(p.image) || len(m.GetImage()) == 0 {
		c.faults.say("%s: part of %d bytes at %d of %d, want one at %d of %d that does not reach beyond the end",
			object, len(m.GetImage()), m.GetOffset(), m.GetSize(), len(p.image), p.size)
		return
	}
	p.image = append(p.image, m.GetImage()...)
	if len(p.image) < int(p.size) {
		return
	}
	delete(c.parts, m.GetId())
	loaded, err := classifier.Load(p.image)
	if err != nil {
		c.faults.say("%s: %v", object, err)
		return
	}
	put(c, c.programs, object, m.GetId(), &Program{ID: m.GetId(), Image: p.image, Loaded: loaded})
}

func (p parser) rule(m *pb.RuleName) *RuleName {
	object := ruleName(m.GetId())
	if m.GetId() == 0 || m.GetId() > classifier.MaxRuleID {
		p.add(object, "id", m.GetId(), fmt.Sprintf("1 to %d", classifier.MaxRuleID))
	}
	if len(m.GetTier()) > maxTier || len(m.GetPolicy()) > 3*maxTier {
		p.say("%s: tier and policy have %d and %d bytes, want at most %d and %d", object, len(m.GetTier()), len(m.GetPolicy()), maxTier, 3*maxTier)
	}
	return &RuleName{
		Tier: m.GetTier(), Policy: m.GetPolicy(), Egress: m.GetEgress(), Index: int(m.GetIndex()),
		Text: p.line(object, "text", m.GetText()),
	}
}

func (p parser) stages(object, field string, list []*pb.Stage) (out []Stage) {
	if len(list) > MaxStages {
		p.add(object, field, len(list), fmt.Sprintf("at most %d stages", MaxStages))
		return nil
	}
	for _, s := range list {
		if len(s.GetName()) > maxTier {
			p.add(object, field+" name length", len(s.GetName()), fmt.Sprintf("at most %d bytes", maxTier))
		}
		out = append(out, Stage{s.GetProgram4(), s.GetProgram6(), s.GetUndecidedPasses(), s.GetName()})
	}
	return out
}

// policy checks that all that is named is there after the change.
func (k check) policy() {
	for id := range k.c.parts {
		k.say("%s: %d of %d bytes came", programName(id), len(k.c.parts[id].image), k.c.parts[id].size)
	}
	for id, e := range k.c.endpoints {
		if e != nil {
			k.needPrograms(id, e)
		}
	}
	for id, p := range k.c.programs {
		if p != nil && k.base.Programs[id] != nil {
			k.say("%s: it is there already: another list takes another id", programName(id))
		}
	}
	k.unusedPrograms()
	k.tenants()
}

// tenants checks that who is judged by stages has a port of its own: packets are
// judged by the port that they come by and leave by.
func (k check) tenants() {
	if len(k.c.endpoints) == 0 {
		return
	}
	at := map[string]string{} // endpoint by port
	judged := map[string]bool{}
	seat := func(id string, e *Endpoint) {
		judged[e.Port] = judged[e.Port] || e.Policy == PolicyEnforced || e.Host
		if other, shared := at[e.Port]; shared && judged[e.Port] {
			k.say("endpoint/%s: port %s has another endpoint, %s, and policy is enforced there, or it is a host's: want a port for each",
				clip(max(id, other)), e.Port, clip(min(id, other)))
		}
		at[e.Port] = id
	}
	for id, e := range k.base.Endpoints {
		if _, changed := k.c.endpoints[id]; !changed {
			seat(id, e)
		}
	}
	for id, e := range k.c.endpoints {
		if e != nil {
			seat(id, e)
		}
	}
}

// needPrograms checks that the programs of an endpoint's stages are there.
func (k check) needPrograms(id string, e *Endpoint) {
	for s := range e.allStages() {
		for _, program := range []uint32{s.Program4, s.Program6} {
			if program != 0 && k.program(program) == nil {
				k.say("endpoint/%s: stage %.64q names program %d, want a program of this state", clip(id), s.Name, program)
			}
		}
	}
}

// program is the one of that id after the change, or nil.
func (k check) program(id uint32) *Program {
	if p, changed := k.c.programs[id]; changed {
		return p
	}
	return k.base.Programs[id]
}

// unusedPrograms checks that no endpoint is left that names a program which goes.
func (k check) unusedPrograms() {
	gone := map[uint32]int{} // stages of endpoints that change, by program
	for id := range k.c.endpoints {
		if old := k.base.Endpoints[id]; old != nil {
			for program := range old.programs() {
				gone[program]++
			}
		}
	}
	for id, p := range k.c.programs {
		if n := k.base.stages[id] - gone[id]; p == nil && n > 0 {
			k.say("%s: removed, but %d stages of endpoints name it", programName(id), n)
		}
	}
}

// programs yields the program of each stage and family, as often as it is named.
func (e *Endpoint) programs() iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		for s := range e.allStages() {
			if s.Program4 != 0 && !yield(s.Program4) || s.Program6 != 0 && !yield(s.Program6) {
				return
			}
		}
	}
}

// Facing are the stages that judge packets between who is behind the endpoint's port
// and the node: what comes by the port, and what leaves by it. That is the egress and
// the ingress of a workload, and of a host the other way round.
func (e *Endpoint) Facing() [2][]Stage {
	if e.Host {
		return [2][]Stage{e.Ingress, e.Egress}
	}
	return [2][]Stage{e.Egress, e.Ingress}
}

// FacingStaged is Facing for the stages that would judge if staged policies were in force.
func (e *Endpoint) FacingStaged() [2][]Stage {
	if e.Host {
		return [2][]Stage{e.StagedIngress, e.StagedEgress}
	}
	return [2][]Stage{e.StagedEgress, e.StagedIngress}
}

// allStages yields the stages of both directions, and those that are staged.
func (e *Endpoint) allStages() iter.Seq[*Stage] {
	return func(yield func(*Stage) bool) {
		for _, stages := range [][]Stage{e.Egress, e.Ingress, e.StagedEgress, e.StagedIngress} {
			for i := range stages {
				if !yield(&stages[i]) {
					return
				}
			}
		}
	}
}

// mergePolicy makes the change of sets, programs and names of rules, which was
// checked; that of endpoints is made later.
func (s *State) mergePolicy(c *Change) {
	for id := range c.endpoints {
		s.countStages(s.Endpoints[id], -1)
	}
	for _, e := range c.endpoints {
		s.countStages(e, 1)
	}
	mergeMap(s.Programs, c.programs)
	mergeMap(s.Rules, c.rules)
	for id, change := range c.sets {
		if change.removed {
			delete(s.Sets, id)
			delete(s.setNames, id)
			continue
		}
		members, had := s.Sets[id]
		if !had {
			members = NewRoutes()
			s.Sets[id] = members
		}
		if change.name != "" {
			s.setNames[id] = change.name
		}
		for p, joined := range change.members.All() {
			if joined != 0 {
				members.set(p, 1)
			} else {
				members.remove(p)
			}
		}
	}
}

func (s *State) countStages(e *Endpoint, by int) {
	if e == nil {
		return
	}
	for id := range e.programs() {
		if s.stages[id] += by; s.stages[id] == 0 {
			delete(s.stages, id)
		}
	}
}

// policy adds sets, programs and names of rules.
func (e *exporter) policy(s *State) {
	for id, members := range s.Sets {
		e.set(id, s.setNames[id], members)
	}
	for id, p := range s.Programs {
		for at := 0; at < len(p.Image); at += MaxChunk / 4 {
			part := p.Image[at:min(at+MaxChunk/4, len(p.Image))]
			c := e.with(32 + len(part))
			c.Programs = append(c.Programs, &pb.ProgramPart{Id: id, Size: uint32(len(p.Image)), Offset: uint32(at), Image: part})
		}
	}
	for id, r := range s.Rules {
		c := e.with(32 + len(r.Tier) + len(r.Policy) + len(r.Text))
		c.Rules = append(c.Rules, &pb.RuleName{Id: id, Tier: r.Tier, Policy: r.Policy, Egress: r.Egress, Index: uint32(r.Index), Text: r.Text})
	}
}

// set adds the name and the members of a set, by as many messages as they need.
func (e *exporter) set(id uint32, name string, members Routes) {
	var m *pb.SetMembers
	in := (*pb.Chunk)(nil)
	begin := func() {
		in = e.with(16 + len(name))
		m = &pb.SetMembers{Set: id, Name: name, Joined: &pb.PrefixColumns{}}
		in.Sets = append(in.Sets, m)
	}
	begin() // an empty set is one, too
	for p := range members.All() {
		if e.with(18) != in {
			begin()
		}
		if j := m.Joined; p.Addr().Is4() {
			b := p.Addr().As4()
			j.Addresses4, j.Lengths4 = append(j.Addresses4, b[:]...), append(j.Lengths4, byte(p.Bits()))
		} else {
			b := p.Addr().As16()
			j.Addresses6, j.Lengths6 = append(j.Addresses6, b[:]...), append(j.Lengths6, byte(p.Bits()))
		}
	}
}

func stagesProto(list []Stage) (out []*pb.Stage) {
	for _, s := range list {
		out = append(out, &pb.Stage{Program4: s.Program4, Program6: s.Program6, UndecidedPasses: s.UndecidedPasses, Name: s.Name})
	}
	return out
}

func setName(id uint32) string     { return "set/" + strconv.FormatUint(uint64(id), 10) }
func programName(id uint32) string { return "program/" + strconv.FormatUint(uint64(id), 10) }
func ruleName(id uint32) string    { return "rule/" + strconv.FormatUint(uint64(id), 10) }
