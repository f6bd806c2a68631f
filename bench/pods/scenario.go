// Package pods is the scenarios "pods-tcp" and "pods-scaling": TCP between pods of
// one node, by the forwarder, by a pump that does nothing else, and by the kernel's
// own router.
//
// The forwarder is the real process, its pods TUN devices in namespaces; the pump
// is two such devices; the kernel routes between two veth pairs.
package pods

import (
	"context"
	"runtime"

	"margay.dev/margay/bench/harness"
	"margay.dev/margay/bench/stage"
	"margay.dev/margay/bench/tcp"
)

// Scenario is pods-tcp.
func Scenario() harness.Scenario {
	return harness.Scenario{
		Name:  "pods-tcp",
		About: "TCP between two pods of a node (TUN), against a bare pump and the kernel's routed veth",
		Run:   run,
	}
}

func run(ctx context.Context, s *harness.Session) error {
	return tcp.Contest(ctx, s, contestants(s.Forwarder)...)
}

// contestants are all; ours is the first.
func contestants(forwarder string) []tcp.Contestant {
	ours := func(ctx context.Context) (*stage.Path, error) { return oursPath(ctx, forwarder) }
	ofKernel := 0.75
	if runtime.NumCPU() >= 16 {
		ofKernel = 0.95
	}
	return []tcp.Contestant{
		{Name: "ours", Raise: ours},
		{Name: "bare-pump", Raise: pumpPath, Least: 0.95},
		{Name: "kernel-veth", Raise: kernelPath, Least: ofKernel},
	}
}
