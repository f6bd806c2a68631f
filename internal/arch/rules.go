package arch

import "slices"

// Rule is one row of the import table: packages below In, but not below Except,
// must not import what Forbid names.
type Rule struct {
	Name   string
	In     []string // folders below the module's root; none means the whole module
	Except []string // folders that are free of the rule
	Forbid []string // "./x" is a folder of the module, anything else an import path; both with all below
	Reach  bool     // also by way of other packages of the module
	Why    string
}

// Rules is the import table of the house. Tests may import what they like: the
// rules are about what is in the binaries.
func Rules() []Rule {
	return slices.Concat(planes(), layers(), policies(), operators(), homes())
}

// planes keeps control out of the packet path.
func planes() []Rule {
	path := []string{"fastpath", "classifier", "crypto/transport"}
	return []Rule{
		{
			Name: "the packet path knows nothing of control", In: path, Reach: true,
			Forbid: []string{"./control", "./policy", "./routing", "./kube", "./cni", "./ipam", "./datastore", "./api", "./config"},
			Why:    "tables go down, counters come up: a worker must run, build and be tested without any of it",
		},
		{
			Name: "the packet path does not log", In: path, Reach: true,
			Forbid: []string{"log", "github.com/go-logr", "go.uber.org/zap", "github.com/sirupsen/logrus"},
			Why:    "on the path there are edges, drop reasons and counters; state changes are logged by who asked for them",
		},
		{
			Name: "plain packets are accepted without tables", In: []string{"fastpath/plain"},
			Forbid: []string{"./fastpath/node", "./fastpath/judge", "./fastpath/flow", "./fastpath/fib", "./fastpath/label"}, Reach: true,
			Why: "whether a header is true depends on nothing but the packet",
		},
		{
			Name: "the forwarder carries no control plane", In: []string{"cmd/margay-forwarder"}, Reach: true,
			Forbid: []string{"./control", "./policy", "./routing", "./kube", "./cni", "./ipam", "./datastore"},
			Why:    "a malformed route or object may kill the agent, never packets; and the forwarder's heap stays small",
		},
	}
}

// layers keeps imports pointing one way: cmd, kube and cni, control, policy and
// routing and ipam, tables, nodes, graph and ports, rings and headers.
func layers() []Rule {
	above := []string{"./cmd", "./kube", "./cni", "./control"}
	return []Rule{
		{
			Name: "tests alone build programs", Forbid: []string{"./internal/built"}, Except: []string{"bench/stage/stagetest"},
			Why: "what is installed needs no compiler",
		},
		{
			Name: "programs are leaves", Forbid: []string{"./cmd"}, Except: []string{"cmd"},
			Why: "what two programs share is a package with a name of its own",
		},
		{
			Name: "calculation does not know its callers", In: []string{"policy", "routing", "ipam", "datastore", "api"},
			Forbid: above, Reach: true,
			Why: "reconcilers call it; it is tested without them",
		},
		{
			Name: "tables know no nodes", In: []string{"classifier", "fastpath/fib", "fastpath/flow", "fastpath/label"},
			Forbid: []string{"./fastpath/node", "./fastpath/port", "./fastpath/xsk"}, Reach: true,
			Why: "a table is compiled and looked up with no packet in sight",
		},
		{
			Name: "the engine knows no node", In: []string{"fastpath/graph", "fastpath/port"}, Except: []string{"fastpath/graph/graphtest"},
			Forbid: []string{"./fastpath/node"}, Reach: true,
			Why: "small core, many leaves: nodes are handed to the graph",
		},
		{
			Name: "rings know no engine", In: []string{"fastpath/xsk"},
			Forbid: []string{"./fastpath/port", "./fastpath/graph", "./fastpath/node"}, Reach: true,
			Why: "the kernel's contact is a thin layer of its own",
		},
		{
			Name: "a hand-over knows nothing of what is handed over", In: []string{"forwarder/handover", "forwarder/socket"},
			Forbid: []string{"./fastpath", "./api", "./config", "./internal/hostnet", "./forwarder/plane", "./forwarder/desired", "./forwarder/session"}, Reach: true,
			Why: "who is in charge is decided, and tested, with no packet in sight",
		},
		{
			Name: "what a node is sent is calculated without the machine", In: []string{"control/attach", "control/converge", "control/felix", "control/network"}, Reach: true,
			Forbid: []string{"./internal/hostnet", "./datastore/etcd", "./datastore/file", "./forwarder", "go.etcd.io"},
			Why:    "who reads the kernel, or a store, hands over what it found: an agent's mind is tested with neither in sight",
		},
		{
			Name: "nobody below asks for explanations", In: []string{"classifier", "fastpath", "forwarder/plane", "forwarder/policing", "forwarder/desired"}, Reach: true,
			Forbid: []string{"./forwarder/explain"},
			Why:    "who explains looks at the tables from above: it may be wrong, late or gone, and no packet fares otherwise",
		},
		{
			Name: "explanations have no effect", In: []string{"forwarder/explain"},
			Forbid: []string{"./forwarder/session", "./forwarder/statefile", "./internal/hostnet", "./fastpath/port", "./fastpath/umem", "./control", "./policy"},
			Why:    "it reads what packets are judged by, and has nothing in hand to change or send",
		},
		{
			Name: "headers and memory stand alone", In: []string{"internal/pkt", "internal/mem", "internal/pcapng"}, Reach: true,
			Forbid: []string{"./fastpath", "./classifier", "./crypto", "./internal/hostnet", "./internal/lab", "./api", "./config", "./control"},
			Why:    "everything stands on them",
		},
	}
}

