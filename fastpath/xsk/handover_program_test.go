package xsk

import (
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// duplicates are a program's descriptors as another process gets them.
func duplicates(t *testing.T, p *Program) ProgramFDs {
	t.Helper()
	f := p.FDs()
	return ProgramFDs{duplicate(t, f.Link), duplicate(t, f.Program), duplicate(t, f.Sockets), duplicate(t, f.Counters)}
}

// inherit adopts steering and program, as another process does, and closes what was.
func inherit(t *testing.T, s *Steering, p *Program, meanwhile func(heir *Program)) (*Steering, *Program) {
	t.Helper()
	f := s.FDs()
	steering, err := AdoptSteering(SteeringFDs{duplicate(t, f.Prefix4), duplicate(t, f.Prefix6), duplicate(t, f.Services), duplicate(t, f.Fragments)},
		told(t, s.Prefixes()), told(t, s.Services()))
	if err != nil {
		t.Fatal(err)
	}
	program, err := AdoptProgram(told(t, p.State()), duplicates(t, p), steering)
	if err != nil {
		t.Fatal(err)
	}
	meanwhile(program)
	if err := errors.Join(program.Renew(), s.Close(), p.Close()); err != nil {
		t.Fatal(err)
	}
	return steering, program
}

// Programs and maps change hands while datagrams come; every one gets to the socket:
//
//	far: 10.7.0.1 ── v0 ══ v0 ── steering, then its heir ── Socket
func TestRenewUnderTrafficLosesNothing(t *testing.T) {
	near, far := newNamespace(t), newNamespace(t)
	near.veth(far, "v0", 1500, "")
	far.address("v0")
	steering, u := localService(t, 5000), copyUMEM(t, 1024)
	s, err := u.Open(SocketConfig{Interface: "v0", NetNS: near.fd, RingSize: 1024})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	s.Fill(addresses(0, 1024))
	program, err := Attach(ProgramConfig{Interface: "v0", NetNS: near.fd}, steering)
	if err != nil {
		t.Fatal(err)
	}
	if err := program.SetSocket(0, s); err != nil {
		t.Fatal(err)
	}
	f := &flood{conns: []*net.UDPConn{far.udp(kernel4, ours4), far.udp(kernel6, ours6)}, socket: s}
	stop := f.start(t)
	var descriptors int
	for i := range 10 {
		before := program.ID()
		steering, program = inherit(t, steering, program, func(heir *Program) {
			if heir.ID() != before {
				t.Errorf("program %d is in force before its heir's time, was %d", heir.ID(), before)
			}
		})
		if after := program.ID(); after == before || after == 0 {
			t.Errorf("program %d is in force after %d", after, before)
		}
		if err := program.Renew(); err != nil {
			t.Errorf("renewed again: %v", err)
		}
		d, _ := held(t)
		if i == 0 {
			descriptors = d // the library keeps some from its first use on
		}
		if d != descriptors {
			t.Errorf("%d descriptors are held after hand-over %d, want %d", d, i, descriptors)
		}
	}
	stop()
	c, err := program.Counters()
	if err != nil {
		t.Fatal(err)
	}
	if sent := f.sent.Load(); f.received != sent || c.Redirected != sent || c.NoSocket != 0 {
		t.Errorf("%d of %d datagrams arrived, the programs counted %+v", f.received, sent, c)
	}
	if p := steering.Prefixes(); len(p) != 2 || len(steering.Services()) != 1 {
		t.Errorf("ours are %v and %v in the end", p, steering.Services())
	}
	if err := errors.Join(steering.DeletePrefix(netip.PrefixFrom(ours4, 32)), steering.DeleteService(unix.IPPROTO_UDP, 5000, 5000)); err != nil {
		t.Errorf("the heir of the maps cannot change them: %v", err)
	}
	if err := errors.Join(program.Close(), steering.Close()); err != nil {
		t.Error(err)
	}
}

// flood sends datagrams at a pace and counts what the socket gets.
type flood struct {
	conns    []*net.UDPConn
	socket   *Socket
	sent     atomic.Uint64
	received uint64
}

// start floods until the function that it returns has all that was sent, or gives up.
func (f *flood) start(t *testing.T) (stop func()) {
	halt, sent, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(sent)
		for {
			select {
			case <-halt:
				return
			case <-time.After(time.Millisecond):
			}
			for _, c := range f.conns {
				if _, err := c.Write([]byte("hello")); err == nil {
					f.sent.Add(1)
				}
			}
		}
	}()
	go func() {
		defer close(done)
		var deadline time.Time
		for d, a := make([]Desc, 64), make([]uint64, 64); deadline.IsZero() || time.Now().Before(deadline); {
			n := f.socket.Receive(d)
			for i := range n {
				a[i] = d[i].Addr
			}
			f.socket.Fill(a[:n])
			f.received += uint64(n)
			if n > 0 {
				continue
			}
			select {
			case <-sent:
				if deadline.IsZero() {
					deadline = time.Now().Add(patience)
				}
				if f.received >= f.sent.Load() {
					return
				}
			default:
			}
			time.Sleep(100 * time.Microsecond)
		}
	}()
	return func() {
		close(halt)
		<-done
	}
}

