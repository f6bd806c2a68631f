// Package stagetest makes what tests of scenarios need on a stage.
package stagetest

import (
	"testing"

	"margay.dev/margay/internal/built"
	"margay.dev/margay/internal/hostnet/hostnettest"
)

// Forwarder builds the real forwarder, and is the path of its program. It skips the test where nobody could start it, without root, and
// where one of needs says what else is missing.
func Forwarder(t testing.TB, needs ...func() error) string {
	t.Helper()
	hostnettest.NeedRoot(t)
	for _, missing := range needs {
		if err := missing(); err != nil {
			t.Skip(err)
		}
	}
	return build(t, "margay-forwarder")
}

// Programs is Forwarder, beside which agent and margayctl lie.
func Programs(t testing.TB) string {
	t.Helper()
	hostnettest.NeedRoot(t)
	build(t, "margay-agent")
	build(t, "margayctl")
	return build(t, "margay-forwarder")
}

func build(t testing.TB, program string) string {
	t.Helper()
	bin, err := built.Program(program)
	if err != nil {
		t.Fatal(err)
	}
	return bin
}
