//go:build linux

package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	dataplanev1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/fastpath/filter"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/internal/pkt"
	"margay.dev/margay/internal/render"
)

type step = dataplanev1.TracedPacket_Step

// story prints the n-th packet, a line for each step and what it saw below it.
func story(w io.Writer, n int, p *dataplanev1.TracedPacket) error {
	var out strings.Builder
	steps := p.GetSteps()
	if len(steps) == 0 {
		return nil
	}
	first, last := steps[0], steps[len(steps)-1]
	fmt.Fprintf(&out, "packet %d: %s, %s\n", n, opening(first), outcome(p, last, last.GetTimeNs()-first.GetTimeNs()))
	before := &step{Worker: first.GetWorker(), Length: first.GetLength()}
	for _, s := range steps {
		fmt.Fprintf(&out, "  %10s  %s\n", "+"+since(s.GetTimeNs()-first.GetTimeNs()), line(s))
		for _, note := range remarks(before, s) {
			fmt.Fprintf(&out, "  %10s    %s\n", "", note)
		}
		before = s
	}
	if p.GetLost() > 0 {
		fmt.Fprintf(&out, "  %s found no room: steps may be missing\n", render.Plural(int(p.GetLost()), "event"))
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// since is a time between two steps, which may be none.
func since(ns uint64) string {
	if ns == 0 {
		return "0"
	}
	return render.Nanoseconds(float64(ns))
}

// opening is what a packet is.
func opening(s *step) string {
	what := describe(s.GetData(), s.GetEthernet()) + fmt.Sprintf(", %d bytes", s.GetLength())
	if s.GetSegments() > 1 {
		what += fmt.Sprintf(" for %d packets of %d", s.GetSegments(), s.GetGsoSize())
	}
	return what
}

// outcome is what became of a packet.
func outcome(p *dataplanev1.TracedPacket, last *step, took uint64) string {
	switch p.GetEnd() {
	case dataplanev1.TracedPacket_END_SENT:
		return fmt.Sprintf("sent by %s after %s", last.GetOutPort(), since(took))
	case dataplanev1.TracedPacket_END_DROPPED:
		return fmt.Sprintf("dropped (%s) after %s", last.GetReason(), since(took))
	case dataplanev1.TracedPacket_END_CONSUMED:
		return fmt.Sprintf("consumed by %s after %s", last.GetStop(), since(took))
	}
	return "still under way"
}

// line is a step in one line.
func line(s *step) string {
	switch s.GetKind() {
	case dataplanev1.TracedPacket_KIND_RECEIVED:
		return fmt.Sprintf("received by %s, in a vector of %d", s.GetInPort(), s.GetVector())
	case dataplanev1.TracedPacket_KIND_MADE:
		return fmt.Sprintf("made by %s ► %s", s.GetStop(), s.GetEdge())
	case dataplanev1.TracedPacket_KIND_TRANSMITTED:
		return fmt.Sprintf("offered to %s, in a vector of %d", s.GetOutPort(), s.GetVector())
	case dataplanev1.TracedPacket_KIND_DROPPED:
		return "dropped: " + s.GetReason()
	}
	return fmt.Sprintf("%-10s ► %-10s %9s", s.GetStop(), s.GetEdge(), render.Nanoseconds(s.GetNsPerPacket()))
}

// remarks are what a step decided by, and what it changed.
func remarks(before, s *step) (out []string) {
	if r := s.GetRoute(); r != nil {
		out = append(out, way(r))
	}
	if r := s.GetReason(); r != "" && s.GetKind() == dataplanev1.TracedPacket_KIND_VISITED {
		out = append(out, "reason: "+r)
	}
	var learnt []string
	for _, f := range s.GetFacts() {
		if !slices.Contains(before.GetFacts(), f) {
			learnt = append(learnt, f)
		}
	}
	if len(learnt) > 0 {
		out = append(out, "is "+strings.Join(learnt, ", "))
	}
	if s.GetLength() != before.GetLength() {
		out = append(out, fmt.Sprintf("now %d bytes", s.GetLength()))
	}
	if s.GetWorker() != before.GetWorker() {
		out = append(out, fmt.Sprintf("on worker %d", s.GetWorker()))
	}
	return out
}

// way is the route that a stop found.
func way(r *dataplanev1.TracedPacket_Route) string {
	if r.GetPrefix() == "" && !r.GetChanged() {
		return "no route to " + r.GetDestination()
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%s is in %s", r.GetDestination(), r.GetPrefix())
	if r.GetNextHop() != 0 {
		fmt.Fprintf(&out, ", next hop %d", r.GetNextHop())
	}
	if r.GetChanged() {
		return fmt.Sprintf("%s now; the packet took adjacency %d: the table has changed meanwhile", out.String(), r.GetAdjacency())
	}
	a := r.GetChosen()
	fmt.Fprintf(&out, ": adjacency %d, %s", a.GetId(), a.GetKind())
	for _, part := range []struct{ word, value string }{{"by", a.GetPort()}, {"via", a.GetGateway()}, {"to", a.GetMac()}} {
		if part.value != "" {
			fmt.Fprintf(&out, " %s %s", part.word, part.value)
		}
	}
	if a.GetMtu() != 0 {
		fmt.Fprintf(&out, ", MTU %d", a.GetMtu())
	}
	return out.String()
}

// describe tells a packet by its first bytes: addresses, protocol, ports.
func describe(data []byte, ethernet bool) string {
	key := filter.Key{InPort: graph.NoPort, OutPort: graph.NoPort}
	key.Read(data, ethernet)
	if !key.Src.IsValid() || !key.Dst.IsValid() {
		return fmt.Sprintf("EtherType %#04x", key.EtherType)
	}
	from, to := key.Src.String(), key.Dst.String()
	if key.HasPorts {
		from, to = fmt.Sprintf("%s port %d", from, key.SrcPort), fmt.Sprintf("%s port %d", to, key.DstPort)
	}
	return fmt.Sprintf("%s ► %s %s", from, to, protocol(&key))
}

func protocol(key *filter.Key) string {
	name := fmt.Sprintf("protocol %d", key.Proto)
	switch {
	case key.EtherType == pkt.EtherARP:
		return "ARP"
	case key.Proto == pkt.ProtoTCP:
		name = "TCP"
	case key.Proto == pkt.ProtoUDP:
		name = "UDP"
	case key.Proto == pkt.ProtoICMP:
		name = "ICMP"
	case key.Proto == pkt.ProtoICMPv6:
		name = "ICMPv6"
	}
	if key.HasICMP {
		name += fmt.Sprintf(" type %d code %d", key.ICMPType, key.ICMPCode)
	}
	if key.Fragment {
		name += " fragment"
	}
	return name
}
