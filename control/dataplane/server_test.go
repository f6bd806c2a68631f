package dataplane

import (
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	v1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/internal/version"
)

// fake is a dataplane that keeps state as the contract says, unless a test
// tells it otherwise.
type fake struct {
	v1.UnimplementedDataplaneServer
	t      *testing.T
	socket string
	server *grpc.Server

	mu       sync.Mutex
	state    *mirror // in force
	commits  []*v1.Commit
	largest  int // bytes of a message
	chunks   int
	sessions int
	inForce  uint64

	welcome func() *v1.ServerMessage                                   // nil: a proper one
	answer  func(*v1.Commit, v1.Dataplane_ConnectServer) (bool, error) // true: it has answered
}

func newFake(t *testing.T) *fake {
	f := &fake{t: t, socket: filepath.Join(t.TempDir(), "dp.sock"), state: newMirror()}
	t.Cleanup(f.stop)
	return f
}

func (f *fake) start() *fake {
	l, err := net.Listen("unix", f.socket)
	if err != nil {
		f.t.Fatal(err)
	}
	f.server = grpc.NewServer()
	v1.RegisterDataplaneServer(f.server, f)
	go f.server.Serve(l)
	return f
}

func (f *fake) stop() {
	if f.server != nil {
		f.server.Stop()
		f.server = nil
	}
}

func (f *fake) Connect(s v1.Dataplane_ConnectServer) error {
	hello, err := s.Recv()
	if err != nil || hello.GetHello() == nil {
		return err
	}
	f.mu.Lock()
	f.sessions++
	w := &v1.ServerMessage{Message: &v1.ServerMessage_Welcome{Welcome: &v1.Welcome{
		Version: version.Contract, Server: "fake", BootId: "boot", Generation: f.inForce,
	}}}
	if f.welcome != nil {
		w = f.welcome()
	}
	f.mu.Unlock()
	if w != nil {
		if err := s.Send(w); err != nil {
			return err
		}
	}
	return f.converse(s)
}

func (f *fake) converse(s v1.Dataplane_ConnectServer) error {
	next := &Delta{}
	for {
		m, err := s.Recv()
		if err != nil {
			return err
		}
		f.mu.Lock()
		f.largest = max(f.largest, proto.Size(m))
		f.mu.Unlock()
		if c := m.GetChunk(); c != nil {
			f.chunks++
			gather(next, c)
			continue
		}
		c := m.GetCommit()
		f.mu.Lock()
		f.commits = append(f.commits, c)
		answer := f.answer
		f.mu.Unlock()
		if answer != nil {
			if done, err := answer(c, s); done || err != nil {
				if err != nil {
					return err
				}
				next = &Delta{}
				continue
			}
		}
		f.apply(c, next)
		next = &Delta{}
		if err := s.Send(ack(c.GetGeneration())); err != nil {
			return err
		}
	}
}

func (f *fake) apply(c *v1.Commit, d *Delta) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.GetSnapshot() {
		f.state = newMirror()
	}
	f.state.merge(d)
	f.inForce = c.GetGeneration()
}

// set changes the fake's ways under its lock.
func (f *fake) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fake) snapshot() (*State, []*v1.Commit) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state.state(), append([]*v1.Commit(nil), f.commits...)
}

func gather(d *Delta, c *v1.Chunk) {
	d.Set.Ports = append(d.Set.Ports, c.GetPorts()...)
	d.Set.Addresses = append(d.Set.Addresses, c.GetAddresses()...)
	d.Set.NextHops = append(d.Set.NextHops, c.GetNextHops()...)
	d.Set.Endpoints = append(d.Set.Endpoints, c.GetEndpoints()...)
	d.RemovedPorts = append(d.RemovedPorts, c.GetRemovedPorts()...)
	d.RemovedAddresses = append(d.RemovedAddresses, c.GetRemovedAddresses()...)
	d.RemovedNextHops = append(d.RemovedNextHops, c.GetRemovedNextHops()...)
	d.RemovedEndpoints = append(d.RemovedEndpoints, c.GetRemovedEndpoints()...)
	d.RemovedHostPort = d.RemovedHostPort || c.GetRemovedHostPort()
	if c.HostPort != nil {
		d.Set.HostPort = c.HostPort
	}
	if c.Steering != nil {
		d.Set.Steering = c.Steering
	}
	gatherPolicy(d, c)
	d.Set.Routes = append(d.Set.Routes, unpack(c.GetRoutes())...)
	for _, r := range unpack(c.GetRemovedRoutes()) {
		d.RemovedRoutes = append(d.RemovedRoutes, r.Prefix)
	}
}

func gatherPolicy(d *Delta, c *v1.Chunk) {
	for _, m := range c.GetSets() {
		if m.Left == nil { // an empty one is made by nobody who joins
			d.Set.Sets = append(d.Set.Sets, Set{m.GetSet(), m.GetName(), members(m.GetJoined())})
		} else {
			d.Left = append(d.Left, Set{m.GetSet(), m.GetName(), members(m.GetLeft())})
		}
	}
	for _, p := range c.GetPrograms() {
		if p.GetOffset() == 0 {
			d.Set.Programs = append(d.Set.Programs, Program{ID: p.GetId()})
		}
		last := &d.Set.Programs[len(d.Set.Programs)-1]
		last.Image = append(last.Image, p.GetImage()...)
	}
	d.Set.Rules = append(d.Set.Rules, c.GetRules()...)
	d.RemovedSets = append(d.RemovedSets, c.GetRemovedSets()...)
	d.RemovedPrograms = append(d.RemovedPrograms, c.GetRemovedPrograms()...)
	d.RemovedRules = append(d.RemovedRules, c.GetRemovedRules()...)
}

func members(c *v1.PrefixColumns) (out []netip.Prefix) {
	for _, r := range unpack(&v1.RouteColumns{
		Addresses4: c.GetAddresses4(), Lengths4: c.GetLengths4(), Addresses6: c.GetAddresses6(), Lengths6: c.GetLengths6(),
	}) {
		out = append(out, r.Prefix)
	}
	return out
}

// unpack reads columns back, plainly.
func unpack(c *v1.RouteColumns) (out []Route) {
	hop := func(ids []uint32, i int) uint32 {
		if len(ids) == 0 {
			return 0
		}
		return ids[i]
	}
	for i, n := range c.GetLengths4() {
		a := netip.AddrFrom4([4]byte(c.GetAddresses4()[4*i:]))
		out = append(out, Route{netip.PrefixFrom(a, int(n)), hop(c.GetNextHops4(), i)})
	}
	for i, n := range c.GetLengths6() {
		a := netip.AddrFrom16([16]byte(c.GetAddresses6()[16*i:]))
		out = append(out, Route{netip.PrefixFrom(a, int(n)), hop(c.GetNextHops6(), i)})
	}
	return out
}

func ack(g uint64) *v1.ServerMessage {
	return &v1.ServerMessage{Message: &v1.ServerMessage_Ack{Ack: &v1.Ack{Generation: g}}}
}

func refusal(g uint64, faults ...string) *v1.ServerMessage {
	return &v1.ServerMessage{Message: &v1.ServerMessage_Refusal{Refusal: &v1.Refusal{Generation: g, Faults: faults}}}
}

func quick() Options {
	return Options{Client: "test", FirstBackoff: 5 * time.Millisecond, MaxBackoff: 20 * time.Millisecond, HelloTimeout: 300 * time.Millisecond}
}
