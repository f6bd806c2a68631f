package node

import (
	"margay.dev/margay/fastpath/fragment"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/judge"
)

// Specs declares the whole graph over t, for graph.Build.
func Specs(t *Tables) []graph.Spec {
	return append([]graph.Spec{
		t.Court.Post.Spec(),
		ethInputSpec(t), arpSpec(t), ipInputSpec(t), ndSpec(t), flowSpec(t), routeSpec(t), echoSpec(t),
		icmpErrorSpec(t), fragment.Spec(), resolveSpec(t), rewriteSpec(t), puntSpec(t),
	}, judge.Specs(t.Court, onward())...)
}
