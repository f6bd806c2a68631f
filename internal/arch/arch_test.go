package arch

import (
	"slices"
	"strings"
	"testing"
)

// TestTheHouseKeepsItsRules runs every check over the module that this package
// belongs to.
func TestTheHouseKeepsItsRules(t *testing.T) {
	tree, err := Load(".")
	if tree == nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Errorf("checking the rest, but not every package builds: %v", err)
	}
	if !slices.ContainsFunc(tree.Packages, func(p *Package) bool { return p.Rel == "internal/version" }) {
		t.Fatalf("%d packages loaded, internal/version not among them", len(tree.Packages))
	}
	escapes, err := tree.Escapes()
	if err != nil {
		t.Fatal(err)
	}
	for name, found := range map[string][]Finding{
		"imports follow the table":          tree.Imports(Rules()),
		"unsafe stays in its homes":         tree.Unsafe(unsafeHomes),
		"nothing outgrows its limit":        tree.Sizes(House()),
		"packages are named by subject":     tree.Names(),
		"every exported name has a comment": tree.Docs(),
		"package variables do not change":   tree.Vars(),
		"no work is done on import":         tree.Inits(),
		"every marker marks a function":     tree.Markers(),
		"hot functions do nothing slow":     tree.Hot(),
		"hot functions allocate nothing":    escapes,
	} {
		t.Run(name, func(t *testing.T) {
			for _, f := range found {
				t.Error(f)
			}
		})
	}
	t.Logf("%d packages, %d hot functions", len(tree.Packages), len(tree.hot()))
}

