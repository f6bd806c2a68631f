package survivaltest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	v1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/internal/hostnet"
)

// without waits until a node's forwarder says that an object is not in force.
func (w *world) without(node, object string) {
	w.t.Helper()
	w.eventually(object+" of "+node+" is told to be out of force", func() bool {
		for _, c := range w.status(node).GetConditions() {
			if c.GetObject() == object {
				return true
			}
		}
		return false
	})
}

// renew deletes a pod's namespace under whatever runs in it, and makes an empty
// one of that name. The lab is let go of, as it keeps namespaces open: from here
// on no client is connected.
func (w *world) renew(pod, port string) {
	w.t.Helper()
	name := w.Topology().NamespaceName(pod)
	if err := hostnet.DeleteNamespace(name); err != nil {
		w.t.Fatal(err)
	}
	w.Close()
	w.without(w.Topology().Pod(pod).Node, port)
	ns, err := hostnet.CreateNamespace(name)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := ns.Close(); err != nil {
		w.t.Error(err)
	}
	w.run(pod, "ip", "link", "set", "lo", "up")
	w.run(pod, "sysctl", "-q", "-w", "net.ipv4.ping_group_range=0 2147483647")
}

func TestPodsAreDeletedUnderTraffic(t *testing.T) {
	w := raise(t, 2, nil)
	w.everybody()
	bystander := []*conversation{w.tcp("ann", "dave", false), w.udp("dave", "ann", true)}
	doomed := []*conversation{
		w.tcp("ann", "cleo", false), w.tcp("cleo", "dave", true), w.udp("ann", "cleo", true), w.udp("cleo", "ann", false),
		w.tcp("amy", "ann", false), w.udp("dave", "amy", true), w.udp("amy", "cleo", false),
	}
	for _, c := range append(doomed, bystander...) {
		c.goesOn(w)
	}

	w.renew("cleo", "port/pod-cleo") // the forwarder makes its device there
	for _, c := range bystander {
		c.goesOn(w)
	}
	for _, c := range doomed { // sockets keep a namespace alive, and cleo's had until now what was in theirs
		c.end()
		c.unbent(t)
	}
	mac := w.link("amy").Address
	w.renew("amy", "port/pod-amy") // others make the device there
	for _, c := range bystander {
		c.goesOn(w)
	}
	w.veth("amy", "p-amy", "north", mac)
	w.inForce("north")
	w.inForce("south")
	w.everybody()
	for _, c := range bystander {
		c.goesOn(w)
		c.end()
		c.unbent(t)
	}
	w.balanced()
}

// veth makes an AF_XDP pod's pair of devices as whoever made the pod does, with
// the MAC address that the forwarder was told: from any other it takes nothing.
func (w *world) veth(pod, device, node, mac string) {
	w.t.Helper()
	w.run(node, "ip", "link", "add", device, "numrxqueues", "2", "numtxqueues", "2", "type", "veth",
		"peer", "name", "eth0", "address", mac, "numrxqueues", "2", "numtxqueues", "2", "netns", w.Topology().NamespaceName(pod))
	w.run(node, "sysctl", "-q", "-w", "net.ipv6.conf."+device+".disable_ipv6=1")
	w.run(node, "ethtool", "-K", device, "tx", "off")
	w.run(pod, "ethtool", "-K", "eth0", "tx", "off")
	w.run(pod, "ip", "addr", "add", w.addr(pod, false).String()+"/32", "dev", "eth0")
	w.run(pod, "ip", "addr", "add", w.addr(pod, true).String()+"/128", "dev", "eth0", "nodad")
	w.run(pod, "ip", "link", "set", "eth0", "up")
	w.run(node, "ip", "link", "set", device, "up")
	w.run(pod, "ip", "route", "add", "default", "via", "169.254.1.1", "dev", "eth0", "onlink")
	w.run(pod, "ip", "route", "add", "default", "via", "fe80::1", "dev", "eth0", "onlink")
}

// cable makes the uplink anew, as a NIC that was unplugged comes back.
func (w *world) cable() {
	w.t.Helper()
	w.run("north", "ip", "link", "add", uplink, "numrxqueues", "2", "numtxqueues", "2", "type", "veth",
		"peer", "name", uplink, "numrxqueues", "2", "numtxqueues", "2", "netns", w.Topology().NamespaceName("south"))
	for _, e := range w.Topology().Link("uplink").Ends {
		w.run(e.Node, "ethtool", "-K", uplink, "tx", "off")
		for _, a := range e.Addresses {
			w.run(e.Node, "ip", "addr", "add", a.String(), "dev", uplink, "nodad")
		}
		w.run(e.Node, "ip", "link", "set", uplink, "up")
	}
}

// talks are the conversations that a failing device is to concern, or not.
type talks []*conversation

func (list talks) goOn(w *world) {
	w.t.Helper()
	for _, c := range list {
		c.goesOn(w)
	}
}

// scene is traffic over the uplink, within north, and to cleo.
type scene struct{ across, local, toPod talks }

func (s *scene) all() talks { return slices.Concat(s.across, s.local, s.toPod) }

