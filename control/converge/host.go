package converge

import (
	"cmp"
	"errors"
	"math/bits"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	fields "margay.dev/margay/api/v3/felix"
	"margay.dev/margay/control/attach"
	"margay.dev/margay/control/felix"
	"margay.dev/margay/control/guard"
	"margay.dev/margay/control/hosts"
	"margay.dev/margay/dataplane/nft"
	"margay.dev/margay/datastore"
)

// kernelRetry is how long a kernel that has refused a change has until the next.
const kernelRetry = 5 * time.Second

// setHosts says who judges the host which interfaces it has, and by which settings.
func (c *Core) setHosts() {
	if c.local == nil {
		return
	}
	workloads := []string{attach.PortPrefix + "*", c.local.HostDevice}
	for _, a := range c.attached {
		if a.Kind == attach.XSK {
			workloads = append(workloads, a.Device)
		}
	}
	set := c.settings()
	c.hosts.SetInterfaces(slices.DeleteFunc(slices.Clone(c.links), excluded(cmp.Or(set.InterfaceExclude, builtInExclude))))
	settings := hostSettings(set, workloads)
	c.reachStore(&settings)
	c.hosts.SetSettings(settings)
	c.dirty = true
}

// reachStore keeps the way to the store open, whatever policy and settings say: an
// agent that is cut off from it does not hear that what has cut it off was undone. To a
// store of the host itself there are two ends to pass.
func (c *Core) reachStore(s *nft.Settings) {
	for _, door := range c.Store {
		s.Failsafe[nft.Egress] = append(s.Failsafe[nft.Egress], door)
		a := door.Net.Addr()
		own := func(i hosts.Interface) bool { return slices.Contains(i.Addresses, a) }
		if a.IsLoopback() || slices.ContainsFunc(c.links, own) {
			s.Failsafe[nft.Ingress] = append(s.Failsafe[nft.Ingress], door)
		}
	}
}

// builtInExclude is the device that has all addresses of services, where nothing else
// is said.
const builtInExclude = "kube-ipvs0"

// excluded reports which interfaces are no host endpoint's that expects addresses: names,
// or regular expressions between slashes, with commas between.
func excluded(list string) func(hosts.Interface) bool {
	var patterns []*regexp.Regexp
	for item := range strings.SplitSeq(list, ",") {
		text := "^" + regexp.QuoteMeta(item) + "$"
		if inner, ok := strings.CutPrefix(item, "/"); ok {
			text = strings.TrimSuffix(inner, "/")
		}
		if p, err := regexp.Compile(text); err == nil { // validation has seen it
			patterns = append(patterns, p)
		}
	}
	return func(i hosts.Interface) bool {
		return slices.ContainsFunc(patterns, func(p *regexp.Regexp) bool { return p.MatchString(i.Name) })
	}
}

// hostSettings are the settings of a node by which its kernel judges.
func hostSettings(set fields.Settings, workloads []string) nft.Settings {
	out := hosts.DefaultSettings()
	for prefix := range strings.SplitSeq(set.InterfacePrefix, ",") {
		if prefix != "" {
			workloads = append(workloads, prefix+"*")
		}
	}
	slices.Sort(workloads)
	out.Workloads = slices.Compact(workloads)
	for to, said := range [...][]fields.ProtoPort{nft.Ingress: set.FailsafeInboundHostPorts, nft.Egress: set.FailsafeOutboundHostPorts} {
		if said == nil { // an empty list is said
			continue
		}
		out.Failsafe[to] = nil
		for _, p := range said {
			net, ok := failsafeNet(p.Net)
			if ok {
				out.Failsafe[to] = append(out.Failsafe[to], nft.Failsafe{Protocol: failsafeProtocol(p.Protocol), Port: p.Port, Net: net})
			}
		}
	}
	out.KeepInvalid = set.DisableConntrackInvalidCheck != nil && *set.DisableConntrackInvalidCheck
	for _, said := range []string{set.NftablesFilterDenyAction, set.IptablesFilterDenyAction} {
		out.Reject = out.Reject || felix.Word(said, "Drop", "Reject") == "Reject"
	}
	if m := cmp.Or(set.NftablesMarkMask, set.IptablesMarkMask); m != nil && bits.OnesCount32(*m) >= 2 {
		out.Mark = *m
	}
	out.LogPrefix = cmp.Or(set.LogPrefix, hosts.DefaultLogPrefix)
	limitLog(&out, set.LogActionRateLimit, set.LogActionRateLimitBurst)
	return out
}

