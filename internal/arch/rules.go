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
	return slices.Concat(planes(), layers(), policies(), homes())
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
			Name: "selectors stand alone", In: []string{"api/selector"},
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
