//go:build linux

package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	dataplanev1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/internal/version"
)

// Each error says what happened, why, and what to do; and none is without a status.
func TestErrors(t *testing.T) {
	folder := t.TempDir()
	plain := filepath.Join(folder, "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	good := serve(t, &forwarder{})
	stuck := &forwarder{stuck: make(chan struct{})}
	tests := map[string]struct {
		socket string
		args   string
		status int
		says   []string
	}{
		"no socket":                 {filepath.Join(folder, "none"), "show nodes", 3, []string{"there is no socket", "does not run", "--socket or MARGAY_SOCKET"}},
		"no folder":                 {plain + "/f.sock", "show nodes", 3, []string{"there is no socket"}},
		"nobody listens":            {deserted(t), "show nodes", 3, []string{"nobody listens", "has ended", "journalctl"}},
		"a plain file":              {plain, "show nodes", 3, []string{plain}},
		"no answer in time":         {serve(t, stuck), "show nodes --timeout 50ms", 3, []string{"did not answer within 50ms", "--timeout"}},
		"a question it knows not":   {serve(t, &dataplanev1.UnimplementedInspectServer{}), "show nodes", 3, []string{"does not know this question", "use the one that came with it"}},
		"an answer of failure":      {serve(t, &forwarder{fail: status.Error(codes.Internal, "tables are torn")}), "show workers", 3, []string{"tables are torn"}},
		"a failure between chunks":  {serve(t, &forwarder{fail: status.Error(codes.Unavailable, "going down")}), "show fib", 3, []string{"went away while answering"}},
		"refused by credentials":    {serve(t, &forwarder{fail: status.Error(codes.PermissionDenied, "user 1000")}), "show drops", 3, []string{"refuses to talk to you: user 1000", "sudo"}},
		"an unknown command":        {good, "shwo nodes", 2, []string{`unknown command "shwo"`, "--help"}},
		"show without a word":       {good, "show", 2, []string{"say what to show"}},
		"show of what there is not": {good, "show packets", 2, []string{`unknown command "packets"`}},
		"an unknown format":         {good, "show nodes -o xml", 2, []string{"table, json or yaml"}},
		"an unknown flag":           {good, "show nodes --fast", 2, []string{"unknown flag"}},
		"too many words":            {good, "show nodes all", 2, []string{"all"}},
		"no address":                {good, "show fib 10.0.0.0/8", 2, []string{`"10.0.0.0/8" is no IPv4 or IPv6 address`}},
		"an address with a zone":    {good, "show fib fe80::1%eth0", 2, []string{"without a zone"}},
		"a port that is not there":  {good, "show ports uplink eth9", 2, []string{`no port is called "eth9"`}},
		"no time between readings":  {good, "show ports --rate 0s", 2, []string{"rate is 0s, want more than 0"}},
		"a rate of the past":        {good, "show ports --rate=-1s", 2, []string{"rate is -1s, want more than 0"}},
		"no rate of a port gone":    {good, "show ports eth9 --rate 1ms", 2, []string{`no port is called "eth9"`}},
		"a filter that is none":     {good, "trace -f host", 2, []string{"host"}},
		"no time for a trace":       {good, "trace --timeout 0s", 2, []string{"timeout is 0s, want more than 0"}},
		"a trace that is refused":   {serve(t, &forwarder{fail: status.Error(codes.InvalidArgument, "count is 0, want 1 to 1000")}), "trace -n 0", 2, []string{"margayctl: count is 0"}},
		"a trace too many":          {serve(t, &forwarder{fail: status.Error(codes.ResourceExhausted, "4 watch already")}), "trace", 3, []string{"is busy: 4 watch already"}},
		"a capture to nowhere":      {good, "capture", 2, []string{"-w FILE"}},
		"a stage there is not":      {good, "capture -w - --stage tx", 2, []string{`stage is "tx", want rx, pre-tx or drop`}},
		"a capture of what is none": {good, "capture -w - -f net(fd00::/64", 2, []string{"net"}},
		"no time for a capture":     {good, "capture -w - --duration=-1s", 2, []string{"duration is -1s"}},
		"a folder that is not":      {good, "capture -w /nonexistent/x", 1, []string{"make the file", "no such file"}},
		"a full disk":               {good, "capture -w /dev/full", 1, []string{"no space left on device", "/dev/full holds 0 packets"}},
		"why of two words":          {good, "why ann bob", 2, []string{"2 words", "margayctl why ann bob 80"}},
		"why of no port":            {good, "why ann bob http", 2, []string{`"http" is no port`}},
		"why of port 0":             {good, "why ann bob 0", 2, []string{`"0" is no port`}},
		"why of a port too high":    {good, "why ann bob 65536/udp", 2, []string{`"65536/udp" is no port`}},
		"why of another protocol":   {good, "why ann bob 80/quic", 2, []string{`"80/quic" is no port`}},
		"why of no protocol":        {good, "why ann bob proto/256", 2, []string{`proto/1 to proto/255`}},
		"why of nobody":             {good, "why ann zoe 80", 2, []string{"zoe", "neither an address nor an endpoint"}},
		"flows of no protocol":      {good, "flows --proto tpc", 2, []string{`protocol is "tpc", want tcp, udp, sctp, icmp, icmp6 or a number`}},
		"flows of protocol 0":       {good, "flows --proto 0", 2, []string{`protocol is "0"`}},
		"flows of protocol 256":     {good, "flows --proto 256", 2, []string{`protocol is "256"`}},
		"a summary with a filter":   {good, "flows --summary --port 80", 2, []string{"--summary is of all flows: leave --port out"}},
		"flows of nobody":           {serve(t, &forwarder{fail: status.Error(codes.NotFound, `no endpoint is called "eve"; there are pod/ann`)}), "flows --endpoint eve", 2, []string{`no endpoint is called "eve"; there are pod/ann`}},
		"flows at no address":       {serve(t, &forwarder{fail: status.Error(codes.InvalidArgument, `address is "x", want an address or a prefix`)}), "flows --host x", 2, []string{`address is "x"`}},
		"flows of who is going":     {serve(t, &forwarder{fail: status.Error(codes.Unavailable, "it is ending")}), "flows", 3, []string{"went away while answering"}},
		"a wide port":               {good, "show ports -o wide", 2, []string{`output format is "wide", want table, json or yaml`}},
		"policy without a word":     {good, "policy", 2, []string{"say what to do: list, show ENDPOINT, or diff -f FILE"}},
		"policy of no endpoint":     {good, "policy show", 2, []string{"0 endpoints are named, want one", "policy list"}},
		"policy of two":             {good, "policy show ann bob", 2, []string{"2 endpoints are named"}},
		"policy of somebody":        {serve(t, &forwarder{fail: status.Error(codes.InvalidArgument, `endpoint "ann" may be any of pod/ann, zoo/ann`)}), "policy show ann", 2, []string{"may be any of pod/ann, zoo/ann"}},
		"policy of an old one":      {serve(t, &dataplanev1.UnimplementedInspectServer{}), "policy list", 3, []string{"does not know this question"}},
		"no time at all":            {good, "show nodes --timeout 0s", 2, []string{"timeout is 0s"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := try(t, tt.socket, strings.Fields(tt.args)...)
			if got.status != tt.status {
				t.Errorf("ended with %d, want %d", got.status, tt.status)
			}
			for _, want := range tt.says {
				if !strings.Contains(got.err, want) {
					t.Errorf("does not say %q:\n%s", want, got.err)
				}
			}
			if got.out != "" {
				t.Errorf("printed on standard output:\n%s", got.out)
			}
		})
	}
	close(stuck.stuck)
}

// deserted is a socket that nobody listens at any more.
func deserted(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "f.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	return path
}

// Another user than the forwarder's is told so. It takes another user to see.
func TestPermission(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: runs margayctl as another user (CAP_SETUID)")
	}
	folder, err := os.MkdirTemp("", "margayctl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	if err := os.Chmod(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	binary, socket := filepath.Join(folder, "margayctl"), filepath.Join(folder, "f.sock")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Chmod(socket, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), binary, "--socket", socket, "show", "nodes")
	cmd.Dir = folder
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != statusUnreachable {
		t.Errorf("ended with %v, want status %d", err, statusUnreachable)
	}
	for _, want := range []string{"you may not talk to the forwarder", socket, "sudo"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("does not say %q:\n%s", want, out)
		}
	}
}

