package xsk

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestKernelErrorsAreExplained(t *testing.T) {
	near, far := newNamespace(t), newNamespace(t)
	near.veth(far, "v0", 1500, "numrxqueues 2 numtxqueues 2")
	u := copyUMEM(t, 64)
	zeroCopy, err := NewZeroCopyUMEM(memory(t, 64), 4096, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer zeroCopy.Close()
	open(t, u, near, "v0") // takes queue 0
	try := func(u *UMEM, name string, index, queue int) error {
		s, err := u.Open(SocketConfig{Interface: name, Index: index, Queue: queue, RingSize: 64, NetNS: near.fd})
		if err == nil {
			s.Close()
		}
		return err
	}
	tests := map[string]struct {
		err   error
		errno unix.Errno
		tells []string
	}{
		"queue taken":            {try(u, "v0", 0, 0), unix.EBUSY, []string{"bind queue 0 of v0", "another AF_XDP socket"}},
		"queue not there":        {try(u, "v0", 0, 2), unix.EINVAL, []string{"bind queue 2 of v0", "2 queues", "1 at most", "ethtool -L v0"}},
		"no zero-copy":           {try(zeroCopy, "v0", 0, 1), unix.EOPNOTSUPP, []string{"bind queue 1 of v0", "no zero-copy mode", "use copy mode"}},
		"no such name":           {try(u, "v9", 0, 0), unix.ENODEV, []string{`interface "v9"`, "no such interface in this namespace"}},
		"no such index":          {try(u, "v0", 12345, 0), unix.ENODEV, []string{"index 12345", "no such interface in this namespace"}},
		"nothing named":          {try(u, "", 0, 0), 0, []string{"neither an interface name nor an index"}},
		"descriptor of no space": {openIn(u, 0), unix.EINVAL, []string{"enter network namespace of descriptor"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var explained *Error
			if !errors.As(tt.err, &explained) {
				t.Fatalf("%v is not an *Error", tt.err)
			}
			if tt.errno != 0 && !errors.Is(tt.err, tt.errno) {
				t.Errorf("%v, want %v", tt.err, tt.errno)
			}
			for _, part := range tt.tells {
				if !strings.Contains(tt.err.Error(), part) {
					t.Errorf("%q does not tell %q", tt.err, part)
				}
			}
		})
	}
}

// openIn opens a socket in the namespace of a descriptor that is none.
func openIn(u *UMEM, fd int) error {
	_, err := u.Open(SocketConfig{Interface: "lo", RingSize: 64, NetNS: fd})
	return err
}

func TestAdviceFitsTheError(t *testing.T) {
	d := device{name: "eth0", queues: 4}
	tests := map[string]struct {
		op    string
		err   error
		tells string
	}{
		"no rights":             {opLoad, unix.EPERM, "CAP_NET_ADMIN"},
		"too much memory":       {opRegister, unix.ENOBUFS, "memlock"},
		"area refused":          {opRegister, unix.EINVAL, "start at a page"},
		"kernel without AF_XDP": {opOpen, unix.EAFNOSUPPORT, "CONFIG_XDP_SOCKETS"},
		"old kernel":            {opBind, unix.EINVAL, "older than 6.6"},
		"anchor gone":           {opBind, unix.EBADF, "open the UMEM anew"},
		"port down":             {opBind, unix.ENETDOWN, "set it up"},
		"MTU too large":         {opAttach, unix.ERANGE, "MTU"},
		"driver without XDP":    {opAttach, unix.EOPNOTSUPP, "generic mode"},
		"foreign program":       {opAttach, unix.EEXIST, "ip link set dev eth0 xdp off"},
		"no error number":       {opBind, errors.New("strange"), ""},
	}
	for name, tt := range tests {
		got := advice(tt.op, d, 0, tt.err)
		if !strings.Contains(got, tt.tells) || (tt.tells == "") != (got == "") {
			t.Errorf("%s: %q does not tell %q", name, got, tt.tells)
		}
	}
	if fault(opBind, d, 0, nil) != nil {
		t.Error("no error became one")
	}
}

func TestZeroCopyFallsBackLoudly(t *testing.T) {
	near, far := newNamespace(t), newNamespace(t)
	near.veth(far, "v0", 1500, "")
	far.address("v0")
	copying := copyUMEM(t, 64)
	u, err := NewZeroCopyUMEM(copying.Area(), 4096, 0, copying)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	s := open(t, u, near, "v0")
	if s.Mode() != Copy || s.UMEM() != copying {
		t.Errorf("mode %v with UMEM %p, want copy with the fallback's %p", s.Mode(), s.UMEM(), copying)
	}
	if len(s.Fallbacks()) != 1 || !errors.Is(s.Fallbacks()[0].Err, unix.EOPNOTSUPP) {
		t.Fatalf("fallbacks %v, want one for want of zero-copy mode", s.Fallbacks())
	}
	if got := s.Fallbacks()[0].String(); !strings.HasPrefix(got, "v0 queue 0: copy mode instead of zero-copy mode: ") {
		t.Errorf("the fallback says %q", got)
	}
	s.Fill(addresses(0, 64))
	takeOver(t, near, "v0", s, Native)
	p := &port{socket: s, change: reflect}
	p.to = p
	exchange(t, copying, far.udp(kernel4, ours4), 100, 5, p)
}

func TestUMEMRefusesWhatCannotBe(t *testing.T) {
	newNamespace(t)
	area := memory(t, 4)
	tests := map[string]struct {
		area            []byte
		chunk, headroom int
		tells           string
	}{
		"no power of two":      {area, 3000, 0, "chunk size is 3000"},
		"chunk too small":      {area, 1024, 0, "chunk size is 1024"},
		"chunk beyond a page":  {area, 8192, 0, "chunk size is 8192"},
		"no memory":            {nil, 4096, 0, "area has 0 bytes"},
		"part of a chunk":      {area[:5000], 4096, 0, "area has 5000 bytes"},
		"between pages":        {area[2048 : 2048+4096], 2048, 0, "does not start at a page"},
		"negative headroom":    {area, 4096, -1, "headroom is -1"},
		"headroom of a chunk":  {area, 4096, 4096 - 256, "headroom is 3840"},
		"last headroom refuse": {area, 2048, 2048, "headroom is 2048"},
	}
	for name, tt := range tests {
		for kind, make := range map[string]func() (*UMEM, error){
			"copy":      func() (*UMEM, error) { return NewCopyUMEM(tt.area, tt.chunk, tt.headroom) },
			"zero-copy": func() (*UMEM, error) { return NewZeroCopyUMEM(tt.area, tt.chunk, tt.headroom, nil) },
		} {
			if _, err := make(); err == nil || !strings.Contains(err.Error(), tt.tells) {
				t.Errorf("%s, %s: %v, want %q", name, kind, err, tt.tells)
			}
		}
	}
}

func TestSocketConfigTellsEveryFault(t *testing.T) {
	err := SocketConfig{Queue: -1, RingSize: 100, TxBudget: -5}.validate()
	for _, part := range []string{"queue is -1", "ring size is 100", "tx budget is -5"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%v does not tell %q", err, part)
		}
	}
}

// TestHeadroomIsKept looks where the kernel puts a received packet in its chunk.
func TestHeadroomIsKept(t *testing.T) {
	near, far := newNamespace(t), newNamespace(t)
	near.veth(far, "v0", 1500, "")
	far.address("v0")
	kernel := far.udp(kernel4, ours4)
	for _, headroom := range []int{0, 128} {
		u, err := NewCopyUMEM(memory(t, 8), 4096, headroom)
		if err != nil {
			t.Fatal(err)
		}
		s := open(t, u, near, "v0")
		s.Fill(addresses(0, 8))
		p := takeOver(t, near, "v0", s, Native)
		d := make([]Desc, 8)
		if _, err := kernel.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		soon(t, "nothing received", func() bool { return s.Receive(d) > 0 })
		if got, want := d[0].Addr%4096, uint64(KernelHeadroom+headroom); got != want {
			t.Errorf("packet starts %d into its chunk, want %d", got, want)
		}
		p.Close()
		s.Close()
		u.Close()
	}
}
