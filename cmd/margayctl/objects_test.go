//go:build linux

package main

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"

	agentv1 "margay.dev/margay/api/agent/v1"
)

// inStore is what lies in a store: the pods of the fake forwarder's flows.
const inStore = `
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: ann, namespace: shop}
spec: {ipNetworks: [10.1.0.2/32, "fd00::2/128"], profiles: [projectcalico-default-allow]}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: bob, namespace: shop}
spec: {ipNetworks: [10.1.0.3/32, "fd00::3/128"], profiles: [projectcalico-default-allow]}
`

// folder makes a store of a manifest, and a manifest of a change.
func folder(t *testing.T, change string) (store, file string) {
	t.Helper()
	store, file = t.TempDir(), filepath.Join(t.TempDir(), "change.yaml")
	for name, text := range map[string]string{filepath.Join(store, "pods.yaml"): inStore, file: change} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return store, file
}

// A difference is of the store's objects and the forwarder's connections.
func TestPolicyDiff(t *testing.T) {
	store, file := folder(t, `{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: tcp-only}, spec: {selector: all(), egress: [{action: Allow, protocol: TCP}]}}`)
	socket := serve(t, &forwarder{})
	got := try(t, socket, "policy", "diff", "-f", file, "--folder", store)
	if got.status != 0 || got.err != "" {
		t.Errorf("ended with %d: %s", got.status, got.err)
	}
	golden(t, "policy-diff.table", got.out)
	before, err := os.ReadFile(filepath.Join(store, "pods.yaml"))
	if err != nil || string(before) != inStore {
		t.Errorf("the store has changed: %v\n%s", err, before)
	}
	if got := try(t, socket, "policy", "diff", "-f", filepath.Join(store, "pods.yaml"), "--delete", "--folder", store); got.status != 0 || !strings.Contains(got.out, "0 of ") {
		t.Errorf("who is not there is judged: %d\n%s%s", got.status, got.out, got.err)
	}
}

// agent is one that has learned names.
type agent struct {
	agentv1.UnimplementedAgentServer
}

func (agent) ListNames(_ *agentv1.ListNamesRequest, s agentv1.Agent_ListNamesServer) error {
	if err := s.Send(&agentv1.NameList{Patterns: []string{"*.example.com"}, Names: []*agentv1.NameList_Name{{Name: "bob.example.com", Addresses: [][]byte{{10, 1, 0, 3}, {1}}}}}); err != nil {
		return err
	}
	return s.Send(&agentv1.NameList{Names: []*agentv1.NameList_Name{{Name: "six.example.com", Addresses: [][]byte{netip.MustParseAddr("fd00::3").AsSlice()}}}})
}

// Names of hosts are judged by the addresses that the agent has learned; without an
// agent the rest is.
func TestPolicyDiffOfNames(t *testing.T) {
	store, file := folder(t, `
{apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: friends, labels: {role: friend}}, spec: {allowedEgressDomains: ["*.example.com"]}}
---
{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: friends-only}, spec: {selector: all(), egress: [{action: Allow, destination: {selector: role == 'friend'}}]}}`)
	socket := serve(t, &forwarder{})
	listener := filepath.Join(t.TempDir(), "a.sock")
	l, err := net.Listen("unix", listener)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	agentv1.RegisterAgentServer(server, agent{})
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	t.Cleanup(func() { server.Stop(); <-ended })
	all := []string{"policy", "diff", "-f", file, "--folder", store, "-o", "json"}
	got := try(t, socket, append(all, "--agent-socket", listener)...)
	if got.status != 0 || got.err != "" {
		t.Errorf("ended with %d: %s", got.status, got.err)
	}
	golden(t, "policy-diff-names.json", got.out)
	without := try(t, socket, append(all, "--agent-socket", listener+"x", "--timeout", "20s")...)
	if without.status != 0 || !strings.Contains(without.err, "the agent at "+listener+"x does not tell them") || !strings.Contains(without.err, "ask for: friends") {
		t.Errorf("without an agent it ended with %d: %s", without.status, without.err)
	}
	if n := strings.Count(without.out, `"by"`); n <= strings.Count(got.out, `"by"`) {
		t.Errorf("without an agent %d are turned or say why, with one no fewer:\n%s", n, got.out)
	}
}

// What goes wrong with objects has a status, as all else.
func TestStatusesOfObjects(t *testing.T) {
	store, file := folder(t, `{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: platform}}`)
	socket := serve(t, &forwarder{})
	away := []string{"--etcd-endpoints", "unix:///nonexistent/etcd.sock", "--timeout", "300ms"}
	tests := map[string]struct {
		socket string
		args   []string
		status int
		says   string
	}{
		"created":                       {socket, []string{"create", "-f", file, "--folder", store}, 0, ""},
		"created twice":                 {socket, []string{"create", "-f", filepath.Join(store, "pods.yaml"), "--folder", store}, 1, "it exists already"},
		"nobody there":                  {socket, []string{"get", "tier", "nobody", "--folder", store}, 1, "there is none"},
		"nothing to confirm":            {socket, []string{"confirm", "--folder", store}, 1, "there is none that is pending"},
		"no such kind":                  {socket, []string{"get", "potatoes", "--folder", store}, 2, "there is no kind"},
		"an etcd that is away":          {socket, append([]string{"get", "tiers"}, away...), 3, "margayctl: "},
		"writes to one that is away":    {socket, append([]string{"apply", "-f", file}, away...), 3, "Applied nothing, 1 failed"},
		"a difference to nothing":       {socket, append([]string{"policy", "diff", "-f", file}, away...), 3, "margayctl: "},
		"a difference, no forwarder":    {"/nonexistent/f.sock", []string{"policy", "diff", "-f", file, "--folder", store}, 3, "there is no socket"},
		"a difference of what is wrong": {socket, []string{"policy", "diff", "-f", "/dev/null", "--folder", store}, 2, "there are no objects"},
		"a difference in XML":           {socket, []string{"policy", "diff", "-f", file, "-o", "xml", "--folder", store}, 2, "want table, json or yaml"},
	}
	for _, name := range []string{"created", "created twice", "nobody there", "nothing to confirm", "no such kind", "an etcd that is away", "writes to one that is away", "a difference to nothing", "a difference, no forwarder", "a difference of what is wrong", "a difference in XML"} {
		tt := tests[name]
		t.Run(name, func(t *testing.T) {
			got := try(t, tt.socket, tt.args...)
			if got.status != tt.status || !strings.Contains(got.err, tt.says) {
				t.Errorf("ended with %d, want %d and %q:\n%s%s", got.status, tt.status, tt.says, got.out, got.err)
			}
		})
	}
}
