//go:build linux

package main

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
)

// policy puts policy in force in a lab of two pods, by its store, has an agent and a
// forwarder miss changes, and takes all of it back.
func (l *labs) policy() {
	l.t.Helper()
	const (
		deny = "{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: deny}, spec: {types: [Ingress]}}"
		open = "{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: open}, spec: {selector: pod == 'b', ingress: [{action: Allow, source: {selector: pod == 'a'}}]}}"
	)
	l.store("apply", deny)
	l.ok("settle")
	l.reach("denied", false, false)
	l.ok("stop", "e", "--agent", "--kill")
	l.store("apply", open)
	l.reach("while the agent is away", false, false)
	l.ok("start", "e", "--agent")
	l.ok("settle")
	l.reach("opened", true, false)
	l.ok("stop", "w")
	l.store("delete", open)
	l.ok("start", "w")
	l.ok("settle")
	l.reach("closed again", false, false)
	l.ok("stop", "--store", "--kill")
	l.ok("stop", "e", "--kill")
	l.ok("start", "e", "--alone")
	l.reach("without a store", false, false)
	l.ok("start", "--store")
	l.store("delete", deny)
	l.ok("settle")
	l.reach("after all", true, true)
}

// store has margayctl change the lab's store by a manifest.
func (l *labs) store(how, manifest string) {
	l.t.Helper()
	var s state
	if err := json.Unmarshal([]byte(l.ok("status", "-o", "json")), &s); err != nil {
		l.t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(bins, "margayctl"), how, "--etcd-endpoints", s.Store, "-f", "-")
	cmd.Stdin = strings.NewReader(manifest)
	if out, err := cmd.CombinedOutput(); err != nil {
		l.t.Fatalf("margayctl %s: %v\n%s", how, err, out)
	}
}

// reach wants pods a and b to reach each other, or not, in both families.
func (l *labs) reach(when string, ab, ba bool) {
	l.t.Helper()
	for way, want := range map[[2]string]bool{{"a", "b"}: ab, {"b", "a"}: ba} {
		for _, six := range []string{"--ipv6=false", "--ipv6"} {
			args := []string{"ping", way[0], way[1], six, "-c", "3", "--timeout", "2s"}
			if !want {
				args = []string{"ping", way[0], way[1], six, "-c", "1", "--timeout", "200ms"}
			}
			if out, status := l.run(args...); (status == 0) != want {
				l.t.Errorf("%s %s pings %s (%s): status %d, want an answer: %v\n%s", when, way[0], way[1], six, status, want, out)
			}
		}
	}
}
