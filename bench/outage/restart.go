package outage

import (
	"context"
	"time"

	"margay.dev/margay/bench/harness"
)

// withoutClient is how long the forwarder is left alone between two clients.
const withoutClient = 50 * time.Millisecond

// Restart is restart.
func Restart() harness.Scenario {
	return scenario("restart", "what pods lose while the forwarder's client, or the forwarder itself, is killed and started again", 100, 10, restarts)
}

func restarts() []trial {
	return []trial{
		{"client-killed", map[string]float64{packetsLost: 0, resets: 0}, killClients},
		{"forwarder-stopped", nil, restartForwarder(false)},
		{"forwarder-killed", nil, restartForwarder(true)},
	}
}

// restartForwarder ends the forwarder, by asking or at once, and starts it again
// with nobody to tell it what to do: it has its state from disk.
func restartForwarder(atOnce bool) func(context.Context, *bed) (func(context.Context, int) error, func(), error) {
	return func(_ context.Context, b *bed) (func(context.Context, int) error, func(), error) {
		b.lab.Disconnect(node)
		happen := func(context.Context, int) error {
			if err := b.lab.StopForwarder(node, atOnce); err != nil {
				return err
			}
			return b.lab.Launch(node)
		}
		return happen, func() {}, nil
	}
}
