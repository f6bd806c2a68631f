//go:build linux

package main

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/structpb"

	"margay.dev/margay/internal/render"
)

const (
	topWidth = 100 // columns that no line of top passes
	topRows  = 16  // rows of a table of top; documents have all
)

// glanceTable prints a glance for people. Columns stay where they are from one to
// the next.
func glanceTable(w io.Writer, g glance) error {
	var b bytes.Buffer
	at := g.at.UTC().Format(time.TimeOnly) + " UTC"
	switch {
	case g.trouble != nil:
		fmt.Fprintf(&b, "%s  %v\n", at, g.trouble)
	case g.restarted:
		headline(&b, g, at)
		fmt.Fprintf(&b, "\nThe forwarder started anew since the last reading: rates come with the next.\n")
	default:
		headline(&b, g, at)
		for _, table := range []func(io.Writer, glance) error{trafficRates, nodeRates, workerRates, portRates, dropRates} {
			b.WriteByte('\n')
			if err := table(&b, g); err != nil {
				return err
			}
		}
	}
	for line := range strings.Lines(b.String()) {
		if _, err := fmt.Fprintln(w, render.Cut(strings.TrimSuffix(line, "\n"), topWidth)); err != nil {
			return err
		}
	}
	return nil
}

// headline says who answers, and since when.
func headline(w io.Writer, g glance, at string) {
	s := g.now.status
	who := fmt.Sprintf("%s, run %s, up %s, generation %d", s.GetVersion(), s.GetBootId(),
		render.Duration(time.Duration(s.GetUptimeSeconds())*time.Second), s.GetGeneration())
	when := fmt.Sprintf("%s, over %.1f s", at, g.elapsed.Seconds())
	pad := max(topWidth-utf8.RuneCountInString(who)-utf8.RuneCountInString(when), 2)
	fmt.Fprintf(w, "%s%s%s\n", who, strings.Repeat(" ", pad), when)
	if n := len(s.GetConditions()); n > 0 {
		fmt.Fprintf(w, "%s not as asked for: see margayctl show status\n", render.Plural(n, "object"))
	}
}

// millions has three decimals, and six where those would say little.
func millions(v float64) string {
	if v < 1e5 {
		return strconv.FormatFloat(v/1e6, 'f', 6, 64)
	}
	return strconv.FormatFloat(v/1e6, 'f', 3, 64)
}

func gigabits(bits float64) string { return millions(bits / 1e3) }

func trafficRates(w io.Writer, g glance) error {
	t := render.NewTable("", ">MPPS", ">GBIT/S").Fix(10, 10, 10)
	t.Continue("in", millions(g.in.packets), gigabits(g.in.bits))
	t.Continue("out", millions(g.out.packets), gigabits(g.out.bits))
	t.Continue("to node", millions(g.punt.packets), gigabits(g.punt.bits))
	t.Continue("made", millions(g.made))
	t.Continue("dropped", millions(g.dropped))
	if err := t.Write(w); err != nil {
		return err
	}
	free := 0.0
	if s := g.now.status; s.GetFrames() > 0 {
		free = float64(s.GetFramesFree()) / float64(s.GetFrames())
	}
	_, err := fmt.Fprintf(w, "%-10s  %10.1f  packets a call\n%-10s  %10s  free\n", "vectors", g.vector, "frames", render.Percent(free))
	return err
}

func nodeRates(w io.Writer, g glance) error {
	t := render.NewTable("NODE", ">PKTS/S", ">CALLS/S", ">PKTS/CALL", ">NS/PKT", ">SHARE").Fix(16, 8, 8, 9, 9, 6)
	for _, n := range g.nodes {
		share := ""
		if n.nanos > 0 {
			share = render.Percent(n.share)
		}
		t.Row(n.name, count(n.packets), count(n.calls), fmt.Sprintf("%.1f", n.perCall), render.Nanoseconds(n.nanos), share)
	}
	return most(w, t, len(g.nodes), "no packets")
}

func workerRates(w io.Writer, g glance) error {
	t := render.NewTable("WORKER", "CPU", ">BUSY", ">PKTS/S", ">LOOPS/S", ">SLEEPS/S").Fix(6, 4, 6, 8, 8, 8)
	for _, k := range g.workers {
		cpu := "any"
		if k.GetCpu() >= 0 {
			cpu = fmt.Sprint(k.GetCpu())
		}
		t.Row(fmt.Sprint(k.GetId()), cpu, render.Percent(k.busy), count(k.packets), count(k.loops), count(k.sleeps))
	}
	return most(w, t, len(g.workers), "no workers")
}

