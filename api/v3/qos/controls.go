// Package qos is what an endpoint may use of the network, as the field qosControls
// of group projectcalico.org/v3 says it.
//
// +kubebuilder:object:generate=true
package qos

import (
	"fmt"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Controls limit what an endpoint may use, seen from the endpoint. What is 0 has
// no limit, or the default that is said.
type Controls struct {
	// IngressBandwidth is in bits a second, 1k to 1P.
	// +optional
	IngressBandwidth int64 `json:"ingressBandwidth,omitempty"`

	// EgressBandwidth is in bits a second, 1k to 1P.
	// +optional
	EgressBandwidth int64 `json:"egressBandwidth,omitempty"`

	// IngressBurst is in bits, 1k to 34,359,738,360; 4Gi where there is a bandwidth.
	// +optional
	IngressBurst int64 `json:"ingressBurst,omitempty"`

	// EgressBurst is in bits, 1k to 34,359,738,360; 4Gi where there is a bandwidth.
	// +optional
	EgressBurst int64 `json:"egressBurst,omitempty"`

	// IngressPeakrate is in bits a second, more than the bandwidth, 1.01k to 1.01P.
	// +optional
	IngressPeakrate int64 `json:"ingressPeakrate,omitempty"`

	// EgressPeakrate is in bits a second, more than the bandwidth, 1.01k to 1.01P.
	// +optional
	EgressPeakrate int64 `json:"egressPeakrate,omitempty"`

	// IngressMinburst is in bytes, 1k to 100M: what may pass at once at the peak
	// rate; the MTU where there is one.
	// +optional
	IngressMinburst int64 `json:"ingressMinburst,omitempty"`

	// EgressMinburst is in bytes, 1k to 100M: what may pass at once at the peak
	// rate; the MTU where there is one.
	// +optional
	EgressMinburst int64 `json:"egressMinburst,omitempty"`

	// IngressPacketRate is packets a second, 1 to 10k.
	// +optional
	IngressPacketRate int64 `json:"ingressPacketRate,omitempty"`

	// EgressPacketRate is packets a second, 1 to 10k.
	// +optional
	EgressPacketRate int64 `json:"egressPacketRate,omitempty"`

	// IngressPacketBurst is packets at once, 1 to 10k; 5 where there is a rate.
	// +optional
	IngressPacketBurst int64 `json:"ingressPacketBurst,omitempty"`

	// EgressPacketBurst is packets at once, 1 to 10k; 5 where there is a rate.
	// +optional
	EgressPacketBurst int64 `json:"egressPacketBurst,omitempty"`

	// IngressMaxConnections is connections at once, 1 to 4,294,967,295.
	// +optional
	IngressMaxConnections int64 `json:"ingressMaxConnections,omitempty"`

	// EgressMaxConnections is connections at once, 1 to 4,294,967,295.
	// +optional
	EgressMaxConnections int64 `json:"egressMaxConnections,omitempty"`

	// DSCP is what the packets that it sends are marked with.
	// +optional
	DSCP *DSCP `json:"dscp,omitempty"`
}

// Validate gives every fault of the limits that stand at p.
func (q *Controls) Validate(p *field.Path) (all field.ErrorList) {
	const k, m, t, peta = 1_000, 1_000_000, 1_000_000_000_000, 1_000_000_000_000_000
	for _, l := range []struct {
		name             string
		value, low, high int64
	}{
		{"ingressBandwidth", q.IngressBandwidth, k, peta},
		{"egressBandwidth", q.EgressBandwidth, k, peta},
		{"ingressBurst", q.IngressBurst, k, 34_359_738_360},
		{"egressBurst", q.EgressBurst, k, 34_359_738_360},
		{"ingressPeakrate", q.IngressPeakrate, max(k+10, q.IngressBandwidth+1), peta + 10*t},
		{"egressPeakrate", q.EgressPeakrate, max(k+10, q.EgressBandwidth+1), peta + 10*t},
		{"ingressMinburst", q.IngressMinburst, k, 100 * m},
		{"egressMinburst", q.EgressMinburst, k, 100 * m},
		{"ingressPacketRate", q.IngressPacketRate, 1, 10 * k},
		{"egressPacketRate", q.EgressPacketRate, 1, 10 * k},
		{"ingressPacketBurst", q.IngressPacketBurst, 1, 10 * k},
		{"egressPacketBurst", q.EgressPacketBurst, 1, 10 * k},
		{"ingressMaxConnections", q.IngressMaxConnections, 1, 1<<32 - 1},
		{"egressMaxConnections", q.EgressMaxConnections, 1, 1<<32 - 1},
	} {
		if l.value != 0 && (l.value < l.low || l.value > l.high) {
			all = append(all, field.Invalid(p.Child(l.name), l.value, fmt.Sprintf("want %d to %d, or leave it out", l.low, l.high)))
		}
	}
	if q.DSCP != nil {
		if _, known := q.DSCP.Value(); !known {
			all = append(all, field.Invalid(p.Child("dscp"), q.DSCP.String(), "want 0 to 63, DF, EF, CS0 to CS7, or AF11 to AF43"))
		}
	}
	return all
}
