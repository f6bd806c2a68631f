//go:build linux

package main

import (
	"os"
	"path/filepath"
	"strings"
)

// policy puts policy in force in a lab of two pods, has a forwarder miss a change,
// and takes all of it back.
func (l *labs) policy() {
	l.t.Helper()
	dir := l.t.TempDir()
	deny, open, wrong := filepath.Join(dir, "deny.yaml"), filepath.Join(dir, "open.yaml"), filepath.Join(dir, "wrong.yaml")
	for path, text := range map[string]string{
		deny:  "{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: deny}, spec: {types: [Ingress]}}",
		open:  "{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: open}, spec: {selector: pod == 'b', ingress: [{action: Allow, source: {selector: pod == 'a'}}]}}",
		wrong: "{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: deny}, spec: {ingress: [{action: Alow}, {action: Allow, source: {nets: [x]}}]}}\n---\n{apiVersion: v1, kind: Pod}",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			l.t.Fatal(err)
		}
	}
	l.says("nothing was applied", "policies")
	l.says("GlobalNetworkPolicy deny applied", "apply", "-f", deny)
	l.reach("denied", false, false)
	out, status := l.run("apply", "-f", open, "-f", wrong)
	for _, want := range []string{"wrong.yaml", "spec.ingress[0].action", "spec.ingress[1].source.nets[0]", "object 2"} {
		if status != 1 || !strings.Contains(out, want) {
			l.t.Errorf("what is wrong ends with %d and says %q, want %q", status, out, want)
		}
	}
	l.reach("after a refusal", false, false)
	l.ok("apply", "-f", open)
	l.reach("opened", true, false)
	l.says("default    open", "policies")
	l.ok("stop", "w")
	l.says("node w does not run", "delete", "networkpolicy", "default/open")
	l.ok("start", "w")
	l.reach("closed again", false, false)
	if out, status := l.run("delete", "-f", open); status != 1 || !strings.Contains(out, "NetworkPolicy default/open is not there") {
		l.t.Errorf("deleting twice ends with %d and says %s", status, out)
	}
	again := l.command("apply", "-f", "-")
	again.Stdin = strings.NewReader(l.ok("policies", "-o", "yaml"))
	if out, err := again.CombinedOutput(); err != nil {
		l.t.Errorf("what is printed cannot be applied: %v\n%s", err, out)
	}
	l.ok("delete", "-f", deny)
	l.reach("after all", true, true)
}

// says wants a text in what a command prints.
func (l *labs) says(want string, args ...string) {
	l.t.Helper()
	if out := l.ok(args...); !strings.Contains(out, want) {
		l.t.Errorf("margay-lab %v says %q, want %q", args, out, want)
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
