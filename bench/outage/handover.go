package outage

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"margay.dev/margay/bench/harness"
)

const takeOver = "--take-over"

// Handover is handover.
func Handover() harness.Scenario {
	return scenario("handover", "what pods lose while another forwarder takes over from the one that runs", 100, 10, handovers)
}

func handovers() []trial {
	return []trial{{takeOver[2:], map[string]float64{blockedP99: 50, resets: 0}, takeOvers}}
}

// takeOvers has one forwarder after the other take over. The client stays, and
// finds its way to each.
func takeOvers(ctx context.Context, b *bed) (func(context.Context, int) error, func(), error) {
	help, err := exec.CommandContext(ctx, b.forwarder, "--help").CombinedOutput()
	if err != nil {
		return nil, nil, fmt.Errorf("ask the forwarder what it can: %w: %s", err, help)
	}
	if !strings.Contains(string(help), takeOver) {
		return nil, nil, errors.New("this margay-forwarder has no " + takeOver + ": name one that has by --forwarder")
	}
	if _, _, err := session(ctx, b.lab); err != nil {
		return nil, nil, err
	}
	happen := func(ctx context.Context, _ int) error {
		ctx, cancel := context.WithTimeoutCause(ctx, b.patience, fmt.Errorf("not within %v", b.patience))
		defer cancel()
		return b.lab.TakeOver(ctx, node)
	}
	return happen, func() {}, nil
}
