package nft

import (
	"fmt"
	"math/bits"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"margay.dev/margay/classifier"
	"margay.dev/margay/dataplane/nft/cover"
)

// check reports the first fault of what is desired. Lists that from has were
// checked when they came; sets are those that there will be.
func (d *Desired) check(from *view, sets map[classifier.SetID]*set) error {
	if err := d.Settings.check(); err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	seen := map[string]string{}
	for i := range d.Endpoints {
		e := &d.Endpoints[i]
		if err := checkInterface(e.Interface); err != nil {
			return fmt.Errorf("endpoint %s: %w", e.Name, err)
		}
		if other, ok := seen[e.Interface]; ok {
			return fmt.Errorf("endpoints %s and %s are both of interface %q: an interface has one", other, e.Name, e.Interface)
		}
		seen[e.Interface] = e.Name
	}
	for _, p := range places() {
		for i := range d.Endpoints {
			e := &d.Endpoints[i]
			if j := p.judgement(e); j != nil {
				if err := j.check(p.mode, from, sets); err != nil {
					return fmt.Errorf("endpoint %s: %s: %w", e.Name, p.name, err)
				}
			}
		}
	}
	return nil
}

func checkInterface(name string) error {
	if name == AllInterfaces {
		return nil
	}
	if name == "" || len(name) >= unix.IFNAMSIZ || strings.ContainsAny(name, "/ \t\n\x00") {
		return fmt.Errorf("interface %.32q, want a name of 1 to %d bytes, without \"/\" and spaces", name, unix.IFNAMSIZ-1)
	}
	return nil
}

func (s *Settings) check() error {
	if bits.OnesCount32(s.mask()) < 2 {
		return fmt.Errorf("mark %#x, want at least two bits", s.Mark)
	}
	switch s.LogPer {
	case 0, time.Second, time.Minute, time.Hour, 24 * time.Hour:
	default:
		return fmt.Errorf("lines of the log are counted in %v, want a second, a minute, an hour or a day", s.LogPer)
	}
	for _, list := range s.Failsafe {
		for _, f := range list {
			if f.Protocol != 6 && f.Protocol != protocolUDP && f.Protocol != 132 {
				return fmt.Errorf("a failsafe port of protocol %d, want 6, 17 or 132: others have no ports", f.Protocol)
			}
			if f.Net.Addr().Is4In6() {
				return fmt.Errorf("failsafe net %v, want it as IPv4", f.Net)
			}
		}
	}
	for _, name := range s.Workloads {
		if name == "*" { // all of them
			continue
		}
		if err := checkInterface(strings.TrimSuffix(name, "*")); err != nil { // as long as a name may be: it stands for itself, too
			return fmt.Errorf("workloads: %w", err)
		}
	}
	for _, a := range s.Tunnels.Hosts {
		if !a.IsValid() || a.Is4In6() || a.Zone() != "" {
			return fmt.Errorf("tunnel of host %v, want an address of IPv4 or IPv6", a)
		}
	}
	return nil
}

func (j *Judgement) check(m mode, from *view, sets map[classifier.SetID]*set) error {
	switch {
	case j.End == classifier.Deny, j.End == classifier.Pass, j.End == classifier.Allow && m == filtering:
	default:
		return fmt.Errorf("a judgement ends with %v, want deny, pass, or allow where packets are filtered", j.End)
	}
	for _, t := range j.Tiers {
		if t.End != classifier.Deny && t.End != classifier.Pass {
			return fmt.Errorf("tier %q ends with %v, want deny or pass", t.Name, t.End)
		}
		for family, rules := range map[int][]classifier.Rule{4: t.V4, 6: t.V6} {
			if err := checkList(rules, family, from, sets); err != nil {
				return fmt.Errorf("tier %q: %w", t.Name, err)
			}
		}
	}
	return nil
}

func checkList(rules []classifier.Rule, family int, from *view, sets map[classifier.SetID]*set) error {
	if len(rules) == 0 || from.knows(rules, family) {
		return nil
	}
	if err := classifier.Validate(rules); err != nil {
		return err
	}
	for i := range rules {
		for _, side := range [...]*classifier.Side{&rules[i].Source, &rules[i].Destination} {
			for _, ids := range [...][]classifier.SetID{side.Sets, side.NotSets} {
				for _, id := range ids {
					if sets[id] == nil {
						return fmt.Errorf("rule %d (id %d) names set %d, which was not given: give it before, or together with, the rule", i, rules[i].ID, id)
					}
				}
			}
			if n := append(side.Nets[:len(side.Nets):len(side.Nets)], side.NotNets...); len(n) > 0 && cover.Family(n[0]) != family {
				return fmt.Errorf("rule %d (id %d) has %v in the list of IPv%d", i, rules[i].ID, n[0], family)
			}
		}
	}
	return nil
}

// knows reports whether the view has a list of these rules, and so has checked them.
func (v *view) knows(rules []classifier.Rule, family int) bool {
	for key := range v.listAt {
		if key.first == &rules[0] && key.length == len(rules) && key.family == family {
			return true
		}
	}
	return false
}
