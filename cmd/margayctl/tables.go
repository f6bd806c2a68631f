//go:build linux

package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	dataplanev1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/internal/render"
)

func statusTable(w io.Writer, s *dataplanev1.Status) error {
	client := "connected"
	switch {
	case s.GetClientConnected():
	case s.GetRestored():
		client = "not connected; forwarding by what was on disk"
	case s.GetGeneration() == 0:
		client = "none so far: nothing to forward by"
	default:
		client = "gone; forwarding by what it sent last"
	}
	share := 0.0
	if s.GetFrames() > 0 {
		share = float64(s.GetFramesFree()) / float64(s.GetFrames())
	}
	lines := [][2]string{
		{"Version", fmt.Sprintf("%s, contract %d", s.GetVersion(), s.GetContract())},
		{"Up", fmt.Sprintf("%s, run %s", render.Duration(time.Duration(s.GetUptimeSeconds())*time.Second), s.GetBootId())},
		{"Generation", strconv.FormatUint(s.GetGeneration(), 10)},
		{"Client", client},
		{"Frames", fmt.Sprintf("%d, %d free (%s)", s.GetFrames(), s.GetFramesFree(), render.Percent(share))},
	}
	for _, l := range lines {
		fmt.Fprintf(w, "%-12s%s\n", l[0]+":", l[1])
	}
	for _, f := range s.GetFallbacks() {
		fmt.Fprintf(w, "%-12s%s\n", "Fell back:", f)
	}
	if len(s.GetConditions()) == 0 {
		_, err := fmt.Fprintf(w, "%-12s%s\n", "Conditions:", "all is as asked for")
		return err
	}
	fmt.Fprintf(w, "\n%s not as asked for:\n", render.Plural(len(s.GetConditions()), "object"))
	t := render.NewTable("OBJECT", "REASON", "MESSAGE")
	for _, c := range s.GetConditions() {
		t.Row(c.GetObject(), c.GetReason(), c.GetMessage())
	}
	return t.Write(w)
}

func nodeTable(w io.Writer, l *dataplanev1.NodeList) error {
	total := 0.0
	for _, n := range l.GetNodes() {
		total += n.GetNsPerPacket() * float64(n.GetPackets())
	}
	t := render.NewTable("NODE", ">CALLS", ">PACKETS", ">PKTS/CALL", ">NS/PKT", ">SHARE")
	for _, n := range l.GetNodes() {
		perCall, share := "", ""
		if n.GetCalls() > 0 {
			perCall = fmt.Sprintf("%.1f", n.GetVectorsPerCall())
		}
		if spent := n.GetNsPerPacket() * float64(n.GetPackets()); spent > 0 {
			share = render.Percent(spent / total)
		}
		t.Row(n.GetName(), render.Count(n.GetCalls()), render.Count(n.GetPackets()), perCall, render.Nanoseconds(n.GetNsPerPacket()), share)
	}
	return t.Write(w)
}

func portTable(w io.Writer, l *dataplanev1.PortList) error {
	t := render.NewTable("PORT", "KIND", "DEVICE", "STATE", "MODE", ">QUEUES", ">MTU", ">RX PKTS", ">RX BYTES", ">TX PKTS", ">TX BYTES", ">TX DROPS")
	for _, p := range l.GetPorts() {
		t.Row(p.GetName(), p.GetKind(), p.GetDevice(), p.GetState(), p.GetMode(), fmt.Sprint(p.GetQueues()), fmt.Sprint(p.GetMtu()),
			render.Count(p.GetRxPackets()), render.Bytes(p.GetRxBytes()), render.Count(p.GetTxPackets()), render.Bytes(p.GetTxBytes()), render.Count(p.GetTxDrops()))
	}
	if err := write(w, t, "no ports"); err != nil {
		return err
	}
	return fallbacks(w, l)
}

// fallbacks tells what ports asked for and did not get.
func fallbacks(w io.Writer, l *dataplanev1.PortList) error {
	return notes(w, func(yield func(string)) {
		for _, p := range l.GetPorts() {
			for _, f := range p.GetFallbacks() {
				yield(fmt.Sprintf("port %s fell back: %s", p.GetName(), f))
			}
		}
	})
}

// write prints a table, or a word in its place where it has no rows.
func write(w io.Writer, t *render.Table, empty string) error {
	if t.Len() > 0 {
		return t.Write(w)
	}
	_, err := fmt.Fprintln(w, empty)
	return err
}

// notes prints what needs a sentence, set off from the table above it.
func notes(w io.Writer, each func(func(string))) error {
	first := true
	var failed error
	each(func(note string) {
		if first {
			fmt.Fprintln(w)
			first = false
		}
		if _, err := fmt.Fprintln(w, note); err != nil {
			failed = err
		}
	})
	return failed
}