func TestDevicesFailUnderTraffic(t *testing.T) {
	w := raise(t, 2, nil)
	w.everybody()
	s := &scene{
		across: talks{w.tcp("ann", "cleo", false), w.tcp("dave", "ann", true), w.udp("cleo", "amy", false), w.udp("ann", "dave", true)},
		local:  talks{w.tcp("amy", "ann", true), w.udp("ann", "amy", false)},
		toPod:  talks{w.tcp("ann", "cleo", true), w.udp("dave", "cleo", false)},
	}
	s.all().goOn(w)
	t.Run("the uplink is deleted and returns", func(t *testing.T) { s.uplinkReturns(&world{w.Lab, t}) })
	t.Run("the uplink goes down and up", func(t *testing.T) { s.uplinkFlaps(&world{w.Lab, t}) })
	t.Run("the uplink's MTU shrinks and grows", func(t *testing.T) { s.uplinkShrinks(&world{w.Lab, t}) })
	t.Run("a pod's TUN device is deleted, goes down and up, and changes its MTU", func(t *testing.T) { s.podDevice(&world{w.Lab, t}) })
	for _, c := range s.all() {
		c.end()
		c.unbent(t)
	}
	w.everybody()
	w.balanced()
}

func (s *scene) uplinkReturns(w *world) {
	w.run("north", "ip", "link", "del", uplink)
	w.without("north", "port/link-uplink")
	w.without("south", "port/link-uplink")
	if got := w.port("north", "link-uplink").GetState(); got != "missing" {
		w.t.Errorf("the port is %s, want missing", got)
	}
	s.local.goOn(w)
	w.cable()
	s.all().goOn(w)
}

func (s *scene) uplinkFlaps(w *world) {
	for range 3 {
		w.run("south", "ip", "link", "set", uplink, "down")
		w.without("north", "port/link-uplink") // its carrier is gone
		w.without("south", "port/link-uplink")
		s.local.goOn(w)
		w.run("south", "ip", "link", "set", uplink, "up")
		// Going down, a device loses its IPv6 addresses.
		w.run("south", "ip", "addr", "replace", kernelSouth[1].String()+"/64", "dev", uplink, "nodad")
		s.all().goOn(w)
	}
}

func (s *scene) uplinkShrinks(w *world) {
	for _, mtu := range []string{"1300", "1500", "1400", "1500"} {
		for _, node := range []string{"north", "south"} {
			w.run(node, "ip", "link", "set", uplink, "mtu", mtu)
		}
		w.eventually("the ports follow", func() bool {
			return mtu == str(w.port("north", "link-uplink").GetMtu()) && mtu == str(w.port("south", "link-uplink").GetMtu())
		})
		s.all().goOn(w) // TCP hears of it by ICMP, and cuts smaller
	}
}

func (s *scene) podDevice(w *world) {
	w.run("cleo", "ip", "link", "del", "eth0")
	s.all().goOn(w) // it is made again at once, with its addresses: even its connections live
	w.run("cleo", "ip", "link", "set", "eth0", "down")
	w.without("south", "port/pod-cleo")
	s.local.goOn(w)
	w.run("cleo", "ip", "link", "set", "eth0", "up")
	w.inForce("south")
	w.renewRoutes("cleo")
	s.toPod.goOn(w)
	w.run("cleo", "ip", "link", "set", "eth0", "mtu", "1300")
	w.eventually("the port follows", func() bool { return w.port("south", "pod-cleo").GetMtu() == 1300 })
	s.toPod.goOn(w)
	w.run("cleo", "ip", "link", "set", "eth0", "mtu", "1500")
}

// renewRoutes wants the forwarder to bring back what a device loses with its
// being down.
func (w *world) renewRoutes(pod string) {
	w.t.Helper()
	w.eventually(pod+" has its addresses and routes again", func() bool {
		addrs, r4, r6 := w.run(pod, "ip", "-br", "addr"), w.run(pod, "ip", "route"), w.run(pod, "ip", "-6", "route")
		return strings.Contains(addrs, w.addr(pod, true).String()) && strings.Contains(r4, "default") && strings.Contains(r6, "default")
	})
}

// quicken has the kernels doubt their neighbours after a second and not after
// half a minute: what is tested is that forwarders follow.
func (w *world) quicken() {
	w.t.Helper()
	for _, node := range []string{"north", "south"} {
		for _, family := range []string{"ipv4", "ipv6"} {
			for _, kv := range []string{"base_reachable_time_ms=1000", "delay_first_probe_time=1", "retrans_time_ms=100"} {
				w.run(node, "sysctl", "-q", "-w", "net."+family+".neigh."+uplink+"."+kv)
			}
		}
		w.run(node, "ip", "neigh", "flush", "dev", uplink) // entries of before keep their timers
	}
}

func TestGatewaysMACChangesWithoutAClient(t *testing.T) {
	w := raise(t, 2, nil)
	w.everybody()
	list := talks{w.tcp("ann", "cleo", false), w.udp("dave", "ann", true), w.udp("amy", "cleo", false)}
	for _, node := range []string{"north", "south"} {
		w.Disconnect(node)
	}
	w.quicken()
	list.goOn(w)
	for i, node := range []string{"south", "north"} {
		mac := "02:00:00:00:98:0" + str(uint32(i+1))
		w.run(node, "ip", "link", "set", uplink, "address", mac) // and nobody is told
		peer := map[string]string{"north": "south", "south": "north"}[node]
		w.eventually(peer+"'s forwarder sends to the new address", func() bool { return w.sendsTo(peer, mac) == 2 })
		list.goOn(w)
		if w.status(peer).GetClientConnected() {
			t.Error("a client was connected: it may have helped")
		}
	}
	for _, c := range list {
		c.end()
		c.unbent(t)
	}
	w.everybody()
	w.balanced()
}

// sendsTo counts the neighbours, one of each family, that a node's forwarder
// knows by an Ethernet address.
func (w *world) sendsTo(node, mac string) (n int) {
	w.t.Helper()
	list, err := w.inspect(node).ListNeighbors(w.t.Context(), &v1.ListNeighborsRequest{})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, x := range list.GetNeighbors() {
		if x.GetMac() == mac {
			n++
		}
	}
	return n
}

func str(n uint32) string { return fmt.Sprint(n) }
