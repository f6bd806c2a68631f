package resources

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/datastore"
)

// column is one of a kind's table: calicoctl's, and a few that it has not.
type column struct {
	head string
	wide bool // only with -o wide
	cell func(o v3.Object) string
}

// columns are the headings of a kind's table, and what makes a row of an object.
func columns(kind v3.Kind, wide bool) (heads []string, row func(v3.Object) []string) {
	var shown []column
	for _, c := range append(named(kind), ofKind(kind.Name)...) {
		if wide || !c.wide {
			shown = append(shown, c)
			heads = append(heads, c.head)
		}
	}
	return heads, func(o v3.Object) (cells []string) {
		for _, c := range shown {
			cells = append(cells, c.cell(o))
		}
		return cells
	}
}

// named is the column of names; of workload endpoints only a wide table has it.
func named(kind v3.Kind) []column {
	return []column{{"NAME", kind.Name == v3.KindWorkloadEndpoint, func(o v3.Object) string { return o.GetName() }}}
}

// of makes a column of a field of a kind's objects.
func of[O v3.Object](head string, wide bool, cell func(O) string) column {
	return column{head, wide, func(o v3.Object) string { return cell(o.(O)) }}
}

// ofKind are the columns behind the name.
func ofKind(kind string) []column {
	switch kind {
	case v3.KindNetworkPolicy, v3.KindGlobalNetworkPolicy, v3.KindStagedNetworkPolicy, v3.KindStagedGlobalNetworkPolicy:
		return []column{
			{"TIER", false, func(o v3.Object) string { return policyOf(o).Tier }},
			{"ORDER", true, func(o v3.Object) string { return order(policyOf(o).Order) }},
			{"SELECTOR", true, func(o v3.Object) string { return policyOf(o).Selector }},
		}
	case v3.KindTier:
		return []column{
			of("ORDER", false, func(t *v3.Tier) string { return order(t.Spec.Order) }),
			of("DEFAULT ACTION", true, func(t *v3.Tier) string { return text(t.Spec.DefaultAction) }),
		}
	case v3.KindNetworkSet:
		return []column{of("NETS", true, func(s *v3.NetworkSet) string { return strings.Join(s.Spec.Nets, ",") })}
	case v3.KindGlobalNetworkSet:
		return []column{of("NETS", true, func(s *v3.GlobalNetworkSet) string { return strings.Join(s.Spec.Nets, ",") })}
	case v3.KindProfile:
		return []column{of("LABELS", true, func(p *v3.Profile) string { return pairs(p.Spec.LabelsToApply) })}
	case v3.KindPendingChange:
		return []column{
			of("WITHIN", false, func(c *v3.PendingChange) string { return c.Spec.Within.Duration.String() }),
			of("OBJECTS", false, func(c *v3.PendingChange) string { return strconv.Itoa(len(c.Spec.Before) + len(c.Spec.Created)) }),
		}
	}
	return ofMachines(kind)
}

