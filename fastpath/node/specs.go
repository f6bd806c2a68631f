package node

import "margay.dev/margay/fastpath/graph"

// Specs declares the whole graph over t, for graph.Build.
func Specs(t *Tables) []graph.Spec {
	return []graph.Spec{
		ethInputSpec(t), arpSpec(t), ipInputSpec(t), ndSpec(t), routeSpec(t), echoSpec(t),
		icmpErrorSpec(t), fragmentSpec(t), resolveSpec(t), rewriteSpec(t), puntSpec(t),
	}
}
