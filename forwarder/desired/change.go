package desired

import (
	"net/netip"
	"strconv"

	"google.golang.org/protobuf/proto"

	pb "margay.dev/margay/api/dataplane/v1"
)

// Change gathers the chunks of one commit. A nil object is one to remove.
// The zero value is not usable: NewChange makes one.
type Change struct {
	ports     map[string]*Port
	addresses map[Address]bool // false to remove
	nextHops  map[uint32]*NextHop
	routes    Routes // next hop 0 to remove
	endpoints map[string]*Endpoint
	host      *HostPort
	hostSet   bool // host is meant, also where it is nil
	steering  *Steering
	sets      SetChanges
	programs  map[uint32]*Program
	parts     map[uint32]*parts // of programs that are not whole yet
	rules     map[uint32]*RuleName

	faults faults
	bytes  int
	chunks int
}

// NewChange is a change of nothing.
func NewChange() *Change {
	return &Change{
		ports: map[string]*Port{}, addresses: map[Address]bool{}, nextHops: map[uint32]*NextHop{},
		routes: NewRoutes(), endpoints: map[string]*Endpoint{},
		sets: SetChanges{}, programs: map[uint32]*Program{}, parts: map[uint32]*parts{}, rules: map[uint32]*RuleName{},
	}
}

// Bytes is what the chunks took on the wire.
func (c *Change) Bytes() int { return c.bytes }

// Chunks is how many there were.
func (c *Change) Chunks() int { return c.chunks }

// Routes is the routes that the change sets, and those it removes as next hop 0.
func (c *Change) Routes() Routes { return c.routes }

// Add takes a chunk. What is wrong with it is kept for Apply to tell. A chunk
// over MaxChunk, or one that takes the sum over MaxCommit, is not looked into.
func (c *Change) Add(m *pb.Chunk) {
	size := proto.Size(m)
	c.chunks++
	c.bytes += size
	if size > MaxChunk {
		c.faults.say("chunk %d: size is %d, want at most %d bytes", c.chunks, size, MaxChunk)
		return
	}
	if c.bytes > MaxCommit {
		if c.bytes-size <= MaxCommit {
			c.faults.say("commit: size of all chunks is over %d bytes", MaxCommit)
		}
		return
	}
	c.addSmall(m)
	c.addPolicy(m)
	c.addColumns("routes", m.GetRoutes(), false)
	c.addColumns("removed_routes", m.GetRemovedRoutes(), true)
}

func (c *Change) addSmall(m *pb.Chunk) {
	p := parser{&c.faults}
	for _, o := range m.GetPorts() {
		put(c, c.ports, "port/"+clip(o.GetName()), o.GetName(), p.port(o))
	}
	for _, k := range m.GetRemovedPorts() {
		put(c, c.ports, "port/"+clip(k), k, nil)
	}
	for _, o := range m.GetAddresses() {
		c.putAddress(p.address(o), true)
	}
	for _, o := range m.GetRemovedAddresses() {
		c.putAddress(p.address(o), false)
	}
	for _, o := range m.GetNextHops() {
		put(c, c.nextHops, hopName(o.GetId()), o.GetId(), p.nextHop(o))
	}
	for _, k := range m.GetRemovedNextHops() {
		put(c, c.nextHops, hopName(k), k, nil)
	}
	for _, o := range m.GetEndpoints() {
		put(c, c.endpoints, "endpoint/"+clip(o.GetId()), o.GetId(), p.endpoint(o))
	}
	for _, k := range m.GetRemovedEndpoints() {
		put(c, c.endpoints, "endpoint/"+clip(k), k, nil)
	}
	if m.GetHostPort() != nil {
		c.putHost(p.hostPort(m.GetHostPort()))
	}
	if m.GetRemovedHostPort() {
		c.putHost(nil)
	}
	if m.GetSteering() != nil {
		s := p.steering(m.GetSteering())
		if c.steering != nil {
			c.faults.say("steering: set twice in one commit")
		}
		c.steering = &s
	}
}

// put notes an object under its key. Chunks of a commit have no order, so a
// key that occurs twice has no meaning.
func put[K comparable, V any](c *Change, m map[K]*V, object string, key K, v *V) {
	if _, twice := m[key]; twice {
		c.faults.say("%s: set or removed twice in one commit", object)
	}
	m[key] = v
}

func (c *Change) putAddress(a Address, set bool) {
	if was, twice := c.addresses[a]; twice && was != set {
		c.faults.say("address/%s/%s: set and removed in one commit", clip(a.Port), a.Prefix)
	}
	c.addresses[a] = set
}

func (c *Change) putHost(h *HostPort) {
	if c.hostSet {
		c.faults.say("host-port: set or removed twice in one commit")
	}
	c.host, c.hostSet = h, true
}

// addColumns takes routes of both families from their columns.
func (c *Change) addColumns(field string, m *pb.RouteColumns, remove bool) {
	c.addFamily(field+".4", 4, m.GetAddresses4(), m.GetLengths4(), m.GetNextHops4(), remove)
	c.addFamily(field+".6", 16, m.GetAddresses6(), m.GetLengths6(), m.GetNextHops6(), remove)
}

func (c *Change) addFamily(field string, width int, addrs, lengths []byte, hops []uint32, remove bool) {
	wantHops := len(lengths)
	if remove {
		wantHops = 0
	}
	if len(addrs) != width*len(lengths) || len(hops) != wantHops {
		c.faults.say("%s: columns hold %d bytes of addresses, %d lengths and %d next hops, want %d, %d and %d",
			field, len(addrs), len(lengths), len(hops), width*len(lengths), len(lengths), wantHops)
		return
	}
	for i, n := range lengths {
		hop := uint32(0)
		if !remove {
			hop = hops[i]
		}
		if p, ok := c.prefixAt(field, addrs[i*width:(i+1)*width], int(n)); ok {
			c.addRoute(p, hop, remove)
		}
	}
}

func (c *Change) addRoute(p netip.Prefix, hop uint32, remove bool) {
	switch {
	case !remove && (hop < 1 || hop > MaxNextHop):
		c.faults.say("route/%v: next_hop is %d, want 1 to %d", p, hop, MaxNextHop)
	default:
		if was, twice := c.routes.Get(p); twice && was != hop {
			c.faults.say("route/%v: set or removed twice in one commit, to %d and %d", p, was, hop)
		}
		c.routes.set(p, hop)
	}
}

func hopName(id uint32) string { return "next-hop/" + strconv.FormatUint(uint64(id), 10) }