// limitLog says how often Log rules write lines, as 10/minute; nothing is always.
func limitLog(out *nft.Settings, rate string, burst *int) {
	count, unit, _ := strings.Cut(rate, "/")
	n, err := strconv.ParseUint(count, 10, 32)
	per := map[string]time.Duration{"second": time.Second, "minute": time.Minute, "hour": time.Hour, "day": 24 * time.Hour}[unit]
	if err != nil || per == 0 {
		return
	}
	out.LogRate, out.LogPer, out.LogBurst = uint32(n), per, logBurst
	if burst != nil && *burst > 0 {
		out.LogBurst = uint32(*burst)
	}
}

// logBurst is how many lines Calico lets a rule write at once where the rate is limited.
const logBurst = 5

// failsafeNet is whom a failsafe port is for: a network, an address or, where nothing
// is said, all. It is false for what is neither, and then nobody is let in by it.
func failsafeNet(text string) (netip.Prefix, bool) {
	if text == "" {
		return netip.Prefix{}, true
	}
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	p, err := netip.ParsePrefix(text)
	return p.Masked(), err == nil
}

func failsafeProtocol(name string) uint8 {
	switch strings.ToLower(name) {
	case "udp":
		return 17
	case "sctp":
		return 132
	}
	return 6 // also where nothing is said
}

// judgeHost says who judges the uplinks' forwarded packets, and gives what brings the
// kernel up to date, nil if it is.
func (c *Core) judgeHost(update *guard.Update) func() error {
	c.hosts.Take(update.Calculated)
	change, some := c.hosts.Flush()
	byDevice := map[string]string{}
	for _, any := range []bool{true, false} { // who names a device comes before who means all
		for key := range c.own {
			placed := c.hosts.Placed(key.Name)
			for _, u := range c.local.Uplinks {
				if slices.Contains(placed, nft.AllInterfaces) && any || slices.Contains(placed, u.Device) && !any {
					byDevice[u.Device] = key.Name
				}
			}
			if some {
				c.notes.changed[key] = struct{}{}
			}
		}
	}
	c.network.SetHosts(byDevice)
	if !some || c.Kernel == nil {
		return nil
	}
	bare := change.Whole && len(change.Desired.Endpoints) == 0
	if bare {
		c.hosts.Lost() // the kernel is to have nothing at all, so the next change is whole, too
		if c.bare {
			return nil
		}
	}
	c.bare = bare
	return func() error { return c.Kernel.Apply(change) }
}

// landKernel takes how the kernel has taken a change.
func (c *Core) landKernel(err error) {
	if (err == nil) != (c.kernel == nil) {
		for key := range c.own {
			c.notes.changed[key] = struct{}{}
		}
	}
	if c.kernel = err; err == nil {
		c.judging = !c.bare
		return
	}
	pause := kernelRetry
	if errors.Is(err, nft.ErrUnsupported) {
		pause = time.Minute
	}
	if !c.bare {
		c.stats.Failures++
		c.Log.Error("the kernel has not taken what judges this host, and judges as before", "again in", pause, "error", err)
	}
	c.bare = false
	c.hosts.Lost()
	c.retry = time.After(pause)
}

// missingHost says why a host endpoint of this node is not in force.
func (c *Core) missingHost(key datastore.Key) string {
	switch {
	case len(c.hosts.Placed(key.Name)) == 0:
		return "no interface of its node has its name, or an address that it expects, or another host endpoint of the node comes first"
	case c.Kernel == nil:
		return "nobody judges the host itself: what it forwards alone is judged"
	case c.kernel != nil && !c.judging:
		return c.kernel.Error() + "; until then what processes of the host send and get is judged by nobody, or by what a former agent has left; what passes the uplinks is judged by the forwarder"
	case c.kernel != nil:
		return c.kernel.Error() + "; until then what processes of the host send and get is judged as before"
	}
	return ""
}
