package agent

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/yaml"

	agentv1 "margay.dev/margay/api/agent/v1"
	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/datastore"
	"margay.dev/margay/datastore/connect"
	"margay.dev/margay/datastore/file"
	"margay.dev/margay/internal/built"
	"margay.dev/margay/internal/hostnet"
	"margay.dev/margay/internal/hostnet/hostnettest"
)

// withoutNetfilter is a variable that has this program become another one, for which
// the kernel has no netfilter: asked for it, it answers with the errno of this number.
const withoutNetfilter = "MARGAY_TEST_WITHOUT_NETFILTER"

func TestMain(m *testing.M) {
	if errno := os.Getenv(withoutNetfilter); errno != "" {
		fmt.Fprintln(os.Stderr, becomeWithoutNetfilter(errno, os.Args[1:]))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// process is a margay-agent in a namespace, as its configuration file says.
type process struct {
	*exec.Cmd
	t     *testing.T
	mu    sync.Mutex
	log   bytes.Buffer
	ended chan struct{}
}

// Write takes what it logs.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(b)
}

func (p *process) says(text string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Contains(p.log.String(), text)
}

// alive fails where it has ended by itself.
func (p *process) alive() {
	p.t.Helper()
	select {
	case <-p.ended:
		p.t.Fatalf("the agent has ended: %v\n%s", p.ProcessState, p.log.String())
	default:
	}
}

// start has an agent begin; the variables are beside those of the test. It ends with
// the test, or by end.
func (h *house) start(ns *hostnet.Namespace, variables ...string) *process {
	h.t.Helper()
	program, err := built.Program("margay-agent")
	if err != nil {
		h.t.Fatal(err)
	}
	path := filepath.Join(h.t.TempDir(), "agent.yaml")
	b, err := yaml.Marshal(h.cfg)
	if err == nil {
		err = os.WriteFile(path, b, 0o600)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	p := &process{Cmd: exec.Command(program, "run", "--config", path), t: h.t, ended: make(chan struct{})}
	if len(variables) > 0 && strings.HasPrefix(variables[0], withoutNetfilter) {
		p.Cmd = exec.Command(os.Args[0], p.Args...)
	}
	p.Env = append(os.Environ(), variables...)
	p.Stdout, p.Stderr = p, p
	p.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := ns.Do(p.Start); err != nil {
		h.t.Fatal(err)
	}
	go func() { _ = p.Wait(); close(p.ended) }()
	h.t.Cleanup(func() {
		if h.t.Failed() {
			h.t.Logf("the agent says\n%s", p.log.String())
		}
		p.end()
	})
	return p
}

// end ends it as systemd does.
func (p *process) end() {
	_ = p.Process.Signal(unix.SIGTERM) // it may have ended
	<-p.ended
}

// machineIn is a namespace with interfaces whose names Calico leaves out, and two that
// it does not.
func machineIn(t *testing.T) *hostnet.Namespace {
	ns := hostnettest.Namespace(t)
	for _, line := range []string{
		"link set lo up", "link add docker0 type veth peer name veth9", "link add eth0 type veth peer name veth0",
		"link add eth1 type veth peer name veth1", "link add eth2 type veth peer name veth2",
		"link set veth9 up", "link set veth0 up", "link set veth1 up", "link set docker0 up", "link set eth0 up", "link set eth1 up",
		"address add 172.17.0.1/16 dev docker0", "address add fd17::1/64 dev docker0 nodad",
		"address add 10.0.0.5/24 dev eth0", "address add fd00::5/64 dev eth0 nodad",
		"address add 192.168.7.5/23 dev eth1", "address add fd07::5/64 dev eth1 nodad", "address add 10.99.0.1/24 dev eth2",
		"route add 203.0.113.0/24 dev eth1", "route add 2001:db8::/32 dev eth1",
	} {
		hostnettest.Run(t, ns, append([]string{"ip"}, strings.Fields(line)...)...)
	}
	return ns
}

func fileHouse(t *testing.T) *house {
	cfg := file.Config{Dir: t.TempDir()}
	h := newHouse(t, connect.Config{Folder: &cfg}, func() (datastore.Store, error) { return file.Open(cfg) })
	h.cfg.Address.IPv4, h.cfg.Address.IPv6, h.cfg.HostPort.Addresses = "autodetect", "autodetect", nil
	return h
}

// addresses are what the node is registered by; nothing where it is not.
func (h *house) addresses() string {
	o, err := h.store.Get(h.t.Context(), datastore.Key{Kind: v3.KindNode, Name: "n0"})
	if n, ok := o.(*v3.Node); err == nil && ok && n.Spec.BGP != nil {
		return n.Spec.BGP.IPv4Address + " " + n.Spec.BGP.IPv6Address
	}
	return ""
}

const internalNode = `
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: n0}
spec: {addresses: [{address: 192.168.7.5, type: InternalIP}, {address: "fd00::77", type: InternalIP}]}
`

// A real agent finds the node's addresses among real interfaces, by each method.
func TestAnAgentFindsItsAddresses(t *testing.T) {
	hostnettest.OfProcesses(t)
	ns := machineIn(t)
	for name, tt := range map[string]struct {
		method, six string // six: of IPv6, if it is another
		node        string // that is there before
		want        string // or !what the log says
	}{
		"first-found":                    {method: "first-found", want: "10.0.0.5/24 fd00::5/64"},
		"can-reach":                      {method: "can-reach=203.0.113.7", six: "can-reach=2001:db8::7", want: "192.168.7.5/23 fd07::5/64"},
		"can-reach of nobody":            {method: "can-reach=198.51.100.1", want: "!198.51.100.1"},
		"interface":                      {method: "interface=wlan.*,eth1", want: "192.168.7.5/23 fd07::5/64"},
		"interface that is down":         {method: "interface=eth2", want: "!no interface"},
		"interface that is left out":     {method: "interface=docker0", want: "172.17.0.1/16 fd17::1/64"},
		"skip-interface":                 {method: "skip-interface=eth0", want: "192.168.7.5/23 fd07::5/64"},
		"cidr":                           {method: "cidr=192.168.0.0/16,fd07::/16", want: "192.168.7.5/23 fd07::5/64"},
		"cidr of nobody":                 {method: "cidr=198.51.100.0/24", want: "!no interface"},
		"kubernetes-internal-ip":         {method: "kubernetes-internal-ip", node: internalNode, want: "192.168.7.5/23 fd00::77/128"},
		"kubernetes-internal-ip of none": {method: "kubernetes-internal-ip", want: "!InternalIP"},
	} {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && name != "can-reach" && name != "cidr of nobody" {
				t.Skip("two of them are enough in a short run")
			}
			h := fileHouse(t)
			h.cfg.Address.IPv4Method, h.cfg.Address.IPv6Method = tt.method, tt.method
			if tt.six != "" {
				h.cfg.Address.IPv6Method = tt.six
			}
			if tt.node != "" {
				h.apply(tt.node)
			}
			p := h.start(ns)
			if says, refused := strings.CutPrefix(tt.want, "!"); refused {
				eventually(t, "it says "+says, func() bool { p.alive(); return p.says("the node is not registered") && p.says(says) })
				if got := h.addresses(); got != "" {
					t.Errorf("and yet the node is registered by %s", got)
				}
				return
			}
			eventually(t, "the node is registered by "+tt.want, func() bool { p.alive(); return h.addresses() == tt.want })
		})
	}
}