// portDetails prints each port with every counter, and with its rate where one is given.
func portDetails(w io.Writer, l *dataplanev1.PortList, of map[string]rate) error {
	for i, p := range l.GetPorts() {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "Port %s: %s on device %s, %s\n", p.GetName(), p.GetKind(), p.GetDevice(), p.GetState())
		lines := [][2]string{
			{"mode", p.GetMode()},
			{"queues", fmt.Sprint(p.GetQueues())},
			{"mtu", fmt.Sprint(p.GetMtu())},
			{"mac", p.GetMac()},
			{"received", fmt.Sprintf("%d packets, %d bytes", p.GetRxPackets(), p.GetRxBytes())},
			{"sent", fmt.Sprintf("%d packets, %d bytes", p.GetTxPackets(), p.GetTxBytes())},
			{"not sent", fmt.Sprintf("%d packets", p.GetTxDrops())},
		}
		if r, ok := of[p.GetName()]; ok {
			lines = append(lines,
				[2]string{"received/s", fmt.Sprintf("%.1f packets, %.1f bytes", r.rxPackets, r.rxBytes)},
				[2]string{"sent/s", fmt.Sprintf("%.1f packets, %.1f bytes", r.txPackets, r.txBytes)},
				[2]string{"not sent/s", fmt.Sprintf("%.1f packets", r.txDrops)})
		}
		for _, l := range lines {
			if l[1] != "" {
				fmt.Fprintf(w, "  %-12s%s\n", l[0], l[1])
			}
		}
		for _, f := range p.GetFallbacks() {
			fmt.Fprintf(w, "  %-12s%s\n", "fell back", f)
		}
		if err := driverCounters(w, p.GetDriver()); err != nil {
			return err
		}
	}
	return nil
}

func driverCounters(w io.Writer, counters map[string]uint64) error {
	if len(counters) == 0 {
		return nil
	}
	widest := 0
	for name := range counters {
		widest = max(widest, len(name))
	}
	fmt.Fprintln(w, "  sockets and steering:")
	for _, name := range slices.Sorted(maps.Keys(counters)) {
		if _, err := fmt.Fprintf(w, "    %-*s  %d\n", widest, name, counters[name]); err != nil {
			return err
		}
	}
	return nil
}

func routeTable(w io.Writer, l *dataplanev1.RouteList, covering string) error {
	if covering != "" && len(l.GetRoutes()) == 0 {
		_, err := fmt.Fprintf(w, "no route covers %s: packets to it are dropped (no-route)\n", covering)
		return err
	}
	if len(l.GetRoutes()) == 0 {
		_, err := fmt.Fprintln(w, "no routes")
		return err
	}
	t := render.NewTable("PREFIX", ">NEXT HOP", "KIND", "PORT", "GATEWAY", "MAC", ">MTU", "STATE")
	for _, r := range l.GetRoutes() {
		hop := strconv.FormatUint(uint64(r.GetNextHop()), 10)
		if len(r.GetAdjacencies()) == 0 {
			t.Row(r.GetPrefix(), hop, "none")
		}
		for i, a := range r.GetAdjacencies() {
			cells := []string{r.GetPrefix(), hop, a.GetKind(), dash(a.GetPort()), dash(a.GetGateway()), dash(a.GetMac()), mtu(a.GetMtu()), state(a.GetDown())}
			if i > 0 { // another member of the same group
				cells[0], cells[1] = "", ""
				t.Continue(cells...)
				continue
			}
			t.Row(cells...)
		}
	}
	if err := t.Write(w); err != nil || covering != "" {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%s\n", render.Plural(len(l.GetRoutes()), "route"))
	return err
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func mtu(n uint32) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}

func state(down bool) string {
	if down {
		return "down"
	}
	return "up"
}

func neighborTable(w io.Writer, l *dataplanev1.NeighborList) error {
	t := render.NewTable("ADDRESS", "PORT", "MAC", "STATE", "SOURCE")
	for _, n := range l.GetNeighbors() {
		t.Row(n.GetAddress(), n.GetPort(), n.GetMac(), n.GetState(), n.GetSource())
	}
	return write(w, t, "no neighbors")
}

func workerTable(w io.Writer, l *dataplanev1.WorkerList) error {
	t := render.NewTable(">WORKER", "CPU", ">LOAD", ">LOOPS", ">BUSY", ">SLEEPS", ">PACKETS")
	for _, k := range l.GetWorkers() {
		cpu, busy := "any", ""
		if k.GetCpu() >= 0 {
			cpu = fmt.Sprint(k.GetCpu())
		}
		if k.GetLoops() > 0 {
			busy = render.Percent(float64(k.GetBusyLoops()) / float64(k.GetLoops()))
		}
		t.Row(fmt.Sprint(k.GetId()), cpu, render.Percent(k.GetLoad()), render.Count(k.GetLoops()), busy, render.Count(k.GetSleeps()), render.Count(k.GetPackets()))
	}
	if err := t.Write(w); err != nil {
		return err
	}
	return notes(w, func(yield func(string)) {
		for _, k := range l.GetWorkers() {
			if k.GetError() != "" {
				yield(fmt.Sprintf("worker %d: %s", k.GetId(), strings.TrimSpace(k.GetError())))
			}
		}
	})
}
