//go:build linux

package hostnet

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	ruleHead     = 12 // octets of struct fib_rule_hdr
	ruleToTable  = 1  // FR_ACT_TO_TBL
	ruleDst      = 1  // FRA_DST and its kin, which x/sys does not name
	ruleSrc      = 2
	ruleIn       = 3
	rulePriority = 6
	ruleMark     = 10
	ruleTable    = 15
	ruleMask     = 16
	ruleProtocol = 21
)

// A Rule sends packets that it matches to a routing table; zero fields match all.
type Rule struct {
	IPv6     bool // of IPv6; else of IPv4
	Priority int  // lower is asked first; the kernel's own are 0, 32766 and 32767
	Table    int
	From, To netip.Prefix
	Mark     uint32 // firewall mark, under Mask
	Mask     uint32 // 0 with a Mark is all bits
	In       string // name of the link that the packet came by
	Protocol uint8  // 0 is Protocol, ours
}

func (r Rule) canonical() Rule {
	if r.Protocol == 0 {
		r.Protocol = Protocol
	}
	if r.Mask == 0 && r.Mark != 0 {
		r.Mask = ^uint32(0)
	}
	return r
}

// AddRule adds a rule. One that is there already is no error.
func (h *Host) AddRule(r Rule) error {
	err := h.changeRule(unix.RTM_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, r)
	if err != nil && !exists(err) {
		return fmt.Errorf("add rule %d to table %d: %w", r.Priority, r.Table, err)
	}
	return nil
}

// DeleteRule removes a rule that is the same. One that is not there is no error.
func (h *Host) DeleteRule(r Rule) error {
	err := h.changeRule(unix.RTM_DELRULE, 0, r)
	if err != nil && !Missing(err) {
		return fmt.Errorf("delete rule %d to table %d: %w", r.Priority, r.Table, err)
	}
	return nil
}

// Rules reads the rules of both families that lead to a table.
func (h *Host) Rules() ([]Rule, error) {
	msgs, err := h.conn.dump(unix.RTM_GETRULE, unix.RTM_NEWRULE, raw(make([]byte, ruleHead)))
	if err != nil {
		return nil, fmt.Errorf("read rules: %w", err)
	}
	var out []Rule
	for _, m := range msgs {
		if r, ok := parseRule(m); ok {
			out = append(out, r)
		}
	}
	return out, nil
}

func (h *Host) changeRule(msg uint16, how int, r Rule) error {
	r = r.canonical()
	fam := byte(unix.AF_INET)
	if r.IPv6 {
		fam = unix.AF_INET6
	}
	for _, p := range []netip.Prefix{r.From, r.To} {
		if p.IsValid() && (family(p.Addr()) != fam || p != p.Masked()) {
			return fmt.Errorf("%v is no prefix of the rule's family (bits beyond its length must be 0)", p)
		}
	}
	if r.Table <= 0 || r.Priority < 0 {
		return fmt.Errorf("table %d must be above and priority %d not below 0", r.Table, r.Priority)
	}
	return h.conn.change(msg, how, r.encode(fam)...)
}

func (r Rule) encode(fam byte) []nl.NetlinkRequestData {
	head := raw{fam, byte(max(r.To.Bits(), 0)), byte(max(r.From.Bits(), 0)), 0, unix.RT_TABLE_UNSPEC, 0, 0, ruleToTable, 0, 0, 0, 0}
	parts := append(message(head), attr(rulePriority, u32(uint32(r.Priority))),
		attr(ruleTable, u32(uint32(r.Table))), attr(ruleProtocol, []byte{r.Protocol}))
	if r.To.IsValid() {
		parts = append(parts, attr(ruleDst, r.To.Addr().AsSlice()))
	}
	if r.From.IsValid() {
		parts = append(parts, attr(ruleSrc, r.From.Addr().AsSlice()))
	}
	if r.Mask != 0 {
		parts = append(parts, attr(ruleMark, u32(r.Mark)), attr(ruleMask, u32(r.Mask)))
	}
	if r.In != "" {
		parts = append(parts, attr(ruleIn, text(r.In)))
	}
	return parts
}

func parseRule(m []byte) (r Rule, ok bool) {
	if len(m) < ruleHead || m[0] != unix.AF_INET && m[0] != unix.AF_INET6 || m[7] != ruleToTable {
		return Rule{}, false
	}
	r.IPv6 = m[0] == unix.AF_INET6
	r.Table = int(m[4])
	walk(m[ruleHead:], func(kind int, v []byte) {
		switch kind {
		case ruleDst:
			r.To = prefixOf(v, int(m[1]))
		case ruleSrc:
			r.From = prefixOf(v, int(m[2]))
		case rulePriority:
			r.Priority = int(number(v))
		case ruleTable:
			r.Table = int(number(v))
		case ruleMark:
			r.Mark = number(v)
		case ruleMask:
			r.Mask = number(v)
		case ruleIn:
			r.In = unix.ByteSliceToString(v)
		case ruleProtocol:
			r.Protocol = uint8(number(v))
		}
	})
	return r, true
}

func prefixOf(v []byte, bits int) netip.Prefix {
	a, _ := netip.AddrFromSlice(v)
	return netip.PrefixFrom(a, bits)
}
