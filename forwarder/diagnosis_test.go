package forwarder_test

import (
	"context"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/internal/hostnet"
	. "margay.dev/margay/internal/hostnet/hostnettest"
)

// finds wants the forwarder's doctor to say one thing about one subject.
func (l *lab) finds(check, subject string, severity pb.Diagnosis_Finding_Severity, says string) {
	l.t.Helper()
	d, err := l.inspect().Diagnose(context.Background(), &pb.DiagnoseRequest{})
	if err != nil {
		l.t.Fatal(err)
	}
	for _, f := range d.Findings {
		if f.Check == check && f.Subject == subject && f.Severity == severity && strings.Contains(f.Found, says) {
			return
		}
	}
	l.t.Errorf("no finding of %s about %q is %v and says %q, among\n%v", check, subject, severity, says, d.Findings)
}

// link reads a link in the node's namespace.
func (l *lab) link(name string) hostnet.Link {
	l.t.Helper()
	h, err := hostnet.NewHost(l.node)
	if err != nil {
		l.t.Fatal(err)
	}
	defer h.Close()
	out, err := h.Link(name)
	if err != nil {
		l.t.Fatal(err)
	}
	return out
}

// detach takes the link of an XDP program off its device by force, as bpftool does.
func detach(t *testing.T, program uint32) {
	t.Helper()
	links := new(link.Iterator)
	defer links.Close()
	for links.Next() {
		info, err := links.Link.Info()
		if err != nil {
			t.Fatal(err)
		}
		if uint32(info.Program) == program {
			if err := links.Link.Detach(); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("no link has program %d: %v", program, links.Err())
}

// impostor puts a program on a device that has the name of ours and is not ours.
func (l *lab) impostor(device string) {
	l.t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "margay_steer", Type: ebpf.XDP, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()},
	})
	if err != nil {
		l.t.Fatal(err)
	}
	defer p.Close()
	at := l.link(device)
	err = l.node.Do(func() error {
		attached, err := link.AttachXDP(link.XDPOptions{Program: p, Interface: at.Index, Flags: link.XDPDriverMode})
		if err == nil {
			l.t.Cleanup(func() { attached.Close() })
		}
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
}

const (
	isOK    = pb.Diagnosis_Finding_SEVERITY_OK
	isFault = pb.Diagnosis_Finding_SEVERITY_FAULT
)

func TestTheDoctorKnowsWhatIsOurs(t *testing.T) {
	l := newLab(t)
	l.uplinks()
	Run(t, l.node, "sysctl", "-qw", "net.ipv4.ip_local_port_range=40000 50000")
	l.start()
	c := l.connect()
	s := l.withUplinks()
	s.Steering.Services = []*pb.Steering_Service{
		{Protocol: 6, First: 30000, Last: 40005}, {Protocol: 17, First: 39000, Last: 40010}, {Protocol: 6, First: 45000, Last: 45000},
		{Protocol: 1, First: 48000, Last: 48999}, {Protocol: 58, First: 48000, Last: 48999}, // echo ids are no ports
	}
	c.must(true, s)

	t.Run("the ports of the node's own addresses", func(t *testing.T) {
		l.finds("local-ports", "", isOK, "no ports of the node's own addresses are ours") // none of its addresses is
		for _, local := range []string{"10.2.0.1", "fd02::1"} {
			s.Steering.Local = []string{local}
			c.must(true, s)
			l.finds("local-ports", "", isFault, "ports 40000-40010 are ours")
			l.finds("local-ports", "", isFault, "ports 45000 are ours")
		}
		Run(t, l.node, "sysctl", "-qw", "net.ipv4.ip_local_reserved_ports=40000-40010,45000")
		l.finds("local-ports", "", isOK, "gives none of our ports")
	})
	t.Run("the program on a device", func(t *testing.T) {
		for _, device := range []string{"up0", "vc"} {
			l.finds("xdp-program", device, isOK, "our XDP program margay_")
			detach(t, l.link(device).XDP.Program)
			l.finds("xdp-program", device, isFault, "was taken off")
			l.impostor(device)
			l.finds("xdp-program", device, isFault, "somebody else")
		}
	})
}