// The node follows its interfaces while the agent runs.
func TestAnAgentFollowsItsAddresses(t *testing.T) {
	hostnettest.OfProcesses(t)
	ns := machineIn(t)
	h := fileHouse(t)
	p := h.start(ns)
	eventually(t, "the node is registered", func() bool { p.alive(); return h.addresses() == "10.0.0.5/24 fd00::5/64" })
	hostnettest.Run(t, ns, "ip", "address", "add", "10.0.0.6/25", "dev", "eth0")
	hostnettest.Run(t, ns, "ip", "address", "del", "10.0.0.5/24", "dev", "eth0")
	hostnettest.Run(t, ns, "ip", "link", "set", "eth2", "up")
	hostnettest.Run(t, ns, "ip", "address", "del", "fd00::5/64", "dev", "eth0")
	eventually(t, "it has the new addresses", func() bool { p.alive(); return h.addresses() == "10.0.0.6/25 fd07::5/64" })
}

const protectedHost = objects + `---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: n0-eth0, labels: {host: "yes"}}
spec: {node: n0, interfaceName: eth0}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: closed}
spec: {selector: has(host), types: [Ingress], ingress: [{action: Log, protocol: ICMP}, {action: Allow, protocol: TCP, destination: {ports: [80]}}]}
`

// told waits for what the host endpoint's condition says.
func (h *house) told(p *process, status, says string) {
	h.t.Helper()
	eventually(h.t, "the host endpoint is "+status+" and says "+says, func() bool {
		p.alive()
		o, err := h.store.Get(h.t.Context(), datastore.Key{Kind: v3.KindHostEndpoint, Name: "n0-eth0"})
		if err != nil {
			return false
		}
		c := meta.FindStatusCondition(*o.Conditions(), InForce)
		return c != nil && string(c.Status) == status && strings.Contains(c.Message, says)
	})
}

