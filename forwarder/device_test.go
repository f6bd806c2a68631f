package forwarder_test

import (
	"os"
	"strings"
	"testing"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/internal/hostnet"
	. "margay.dev/margay/internal/hostnet/hostnettest"
)

func (c *client) await(object string, ok bool, reason string) {
	c.lab.t.Helper()
	Eventually(c.lab.t, "condition of "+object+" is told: "+reason, func() bool {
		x := c.condition(object)
		return x != nil && x.Ok == ok && x.Reason == reason
	})
}

func (l *lab) reaches(pod, to string) {
	l.t.Helper()
	Eventually(l.t, pod+" reaches "+to, func() bool { _, err := l.tryPing(l.pods[pod], to); return err == nil })
}

func TestDevicesComeAndGo(t *testing.T) {
	l := newLab(t)
	l.start()
	c := l.connect()
	c.must(true, l.snapshot())
	l.pings()

	t.Run("a veth is deleted and made again", func(t *testing.T) {
		Run(t, l.node, "ip", "link", "del", "vc")
		c.await("port/c", false, "device-missing")
		if p := l.port("c"); p.State != "missing" {
			t.Errorf("port is %s, want missing", p.State)
		}
		l.ping("a", "10.1.0.3") // the rest goes on
		l.cable()
		c.await("port/c", true, "")
		l.reaches("a", "10.1.0.4")
		l.reaches("c", "fd00::2")
	})
	t.Run("a TUN is deleted by its pod", func(t *testing.T) {
		Run(t, l.pods["a"], "ip", "link", "del", "eth0")
		l.reaches("a", "10.1.0.4")
		l.reaches("c", "fd00::2")
	})
	t.Run("a device goes down and up", func(t *testing.T) {
		Run(t, l.node, "ip", "link", "set", "vc", "down")
		c.await("port/c", false, "device-down")
		Run(t, l.node, "ip", "link", "set", "vc", "up")
		c.await("port/c", true, "")
		l.reaches("a", "10.1.0.4")
	})
	t.Run("an MTU changes", func(t *testing.T) {
		Run(t, l.node, "ip", "link", "set", "vc", "mtu", "1300")
		Eventually(t, "the port follows", func() bool { return l.port("c").Mtu == 1300 })
		out, err := TryRun(l.pods["a"], "ping", "-c", "2", "-i", "0.05", "-M", "do", "-s", "1372", "-W", "1", "10.1.0.4")
		if err == nil || !strings.Contains(out+err.Error(), "1300") {
			t.Errorf("a packet of 1400 bytes through an MTU of 1300 is answered by %v\n%s", err, out)
		}
		Run(t, l.node, "ip", "link", "set", "vc", "mtu", "1500")
		Eventually(t, "the port follows", func() bool { return l.port("c").Mtu == 1500 })
	})
	t.Run("a pod's namespace is deleted under traffic and made again", func(t *testing.T) { l.renamespace(c) })
	t.Run("somebody deletes what the host port needs", func(t *testing.T) {
		Run(t, l.node, "ip", "link", "del", "margay0")
		Eventually(t, "the node reaches a pod again", func() bool { _, err := l.tryPing(l.node, "10.1.0.2"); return err == nil })
		Eventually(t, "the node is reached again", func() bool { _, err := l.tryPing(l.pods["a"], "fd00::1"); return err == nil })
	})
	l.pings()
	l.balanced()
}

// renamespace deletes pod b's namespace under traffic, and makes it again.
func (l *lab) renamespace(c *client) {
	t := l.t
	t.Helper()
	name := Name(l.pods["b"])
	if err := hostnet.DeleteNamespace(name); err != nil {
		t.Fatal(err)
	}
	c.await("port/b", false, "device-missing")
	l.ping("a", "10.1.0.4")
	ns, err := hostnet.CreateNamespace(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	l.pods["b"] = ns
	c.await("port/b", true, "")
	l.reaches("b", "10.1.0.2")
	l.reaches("b", "fd00::4")
}

func TestPortsWhoseDevicesComeLater(t *testing.T) {
	l := newLab(t)
	Run(t, l.node, "ip", "link", "del", "vc")
	l.start()
	c := l.connect()
	s := l.snapshot()
	s.Ports[1].Netns = "/run/netns/margay-not-there"
	c.must(true, s)
	c.await("port/b", false, "device-missing")
	c.await("port/c", false, "device-missing")
	l.ping("a", "10.1.0.1")
	l.cable()
	l.reaches("a", "10.1.0.4")
	if err := os.WriteFile("/run/netns/margay-not-there", nil, 0); err == nil { // a name with nothing behind it
		defer os.Remove("/run/netns/margay-not-there")
		c.await("port/b", false, "device-failed")
	}
	path, err := hostnet.NamespacePath(Name(l.pods["b"]))
	if err != nil {
		t.Fatal(err)
	}
	s.Ports[1].Netns = path
	c.must(false, &pb.Chunk{Ports: s.Ports[1:2]})
	c.await("port/b", true, "")
	l.pings()
}