// ofMachines are the columns of what is not policy.
func ofMachines(kind string) []column {
	switch kind {
	case v3.KindHostEndpoint:
		return []column{
			of("NODE", false, func(h *v3.HostEndpoint) string { return h.Spec.Node }),
			of("INTERFACE", true, func(h *v3.HostEndpoint) string { return h.Spec.InterfaceName }),
			of("IPS", true, func(h *v3.HostEndpoint) string { return strings.Join(h.Spec.ExpectedIPs, ",") }),
			of("PROFILES", true, func(h *v3.HostEndpoint) string { return strings.Join(h.Spec.Profiles, ",") }),
		}
	case v3.KindWorkloadEndpoint:
		return []column{
			of("WORKLOAD", false, func(w *v3.WorkloadEndpoint) string { return workload(w) }),
			of("NODE", false, func(w *v3.WorkloadEndpoint) string { return w.Spec.Node }),
			of("NETWORKS", false, func(w *v3.WorkloadEndpoint) string { return strings.Join(w.Spec.IPNetworks, ",") }),
			of("INTERFACE", false, func(w *v3.WorkloadEndpoint) string { return w.Spec.InterfaceName }),
			of("PROFILES", true, func(w *v3.WorkloadEndpoint) string { return strings.Join(w.Spec.Profiles, ",") }),
		}
	case v3.KindNode:
		return []column{
			of("ASN", true, func(n *v3.Node) string { return asNumber(n) }),
			of("IPV4", true, func(n *v3.Node) string { return address(n, false) }),
			of("IPV6", true, func(n *v3.Node) string { return address(n, true) }),
		}
	case v3.KindIPPool:
		return []column{
			of("CIDR", false, func(p *v3.IPPool) string { return p.Spec.CIDR }),
			of("NAT", true, func(p *v3.IPPool) string { return strconv.FormatBool(p.Spec.NATOutgoing) }),
			of("IPIPMODE", true, func(p *v3.IPPool) string { return string(p.Spec.IPIPMode) }),
			of("VXLANMODE", true, func(p *v3.IPPool) string { return string(p.Spec.VXLANMode) }),
			of("DISABLED", true, func(p *v3.IPPool) string { return strconv.FormatBool(p.Spec.Disabled) }),
			of("DISABLEBGPEXPORT", true, func(p *v3.IPPool) string { return strconv.FormatBool(p.Spec.DisableBGPExport) }),
			of("SELECTOR", false, func(p *v3.IPPool) string { return p.Spec.NodeSelector }),
		}
	case v3.KindClusterInformation:
		return []column{
			of("CLUSTERGUID", true, func(c *v3.ClusterInformation) string { return c.Spec.ClusterGUID }),
			of("CLUSTERTYPE", true, func(c *v3.ClusterInformation) string { return c.Spec.ClusterType }),
			of("CALICOVERSION", true, func(c *v3.ClusterInformation) string { return c.Spec.CalicoVersion }),
			of("DATASTOREREADY", true, func(c *v3.ClusterInformation) string { return text(c.Spec.DatastoreReady) }),
		}
	}
	return nil
}

// policyOf is what all policies say.
func policyOf(o v3.Object) *v3.NetworkPolicySpec {
	switch p := o.(type) {
	case *v3.NetworkPolicy:
		return &p.Spec
	case *v3.GlobalNetworkPolicy:
		return &p.Spec.NetworkPolicySpec
	case *v3.StagedNetworkPolicy:
		return &p.Spec.NetworkPolicySpec
	case *v3.StagedGlobalNetworkPolicy:
		return &p.Spec.NetworkPolicySpec
	}
	panic(fmt.Sprintf("%v is no policy", datastore.KeyOf(o)))
}

// order is an order as people write it.
func order(n *float64) string {
	if n == nil {
		return ""
	}
	return strconv.FormatFloat(*n, 'f', -1, 64)
}

// text is a value that may be left out.
func text[T any](v *T) string {
	if v == nil {
		return ""
	}
	return fmt.Sprint(*v)
}

// pairs are labels in order.
func pairs(labels map[string]string) string {
	var all []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		all = append(all, k+"="+labels[k])
	}
	return strings.Join(all, ",")
}

// workload is the name of what an endpoint belongs to.
func workload(w *v3.WorkloadEndpoint) string {
	if w.Spec.Workload != "" {
		return w.Spec.Workload
	}
	return w.Spec.Pod
}

func asNumber(n *v3.Node) string {
	if n.Spec.BGP == nil {
		return ""
	}
	return text(n.Spec.BGP.ASNumber)
}

// address is a node's address of a family.
func address(n *v3.Node, six bool) string {
	switch {
	case n.Spec.BGP == nil:
		return ""
	case six:
		return n.Spec.BGP.IPv6Address
	}
	return n.Spec.BGP.IPv4Address
}