func portRates(w io.Writer, g glance) error {
	t := render.NewTable("PORT", "KIND", "STATE", ">IN PKTS/S", ">IN GBIT/S", ">OUT PKTS/S", ">OUT GBIT/S", ">REFUSED/S").Fix(20, 4, 7, 10, 10, 10, 10, 9)
	for _, p := range g.ports.now.GetPorts() {
		cells := []string{p.GetName(), p.GetKind(), p.GetState()}
		if r, ok := g.ports.of[p.GetName()]; ok {
			cells = append(cells, count(r.rxPackets), gigabits(8*r.rxBytes), count(r.txPackets), gigabits(8*r.txBytes), count(r.txDrops))
		}
		t.Row(cells...)
	}
	return most(w, t, len(g.ports.now.GetPorts()), "no ports")
}

func dropRates(w io.Writer, g glance) error {
	t := render.NewTable("DROPPED FOR", ">PKTS/S", "MEANING").Fix(16, 8, 70)
	for _, d := range g.drops {
		t.Row(d.reason, count(d.packets), meanings[d.reason])
	}
	return most(w, t, len(g.drops), "nothing was dropped")
}

// most prints as many rows of a table of n as top has room for.
func most(w io.Writer, t *render.Table, n int, empty string) error {
	t.Keep(topRows)
	if err := write(w, t, empty); err != nil || n <= topRows {
		return err
	}
	_, err := fmt.Fprintf(w, "and %d more\n", n-topRows)
	return err
}

// document is a glance for programs. state is running, restarted or unreachable;
// but for the first there is nothing below it but who answers, or why nobody does.
func (g glance) document() (*structpb.Struct, error) {
	doc := map[string]any{"time": g.at.UTC().Format(time.RFC3339Nano)}
	if g.trouble != nil {
		doc["state"], doc["message"] = "unreachable", g.trouble.Error()
		return structpb.NewStruct(doc)
	}
	s := g.now.status
	doc["version"], doc["bootId"], doc["generation"] = s.GetVersion(), s.GetBootId(), strconv.FormatUint(s.GetGeneration(), 10)
	doc["seconds"], doc["uptimeSeconds"], doc["conditions"] = g.elapsed.Seconds(), float64(s.GetUptimeSeconds()), float64(len(s.GetConditions()))
	doc["frames"], doc["framesFree"] = float64(s.GetFrames()), float64(s.GetFramesFree())
	if doc["state"] = "running"; g.restarted {
		doc["state"] = "restarted"
		return structpb.NewStruct(doc)
	}
	doc["traffic"] = map[string]any{
		"rxPacketsPerSecond": g.in.packets, "rxBitsPerSecond": g.in.bits, "txPacketsPerSecond": g.out.packets, "txBitsPerSecond": g.out.bits,
		"puntPacketsPerSecond": g.punt.packets, "puntBitsPerSecond": g.punt.bits,
		"madePacketsPerSecond": g.made, "droppedPacketsPerSecond": g.dropped, "packetsPerCall": g.vector,
	}
	doc["nodes"] = list(g.nodes, func(n nodeRate) map[string]any {
		return map[string]any{"name": n.name, "packetsPerSecond": n.packets, "callsPerSecond": n.calls, "packetsPerCall": n.perCall, "nanosecondsPerPacket": n.nanos, "share": n.share}
	})
	doc["workers"] = list(g.workers, func(k workerRate) map[string]any {
		return map[string]any{"id": float64(k.GetId()), "cpu": float64(k.GetCpu()), "busy": k.busy, "packetsPerSecond": k.packets, "loopsPerSecond": k.loops, "sleepsPerSecond": k.sleeps}
	})
	doc["drops"] = list(g.drops, func(d dropRate) map[string]any {
		return map[string]any{"reason": d.reason, "packetsPerSecond": d.packets}
	})
	doc["ports"] = g.portDocuments()
	return structpb.NewStruct(doc)
}

func (g glance) portDocuments() []any {
	ports := make([]any, 0, len(g.ports.now.GetPorts()))
	for _, p := range g.ports.now.GetPorts() {
		one := map[string]any{"name": p.GetName(), "kind": p.GetKind(), "state": p.GetState()}
		if r, ok := g.ports.of[p.GetName()]; ok {
			one["rates"] = r.document()
		}
		ports = append(ports, one)
	}
	return ports
}

func list[T any](from []T, one func(T) map[string]any) []any {
	out := make([]any, 0, len(from))
	for _, x := range from {
		out = append(out, one(x))
	}
	return out
}