func TestVersionSkewIsTold(t *testing.T) {
	socket := serve(t, &forwarder{status: &dataplanev1.Status{Version: "v9.0.0", Contract: version.Contract + 1}})
	got := try(t, socket, "show", "neighbors")
	if got.status != 0 || !strings.Contains(got.out, "198.51.100.1") {
		t.Errorf("ended with %d and\n%s\nwant an answer all the same", got.status, got.out)
	}
	if !strings.Contains(got.err, "(v9.0.0) speaks contract 2, this margayctl contract 1") {
		t.Errorf("skew was told as %q", got.err)
	}
	if same := try(t, serve(t, &forwarder{}), "show", "neighbors"); same.err != "" {
		t.Errorf("the same contract was told as %q", same.err)
	}
}

func TestVersions(t *testing.T) {
	own := version.Line("margayctl") + "\n"
	none := own + "margay-forwarder: none answers\n"
	empty, full := t.TempDir(), t.TempDir()
	text := "{apiVersion: projectcalico.org/v3, kind: ClusterInformation, metadata: {name: default}, spec: {calicoVersion: v3.33.0, clusterGUID: 0a1b}}"
	if err := os.WriteFile(filepath.Join(full, "cluster.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	running := serve(t, &forwarder{})
	tests := map[string]struct {
		socket, args, want, says string
	}{
		"the flag":                 {"/nonexistent/f.sock", "--version", own, ""},
		"the program alone":        {running, "version --client", own, ""},
		"an empty store":           {"/nonexistent/f.sock", "version --folder " + empty, none + "cluster: the store has no ClusterInformation yet\n", ""},
		"a store that is away":     {"/nonexistent/f.sock", "version --timeout 300ms --etcd-endpoints unix:///nonexistent/etcd.sock", none + "cluster: the store does not tell\n", "margayctl: "},
		"a store that is none":     {"/nonexistent/f.sock", "version --folder /nonexistent", none + "cluster: the store does not tell\n", "want a folder that is there"},
		"a forwarder, and a store": {running, "version --folder " + full, own + "margay-forwarder v0.1.0 (contract 1)\ncluster v3.33.0 (type unknown, id 0a1b)\n", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := try(t, tt.socket, strings.Fields(tt.args)...)
			if got.status != 0 || got.out != tt.want || !strings.Contains(got.err, tt.says) || tt.says == "" && got.err != "" {
				t.Errorf("ended with %d, printed %q and %q, want %q and %q", got.status, got.out, got.err, tt.want, tt.says)
			}
		})
	}
	for args, want := range map[string]string{
		"version --client -o json":          `"cluster":null,"forwarder":null`,
		"version -o json --folder " + full:  `"cluster":{"guid":"0a1b","type":"","version":"v3.33.0"},"forwarder":{"contract":1,"version":"v0.1.0"}`,
		"version -o yaml --folder " + empty: "cluster: null\nforwarder:\n  contract: 1\n",
	} {
		got := try(t, running, strings.Fields(args)...)
		if plain := strings.NewReplacer("\n", "", " ", "").Replace(got.out); got.status != 0 || !strings.Contains(plain, want) && !strings.Contains(got.out, want) {
			t.Errorf("%s ended with %d, printed %s%s\nwant %s", args, got.status, got.out, got.err, want)
		}
	}
}

// What a shell is offered, of commands, kinds and formats.
func TestCompletion(t *testing.T) {
	store, _ := folder(t, "")
	for args, want := range map[string]string{
		"show n":             "neighbors\tLink-layer addresses of next hops\nnodes\tThe stops of the packet graph: packets, vector sizes, time\n:4\n",
		"policy d":           "diff\tWhich connections of this node a change of objects would allow or deny\n:4\n",
		"get globalnetworkp": "globalnetworkpolicy\n:4\n",
		"delete tie":         "tier\n:4\n",
		"patch nod":          "node\n:4\n",
		"label hoste":        "hostendpoint\n:4\n",
		"get weps -n shop --folder " + store + " ":       "ann\nbob\n:4\n",
		"delete wep -n shop --folder " + store + " ann ": "bob\n:4\n",
		"get wep -A --folder " + store + " b":            "bob\n:4\n",
		"get wep --folder " + store + " ":                ":4\n", // of namespace default
		"patch wep -n shop --folder " + store + " a":     "ann\n:4\n",
		"label wep -n shop --folder " + store + " ann ":  ":4\n",
		"get potatoes --folder " + store + " ":           ":4\n",
		"get tiers --folder /nonexistent ":               ":4\n",
		"get tiers -o ":                                  "ps\nwide\nyaml\njson\nname\ncustom-columns=\ngo-template=\ngo-template-file=\n:6\n",
		"patch tier x -t ":                               "strategic\nmerge\njson\n:4\n",
		"policy diff -o ":                                "table\njson\nyaml\n:4\n",
		"convert -o ":                                    "yaml\njson\n:4\n",
		"show status -o ":                                "table\njson\nyaml\n:4\n",
		"apply --confirm":                                "--confirm-within\t",
		"datastore migrate ex":                           "export\t",
		"get tiers platform --ex":                        "--export\t",
	} {
		got := try(t, "/nonexistent/f.sock", append([]string{"__complete"}, strings.Split(args, " ")...)...)
		if got.status != 0 || !strings.HasPrefix(got.out, want) {
			t.Errorf("%s is completed with %d %q, want %q", args, got.status, got.out, want)
		}
	}
	for shell, says := range map[string]string{"bash": "complete -o default", "zsh": "#compdef margayctl", "fish": "complete -c margayctl", "powershell": "Register-ArgumentCompleter"} {
		if got := try(t, "/nonexistent/f.sock", "completion", shell); got.status != 0 || !strings.Contains(got.out, says) || !strings.Contains(got.out, "__complete") {
			t.Errorf("completion for %s ended with %d, and %d bytes", shell, got.status, len(got.out))
		}
	}
}

func TestSocketFlagWinsOverEnvironment(t *testing.T) {
	got := try(t, "/nonexistent/f.sock", "--socket", serve(t, &forwarder{}), "show", "nodes")
	if got.status != 0 {
		t.Errorf("ended with %d: %s", got.status, got.err)
	}
}

// The words for drop reasons are kept in step with the forwarder's enum.
func TestEveryDropReasonHasAMeaning(t *testing.T) {
	var names []string
	for r := range graph.Reasons {
		name := graph.Reason(r).String()
		names = append(names, name)
		if meanings[name] == "" {
			t.Errorf("drop reason %s has no meaning", name)
		}
	}
	for name := range meanings {
		if !slices.Contains(names, name) {
			t.Errorf("%s has a meaning and is no drop reason any more", name)
		}
	}
}

// A reason that a later forwarder has is shown after those we know.
func TestAllReasonsKeepWhatWeDoNotKnow(t *testing.T) {
	got := complete([]*dataplanev1.DropList_Drop{{Reason: "from-the-future", Packets: 3}, {Reason: "no-route", Packets: 2}})
	if len(got) != graph.Reasons { // all but NoReason, and one more
		t.Fatalf("%d reasons, want %d", len(got), graph.Reasons)
	}
	if last := got[len(got)-1]; last.GetReason() != "from-the-future" || last.GetPackets() != 3 {
		t.Errorf("the last is %v", last)
	}
	for _, d := range got {
		if d.GetReason() == "no-route" && d.GetPackets() != 2 {
			t.Errorf("lost a count: %v", d)
		}
	}
}
