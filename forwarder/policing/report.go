package policing

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strconv"
	"time"

	"margay.dev/margay/classifier"
	"margay.dev/margay/fastpath/flow"
	"margay.dev/margay/fastpath/judge"
	"margay.dev/margay/internal/pkt"
)

// reportEvery is how long a packet that met a Log rule waits for its line.
const reportEvery = 100 * time.Millisecond

// Report writes a line for each packet that met a rule with action Log, until ctx
// ends. One goroutine at a time may do it.
func (l *Ledger) Report(ctx context.Context, log *slog.Logger) {
	ticker := time.NewTicker(reportEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
		l.Log().Read(func(e *judge.Logged) { log.LogAttrs(ctx, slog.LevelInfo, "packet met a Log rule", l.line(e)...) })
		if ctx.Err() != nil {
			return
		}
	}
}

// line is what is told of a packet.
func (l *Ledger) line(e *judge.Logged) []slog.Attr {
	rule, _ := l.Rule(e.Rule)
	direction := "ingress"
	if e.Egress {
		direction = "egress"
	}
	verdict := "deny"
	if e.Verdict.Action() == classifier.Allow {
		verdict = "allow"
	}
	attrs := []slog.Attr{
		slog.String("tier", rule.Tier), slog.String("policy", rule.Policy), slog.Int("rule", rule.Index), slog.String("direction", direction),
		slog.String("endpoint", l.Tenant(e.Account)), slog.String("in_port", l.Port(e.InPort)),
	}
	attrs = append(attrs, packet(&e.Packet)...)
	attrs = append(attrs, slog.Int("bytes", int(e.Bytes)), slog.Int("segments", int(e.Segments)), slog.String("verdict", verdict), slog.String("by", l.by(e)))
	if e.Suppressed > 0 {
		attrs = append(attrs, slog.Uint64("suppressed", e.Suppressed))
	}
	return attrs
}

// packet is the protocol, addresses and ports of a packet.
func packet(k *flow.Key) []slog.Attr {
	src, dst := k.Addrs()
	from, to := k.Ports()
	name, known := protocols[k.Proto()]
	if !known {
		name = strconv.Itoa(int(k.Proto()))
	}
	attrs := []slog.Attr{slog.String("protocol", name)}
	switch k.Proto() {
	case pkt.ProtoICMP, pkt.ProtoICMPv6:
		return append(attrs, slog.Any("source", src), slog.Any("destination", dst), slog.Int("type", int(to>>8)), slog.Int("code", int(to&255)))
	case pkt.ProtoTCP, pkt.ProtoUDP, pkt.ProtoSCTP:
		return append(attrs, slog.Any("source", netip.AddrPortFrom(src, from)), slog.Any("destination", netip.AddrPortFrom(dst, to)))
	}
	return append(attrs, slog.Any("source", src), slog.Any("destination", dst))
}

var protocols = map[uint8]string{
	pkt.ProtoTCP: "tcp", pkt.ProtoUDP: "udp", pkt.ProtoSCTP: "sctp", pkt.ProtoICMP: "icmp", pkt.ProtoICMPv6: "icmpv6",
}

// by says what gave a packet its verdict.
func (l *Ledger) by(e *judge.Logged) string {
	if v := e.Verdict; v.Action() != classifier.NoMatch && v.Rule() != classifier.EndOfTier {
		rule, ok := l.Rule(v.Rule())
		if !ok {
			return fmt.Sprintf("rule %d, which nobody named", v.Rule())
		}
		return fmt.Sprintf("rule %d of %s", rule.Index, rule.Policy)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if tier := l.byNumber[e.End].Tier; tier != "" {
		return "the end of tier " + tier
	}
	return "the end of all tiers"
}