// A kernel without nftables leaves the host's own traffic alone, which is said; the
// agent goes on, and so does workloads' policy.
func TestAnAgentWithoutNftables(t *testing.T) {
	hostnettest.OfProcesses(t)
	ns := machineIn(t)
	for errno, says := range map[syscall.Errno]string{
		unix.EPROTONOSUPPORT: "the kernel has no nftables: load the module nf_tables",
		unix.EAFNOSUPPORT:    "the kernel has no nftables",
		unix.EPERM:           "CAP_NET_ADMIN",
	} {
		t.Run(unix.ErrnoName(errno), func(t *testing.T) {
			h := fileHouse(t)
			h.apply(protectedHost)
			p := h.start(ns, fmt.Sprintf("%s=%d", withoutNetfilter, int(errno)))
			h.told(p, "False", says)
			h.told(p, "False", "processes of the host")
			if !p.says("level=ERROR") || !p.says("judges this host") {
				t.Error("the log does not say so")
			}
			h.attachAnn()
			eventually(t, "the workload's policy is in force", func() bool {
				p.alive()
				e := h.f.endpoint("shop/ann")
				return e != nil && len(e.Ingress) == 1
			})
		})
	}
}

// attachAnn attaches a workload.
func (h *house) attachAnn() {
	h.t.Helper()
	conn, err := grpc.NewClient("unix://"+h.cfg.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		h.t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(h.t.Context(), 20*time.Second)
	defer cancel()
	at := &agentv1.Attachment{Workload: &agentv1.Workload{Namespace: "shop", Name: "ann"}, Kind: agentv1.Attachment_KIND_TUN, Netns: "/run/netns/ann"}
	if _, err := agentv1.NewWorkloadsClient(conn).Attach(ctx, &agentv1.AttachRequest{Attachment: at}); err != nil {
		h.t.Fatal(err)
	}
}

// The kernel's rules bear the names of policies, by which they are counted, and the
// settings are those of the environment.
func TestAnAgentWritesNftables(t *testing.T) {
	hostnettest.OfProcesses(t)
	ns := machineIn(t)
	h := fileHouse(t)
	h.cfg.Metrics = "127.0.0.1:9091"
	h.apply(protectedHost)
	p := h.start(ns, "FELIX_LOGPREFIX=%n of %t", "FELIX_LOGACTIONRATELIMIT=7/hour", "FELIX_FAILSAFEINBOUNDHOSTPORTS=tcp:[fd00::/8]:2222", "FELIX_FAILSAFEOUTBOUNDHOSTPORTS=tcp:none:x")
	h.told(p, "True", "acknowledged")
	text := hostnettest.Run(t, ns, "nft", "list", "table", "inet", "margay")
	for _, want := range []string{`comment "GlobalNetworkPolicy closed"`, `limit rate 7/hour log prefix "closed of default: "`, "tcp dport 2222", "2379"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	page := h.metrics(ns)
	for _, want := range []string{"felix_nft_errors 0", `margay_agent_host_rule_packets_total{action="log",direction="ingress",policy="GlobalNetworkPolicy closed",rule="0",tier="default"} 0`} {
		if !strings.Contains(page, "\n"+want+"\n") {
			t.Errorf("no %q in\n%s", want, page)
		}
	}
	if !p.says("FELIX_FAILSAFEOUTBOUNDHOSTPORTS") || !p.says("built-in value") {
		t.Error("a variable that cannot be used is not told")
	}
}

// metrics is the agent's page of them, as one sees it in its namespace.
func (h *house) metrics(ns *hostnet.Namespace) string {
	h.t.Helper()
	var page []byte
	err := ns.Do(func() error {
		c, err := net.Dial("tcp", h.cfg.Metrics)
		if err != nil {
			return err
		}
		defer c.Close()
		if _, err = c.Write([]byte("GET /metrics HTTP/1.0\r\n\r\n")); err == nil {
			page, err = io.ReadAll(c)
		}
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return string(page)
}
