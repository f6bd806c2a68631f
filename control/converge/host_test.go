package converge

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	fields "margay.dev/margay/api/v3/felix"
	"margay.dev/margay/control/hosts"
	"margay.dev/margay/dataplane/nft"
	"margay.dev/margay/datastore"
	"margay.dev/margay/forwarder/desired"
)

const hostObjects = `
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: all, labels: {host: "yes"}}
spec: {node: n0, interfaceName: "*"}
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: eth, labels: {host: "yes"}}
spec: {node: n0, expectedIPs: ["fd16::1"]}
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: other}
spec: {node: n0, expectedIPs: [203.0.113.1]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: forwarded}
spec: {selector: has(host), applyOnForward: true, ingress: [{action: Deny, source: {nets: [10.1.0.3/32]}}]}
`

func hostKey(name string) datastore.Key { return datastore.Key{Kind: "HostEndpoint", Name: name} }

func TestHostEndpointsJudgeWhatIsForwardedAndWhatIsTheNodesOwn(t *testing.T) {
	s := up(t)
	if c, n := s.kernel.last(); n != 1 || !c.Whole || len(c.Desired.Endpoints) != 0 {
		t.Errorf("without host endpoints the kernel is told %+v, %d times", c, n)
	}
	s.tell(now(t, hostObjects)...)
	s.f.look(func(st *desired.State) {
		e := st.Endpoints["host/eth/up"]
		if e == nil || !e.Host || e.Policy != desired.PolicyEnforced || len(e.Ingress) == 0 || len(st.Endpoints) != 2 {
			t.Errorf("the forwarder has %+v among %d endpoints", e, len(st.Endpoints))
		}
	})
	c, told := s.kernel.last()
	if !c.Whole || len(c.Desired.Endpoints) != 2 || c.Desired.Endpoints[0].Name != "all" || c.Desired.Endpoints[1].Name != "eth" || c.Desired.Endpoints[1].Interface != "eth0" {
		t.Fatalf("the kernel is told %+v", c.Desired)
	}
	if w := strings.Join(c.Desired.Settings.Workloads, " "); w != "cali* margay0" {
		t.Errorf("workloads' interfaces are %q", w)
	}
	if r := s.report(hostKey("eth")); !r.Ours || r.Here != "" {
		t.Errorf("what is reported of eth is %+v", r)
	}
	if r := s.report(hostKey("other")); !strings.Contains(r.Here, "no interface of its node") {
		t.Errorf("what is reported of other is %+v", r)
	}
	s.tell(now(t, strings.Replace(cluster, "[80]", "[81]", 1))...)
	if _, n := s.kernel.last(); n != told {
		t.Error("a change of workloads' policy is told to the kernel")
	}
	s.tell(gone("HostEndpoint", "", "eth"))
	s.f.look(func(st *desired.State) {
		if st.Endpoints["host/eth/up"] != nil || st.Endpoints["host/all/up"] == nil {
			t.Errorf("eth is gone, and there are endpoints %v", st.Endpoints)
		}
	})
	s.tell(gone("HostEndpoint", "", "all"), gone("HostEndpoint", "", "other"))
	if c, _ := s.kernel.last(); c.Desired == nil || len(c.Desired.Endpoints) != 0 {
		t.Errorf("none are left, and the kernel is told %+v", c)
	}
	s.f.look(func(st *desired.State) {
		if len(st.Endpoints) != 1 {
			t.Errorf("none are left, and there are endpoints %v", st.Endpoints)
		}
	})
}

func TestAKernelThatRefusesIsToldAllAgain(t *testing.T) {
	s := up(t)
	refuse := func(err error) {
		s.kernel.mu.Lock()
		defer s.kernel.mu.Unlock()
		s.kernel.refuse = err
	}
	says := func(want ...string) {
		t.Helper()
		r := s.report(hostKey("eth"))
		for _, w := range want {
			if !strings.Contains(r.Here, w) {
				t.Errorf("reported of eth is %+v, want %q", r, w)
			}
		}
		if len(want) == 0 && r.Here != "" {
			t.Errorf("reported of eth is %+v", r)
		}
	}
	refuse(errors.New("no room"))
	s.tell(now(t, hostObjects)...)
	says("no room", "judged by nobody")
	refuse(nil)
	s.tell(now(t, strings.Replace(cluster, "[80]", "[81]", 1))...) // any change, before its time
	if c, _ := s.kernel.last(); !c.Whole || len(c.Desired.Endpoints) != 2 {
		t.Errorf("the kernel is told %+v", c)
	}
	says()
	refuse(errors.New("no room"))
	s.tell(now(t, strings.Replace(hostObjects, "10.1.0.3/32", "10.1.0.4/32", 1))...)
	says("no room", "judged as before")
}