func TestAdoptProgramRefuses(t *testing.T) {
	near, far := newNamespace(t), newNamespace(t)
	near.veth(far, "v0", 1500, "")
	near.veth(far, "v1", 1500, "")
	s := localService(t, 5000)
	attach := func(name string) *Program {
		p, err := Attach(ProgramConfig{Interface: name, NetNS: near.fd}, s)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Close() })
		return p
	}
	p, doomed := attach("v0"), attach("v1")
	heir, err := AdoptProgram(doomed.State(), duplicates(t, doomed), s)
	if err != nil {
		t.Fatal(err)
	}
	near.ip("link del v1")
	fds := p.FDs()
	with := func(change func(*ProgramFDs)) ProgramFDs {
		f := fds
		change(&f)
		return f
	}
	state := func(change func(*ProgramState)) ProgramState {
		st := p.State()
		change(&st)
		return st
	}
	type try struct {
		st   ProgramState
		fds  ProgramFDs
		with *Steering
	}
	tests := map[string]try{
		"no steering":            {p.State(), fds, nil},
		"another interface":      {state(func(st *ProgramState) { st.Index++ }), fds, s},
		"no mode":                {state(func(st *ProgramState) { st.Mode = Auto }), fds, s},
		"device that is gone":    {doomed.State(), doomed.FDs(), s},
		"counters for sockets":   {p.State(), with(func(f *ProgramFDs) { f.Sockets = f.Counters }), s},
		"sockets for counters":   {p.State(), with(func(f *ProgramFDs) { f.Counters = f.Sockets }), s},
		"a map for the program":  {p.State(), with(func(f *ProgramFDs) { f.Program = f.Counters }), s},
		"a program for the link": {p.State(), with(func(f *ProgramFDs) { f.Link = f.Program }), s},
	}
	for name, fd := range openings(t) {
		tests[name+" for the link"] = try{p.State(), with(func(f *ProgramFDs) { f.Link = fd }), s}
		tests[name+" for the program"] = try{p.State(), with(func(f *ProgramFDs) { f.Program = fd }), s}
		tests[name+" for a map"] = try{p.State(), with(func(f *ProgramFDs) { f.Sockets = fd }), s}
	}
	before, _ := held(t)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := AdoptProgram(tt.st, tt.fds, tt.with)
			if got != nil || err == nil {
				t.Fatalf("adopted %v, and says %v", got, err)
			}
			if after, _ := held(t); after != before {
				t.Errorf("%d descriptors are held after a refusal, want %d: %v", after, before, err)
			}
		})
	}
	if err := heir.Renew(); err == nil || len(heir.Fallbacks()) != 1 {
		t.Errorf("a program of a device that is gone was renewed: %v, %v", err, heir.Fallbacks())
	}
	if err := heir.Close(); err != nil {
		t.Error(err)
	}
}

func TestAdoptSteeringRefuses(t *testing.T) {
	newNamespace(t) // skips where there are none
	s := localService(t, 5000)
	fds := s.FDs()
	four, six := netip.PrefixFrom(ours4, 32), netip.PrefixFrom(ours6, 128)
	service := []Service{{unix.IPPROTO_UDP, 5000, 5000}}
	type try struct {
		fds      SteeringFDs
		prefixes []OwnedPrefix
		services []Service
	}
	tests := map[string]try{
		"an IPv4 prefix of another kind": {fds, []OwnedPrefix{{four, Whole}}, service},
		"an IPv6 prefix of another kind": {fds, []OwnedPrefix{{six, Whole}}, service},
		"an IPv4 prefix that is not set": {fds, []OwnedPrefix{{netip.MustParsePrefix("10.8.0.0/16"), Whole}}, service},
		"an IPv6 prefix that is not set": {fds, []OwnedPrefix{{netip.MustParsePrefix("fd08::/16"), Whole}}, service},
		"no prefix":                      {fds, []OwnedPrefix{{}}, service},
		"host bits":                      {fds, []OwnedPrefix{{netip.PrefixFrom(ours4, 8), Local}}, service},
		"a service too many":             {fds, nil, append(service, Service{unix.IPPROTO_TCP, 1, 2})},
		"a service too few":              {fds, nil, nil},
		"a service upside down":          {fds, nil, []Service{{unix.IPPROTO_UDP, 5000, 1}}},
		"maps exchanged":                 {SteeringFDs{fds.Prefix6, fds.Prefix4, fds.Services, fds.Fragments}, nil, service},
	}
	for name, fd := range openings(t) {
		tests[name+" for a map"] = try{SteeringFDs{fds.Prefix4, fds.Prefix6, fds.Services, fd}, nil, service}
	}
	before, _ := held(t)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := AdoptSteering(tt.fds, tt.prefixes, tt.services)
			if got != nil || err == nil {
				t.Fatalf("adopted %v, and says %v", got, err)
			}
			if after, _ := held(t); after != before {
				t.Errorf("%d descriptors are held after a refusal, want %d: %v", after, before, err)
			}
		})
	}
	if got := s.Prefixes(); len(got) != 2 {
		t.Errorf("what is ours became %v", got)
	}
}