// policies keeps apart what policy is calculated from, what calculates it, and
// what the outcome is held against.
func policies() []Rule {
	return []Rule{
		{
			Name: "conversion knows resources alone", In: []string{"policy/kubernetes"}, Reach: true,
			Forbid: []string{"./fastpath", "./classifier", "./forwarder", "./config", "./internal", "./policy"},
			Why:    "what an object means does not depend on who calculates with it, and a cluster's objects are only parsed here",
		},
		{
			Name: "a judge of policies knows none of them", In: []string{"internal/lab/truth", "internal/lab/probe"}, Reach: true,
			Forbid: []string{"./fastpath", "./classifier", "./policy", "./api", "./control", "./forwarder"},
			Why:    "what an engine must come to is told, and asked for, by nobody who had a hand in it",
		},
		{
			Name: "stores know objects, not what they are for", In: []string{"datastore"}, Reach: true,
			Forbid: []string{"./policy", "./classifier", "./fastpath", "./forwarder", "./config", "./internal"},
			Why:    "what keeps objects is held against one contract, whoever acts on them",
		},
		{
			Name: "selectors and names of hosts stand alone", In: []string{"api/selector", "api/domain"},
			Forbid: []string{"margay.dev/margay"},
			Why:    "resources, policy and tools read one language, and it is tested with nothing but labels in sight",
		},
		{
			Name: "the oracle of policy shares nothing with what it judges", In: []string{"policy/oracle"}, Reach: true,
			Forbid: []string{"./policy", "./classifier", "./fastpath"},
			Why:    "what both have wrong, neither finds",
		},
		{
			Name: "the index knows labels, not resources", In: []string{"policy/index"}, Reach: true,
			Forbid: []string{"./api/v3", "./classifier", "k8s.io"},
			Why:    "who is picked is one question, what for is another",
		},
		{
			Name: "the kernel's dataplane knows lists, not resources", In: []string{"dataplane/nft"}, Reach: true,
			Forbid: []string{"./policy", "./api", "./control", "./forwarder", "./config", "k8s.io"},
			Why:    "it takes what every dataplane takes: lists, sets and settings, calculated elsewhere",
		},
	}
}