func TestHostSettings(t *testing.T) {
	builtIn := hosts.DefaultSettings()
	builtIn.LogPrefix = "calico-packet"
	if got := hostSettings(fields.Settings{}, nil); !reflect.DeepEqual(got, builtIn) {
		t.Errorf("where nothing is said they are %+v, want %+v", got, builtIn)
	}
	yes := true
	var set fields.Settings
	set.FailsafeInboundHostPorts = []fields.ProtoPort{{Port: 22}, {Protocol: "UDP", Port: 53, Net: "10.0.0.0/8"}, {Protocol: "sctp", Port: 1, Net: "fd00::/8"}, {Port: 2, Net: "10.0.0.1"}, {Port: 3, Net: "fd00::1"}, {Port: 4, Net: "nowhere"}}
	set.FailsafeOutboundHostPorts = []fields.ProtoPort{}
	set.DisableConntrackInvalidCheck, set.IptablesFilterDenyAction = &yes, "REJECT"
	one, two, burst := uint32(1), uint32(0x30), 7
	set.NftablesMarkMask, set.IptablesMarkMask, set.InterfacePrefix = &one, &two, "tap,cali"
	set.LogPrefix, set.LogActionRateLimit, set.LogActionRateLimitBurst = "%n", "10/minute", &burst
	got := hostSettings(set, []string{"cali*"})
	want := nft.Settings{KeepInvalid: true, Reject: true, Workloads: []string{"cali*", "tap*"}, LogPrefix: "%n", LogRate: 10, LogPer: time.Minute, LogBurst: 7}
	want.Failsafe[nft.Ingress] = []nft.Failsafe{{Protocol: 6, Port: 22}, {Protocol: 17, Port: 53, Net: prefixes("10.0.0.0/8")[0]}, {Protocol: 132, Port: 1, Net: prefixes("fd00::/8")[0]}, {Protocol: 6, Port: 2, Net: prefixes("10.0.0.1/32")[0]}, {Protocol: 6, Port: 3, Net: prefixes("fd00::1/128")[0]}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("they are\n%+v, want\n%+v", got, want)
	}
	set.NftablesMarkMask, set.LogActionRateLimitBurst = nil, nil
	if got = hostSettings(set, nil); got.Mark != two || got.LogBurst != 5 {
		t.Errorf("the mark is %#x, and %d lines may come at once", got.Mark, got.LogBurst)
	}
}

func TestInterfacesThatNoEndpointExpects(t *testing.T) {
	for name, want := range map[string]bool{"kube-ipvs0": false, "a.c": true, "abc": false, "veth12": true, "xveth1": false, "": false} {
		if got := excluded("a.c,/^veth[0-9]+$/")(hosts.Interface{Name: name}); got != want {
			t.Errorf("%q is left out: %v, want %v", name, got, want)
		}
	}
	s := up(t)
	s.core.SetLocal(here(), []hosts.Interface{{Name: "kube-ipvs0", Addresses: addrs("203.0.113.1")}, {Name: "eth0", Addresses: addrs("fd16::1")}})
	s.tell(now(t, hostObjects)...)
	if c, _ := s.kernel.last(); len(c.Desired.Endpoints) != 2 {
		t.Errorf("the kernel is told %+v", c.Desired.Endpoints)
	}
}

// TestTheStoreIsReachedWhateverIsShut closes all failsafe ports: those by which the
// agent reaches its store stay open, and only they.
func TestTheStoreIsReachedWhateverIsShut(t *testing.T) {
	door := func(port uint16, net string) nft.Failsafe {
		return nft.Failsafe{Protocol: 6, Port: port, Net: prefixes(net)[0]}
	}
	far, far6, own, own6 := door(12379, "172.16.0.9/32"), door(12379, "fd16::9/128"), door(1, "127.0.0.1/32"), door(2, "fd16::1/128")
	named := nft.Failsafe{Protocol: 6, Port: 3}
	s := newScene(t)
	s.kill()
	s.begin(far, far6, own, own6, named)
	s.tell(append(append([]datastore.Event{begins}, now(t, hostObjects+`---
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: default}
spec: {failsafeInboundHostPorts: [], failsafeOutboundHostPorts: []}
`)...), synced)...)
	c, _ := s.kernel.last()
	if got := c.Desired.Settings.Failsafe[nft.Egress]; !slices.Equal(got, []nft.Failsafe{far, far6, own, own6, named}) {
		t.Errorf("the host may always reach %v", got)
	}
	if got := c.Desired.Settings.Failsafe[nft.Ingress]; !slices.Equal(got, []nft.Failsafe{own, own6}) {
		t.Errorf("the host is always reached by %v", got)
	}
}