// TestEveryRuleCanFail breaks each row of the import table once, and looks at
// an import beside it that is fine.
func TestEveryRuleCanFail(t *testing.T) {
	tests := map[string]struct{ from, bad, good string }{
		"the packet path knows nothing of control":                             {"fastpath/node", "./config", "./internal/pkt"},
		"the packet path does not log":                                         {"classifier/oracle", "log/slog", "math/bits"},
		"the forwarder carries no control plane":                               {"cmd/margay-forwarder", "./routing/rib", "./config"},
		"tests alone build programs":                                           {"internal/lab", "./internal/built", "./internal/hostnet"},
		"programs are leaves":                                                  {"internal/lab", "./cmd/margay-lab", "./internal/hostnet"},
		"calculation does not know its callers":                                {"policy", "./control", "./api/v3"},
		"tables know no nodes":                                                 {"fastpath/fib", "./fastpath/node", "./internal/mem"},
		"the engine knows no node":                                             {"fastpath/graph", "./fastpath/node/arp", "./internal/pkt"},
		"plain packets are accepted without tables":                            {"fastpath/plain", "./fastpath/fib", "./fastpath/graph"},
		"rings know no engine":                                                 {"fastpath/xsk/umem", "./fastpath/port", "./internal/mem"},
		"a hand-over knows nothing of what is handed over":                     {"forwarder/handover", "./forwarder/plane", "./internal/mem"},
		"nobody below asks for explanations":                                   {"forwarder/plane", "./forwarder/explain", "./forwarder/policing"},
		"explanations have no effect":                                          {"forwarder/explain", "./fastpath/port", "./fastpath/node"},
		"a judge of policies knows none of them":                               {"internal/lab/probe", "./classifier/oracle", "./internal/lab/load"},
		"headers and memory stand alone":                                       {"internal/pkt", "./fastpath/graph", "encoding/binary"},
		"conversion knows resources alone":                                     {"policy/kubernetes", "./policy/index", "./api/v3"},
		"selectors and names of hosts stand alone":                             {"api/selector", "./internal/pkt", "crypto/sha256"},
		"the oracle of policy shares nothing with what it judges":              {"policy/oracle", "./policy", "./api/selector"},
		"the index knows labels, not resources":                                {"policy/index", "./api/v3", "./api/selector"},
		"what a node is sent is calculated without the machine":                {"control/converge", "./internal/hostnet", "./control/guard"},
		"settings and limits stand below resources":                            {"api/v3/felix", "./api/v3", "./api/selector"},
		"a change is undone by the store alone":                                {"control/pending", "./datastore/etcd", "./datastore"},
		"a store is believed for what it says, not for what it is":             {"control/cluster", "./datastore/etcd", "./datastore"},
		"objects are worked on without a forwarder":                            {"cmd/margayctl/resources", "./api/dataplane/v1", "./datastore/connect"},
		"a difference is calculated, not asked":                                {"cmd/margayctl/preview", "./datastore", "./policy/oracle"},
		"verdicts are shown from answers alone":                                {"cmd/margayctl/verdicts", "./fastpath/flow", "./internal/render"},
		"the kernel's dataplane knows lists, not resources":                    {"dataplane/nft", "./policy", "./classifier"},
		"nftables lives in dataplane/nft":                                      {"control/hosts", "github.com/google/nftables/expr", "./dataplane/nft"},
		"netlink lives in internal/hostnet":                                    {"internal/lab", "github.com/vishvananda/netlink", "github.com/vishvananda/netns"},
		"eBPF lives in fastpath/xsk, internal/hostbpf and internal/lab/xdpgen": {"fastpath/port", "github.com/cilium/ebpf/link", "golang.org/x/sys/unix"},
		"GoBGP lives in routing/bgp":                                           {"routing/rib", "github.com/osrg/gobgp/v4/pkg/server", "net/netip"},
		"stores know objects, not what they are for":                           {"datastore/file", "./policy", "./api/v3"},
		"etcd's server lives in datastore/embedded":                            {"cmd/margay-agent/etcd", "go.etcd.io/etcd/server/v3/embed", "./datastore/embedded"},
		"etcd's client lives in datastore/etcd":                                {"datastore/embedded", "go.etcd.io/etcd/client/v3", "go.etcd.io/etcd/server/v3/embed"},
		"client-go lives in kube":                                              {"control", "k8s.io/client-go/tools/cache", "k8s.io/apimachinery/pkg/labels"},
	}
	for _, r := range Rules() {
		t.Run(r.Name, func(t *testing.T) {
			tt, ok := tests[r.Name]
			if !ok {
				t.Fatal("the rule has no example that breaks it")
			}
			delete(tests, r.Name)
			if !r.governs(tt.from) || !r.forbids("margay.dev/margay", full(tt.bad)) {
				t.Errorf("%s may import %s", tt.from, tt.bad)
			}
			if r.forbids("margay.dev/margay", full(tt.good)) {
				t.Errorf("%s must not import %s", tt.from, tt.good)
			}
			for _, free := range r.Except {
				if r.governs(free) {
					t.Errorf("%s is governed, though it is excepted", free)
				}
			}
		})
	}
	for name := range tests {
		t.Errorf("no rule is named %q any more", name)
	}
}

// full turns "./x" into an import path.
func full(path string) string {
	return strings.Replace(path, "./", "margay.dev/margay/", 1)
}

// Every home of unsafe stands for itself and not for its neighbours.
func TestUnsafeHomes(t *testing.T) {
	tests := map[string]bool{
		"fastpath/xsk/ring.go":           true,
		"fastpath/xsk/umem/umem.go":      true,
		"fastpath/port/tun.go":           false,
		"fastpath/port/tundev/tundev.go": true,
		"fastpath/port/memory.go":        false,
		"fastpath/port/deep/tun.go":      false,
		"internal/mem/view.go":           true,
		"internal/memory/view.go":        false,
		"internal/hostnet/ioctl.go":      true,
		"internal/hostnet/link.go":       false,
		"classifier/kernel_amd64.go":     true,
		"classifier/compile.go":          false,
		"crypto/transport/kernel_amd.go": true,
		"fastpath/node/route.go":         false,
	}
	for file, want := range tests {
		got := slices.ContainsFunc(unsafeHomes, func(h string) bool { return at(file, h) })
		if got != want {
			t.Errorf("%s is in a home of unsafe: %v, want %v", file, got, want)
		}
	}
}