// operators keeps what people change apart from what carries it out.
func operators() []Rule {
	return []Rule{
		{
			Name: "settings and limits stand below resources", In: []string{"api/v3/fabric", "api/v3/felix", "api/v3/qos"}, Reach: true,
			Forbid: []string{"./api/v3", "./policy", "./datastore", "./config"},
			Why:    "a kind's fields and what they may hold are read by themselves; package v3 has the objects",
		},
		{
			Name: "a change is undone by the store alone", In: []string{"control/pending"}, Reach: true,
			Forbid: []string{"./fastpath", "./classifier", "./forwarder", "./policy", "./internal/hostnet", "./datastore/etcd", "./datastore/file"},
			Why:    "who has locked himself out is let in whatever has become of his forwarder, and whichever store it is",
		},
		{
			Name: "a store is believed for what it says, not for what it is", In: []string{"control/cluster"}, Reach: true,
			Forbid: []string{"./fastpath", "./classifier", "./forwarder", "./policy", "./internal/hostnet", "./datastore/etcd", "./datastore/file"},
			Why:    "every driver names its store; who judges that needs neither the driver nor what comes of the objects",
		},
		{
			Name: "objects are worked on without a forwarder", In: []string{"cmd/margayctl/resources"},
			Forbid: []string{"./fastpath", "./classifier", "./forwarder", "./api/dataplane", "google.golang.org/grpc"},
			Why:    "a store is reached from machines that forward nothing",
		},
		{
			Name: "a difference is calculated, not asked", In: []string{"cmd/margayctl/preview"},
			Forbid: []string{"./fastpath", "./classifier", "./forwarder", "./control", "./datastore", "google.golang.org/grpc", "github.com/spf13/cobra"},
			Why:    "what a change would do is told from objects and connections in hand, and touches neither's keeper",
		},
		{
			Name: "verdicts are shown from answers alone", In: []string{"cmd/margayctl/verdicts"},
			Forbid: []string{"./fastpath", "./classifier", "./forwarder", "./control", "./policy", "google.golang.org/grpc", "github.com/spf13/cobra"},
			Why:    "what an operator reads is what the forwarder said, and any client can read the same",
		},
	}
}

// homes gives each heavy or dangerous library one house.
func homes() []Rule {
	return []Rule{
		{
			Name: "netlink lives in internal/hostnet", Except: []string{"internal/hostnet"},
			Forbid: []string{"github.com/vishvananda/netlink", "github.com/mdlayher/netlink", "github.com/jsimonetti/rtnetlink"},
			Why:    "one place changes the host, and its journal puts everything back",
		},
		{
			Name: "nftables lives in dataplane/nft", Except: []string{"dataplane/nft"},
			Forbid: []string{"github.com/google/nftables"},
			Why:    "who judges knows lists and sets; one package knows how a kernel is told of them, and writes one table",
		},
		{
			Name: "eBPF lives in fastpath/xsk, internal/hostbpf and internal/lab/xdpgen", Except: []string{"fastpath/xsk", "internal/hostbpf", "internal/lab/xdpgen"},
			Forbid: []string{"github.com/cilium/ebpf", "github.com/asavie/xdp"},
			Why:    "programs in the kernel outlive mistakes; few packages own their attachment",
		},
		{
			Name: "GoBGP lives in routing/bgp", Except: []string{"routing/bgp"},
			Forbid: []string{"github.com/osrg/gobgp"},
			Why:    "a codec of 17,000 lines stays behind one package",
		},
		{
			Name: "etcd's server lives in datastore/embedded", Except: []string{"datastore/embedded"},
			Forbid: []string{"go.etcd.io/etcd/server"},
			Why:    "it is most of a binary's weight, and few run one",
		},
		{
			Name: "etcd's client lives in datastore/etcd", Except: []string{"datastore/etcd"},
			Forbid: []string{"go.etcd.io/etcd/client", "go.etcd.io/etcd/api"},
			Why:    "whoever reads and writes objects does not know where they are",
		},
		{
			Name: "client-go lives in kube", Except: []string{"kube"},
			Forbid: []string{"k8s.io/client-go", "sigs.k8s.io/controller-runtime"},
			Why:    "its caches belong to one package of the agent",
		},
	}
}

// unsafeHomes are the only files that import unsafe: a folder with all below it,
// or a pattern for files of one folder. Tests are free to measure with it.
var unsafeHomes = []string{
	"fastpath/xsk",
	"fastpath/port/tundev",
	"internal/mem",
	"internal/hostnet/ioctl*.go",
	"classifier/kernel*.go",
	"crypto/transport/kernel*.go",
}
