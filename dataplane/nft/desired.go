package nft

import (
	"net/netip"
	"time"

	"margay.dev/margay/classifier"
)

// Direction is of traffic, seen from the host.
type Direction uint8

// The directions, numbered as those of package policy.
const (
	Ingress Direction = iota
	Egress
)

// AllInterfaces is the interface of an endpoint that stands for each that has no
// endpoint of its own, and is not a workload's.
const AllInterfaces = "*"

// Change is what differs from what was given before. All of it comes into force
// at once, or nothing of it.
type Change struct {
	// Whole says that nothing of what was given before holds: Desired is given, and
	// Sets are all that there are, each with all its members. The first change of a
	// Table is taken as whole.
	Whole bool
	// Desired is in the place of what was; nil leaves it as it is. Lists that are
	// the same memory as before are not written again.
	Desired *Desired
	// Sets are changes of sets that rules name, or are about to; a set is made by
	// its first change. Members are kept whatever lists name them: give those that
	// some list names alone.
	Sets []SetChange
	// Gone are sets that no list names any more.
	Gone []classifier.SetID
}

// SetChange is what joined and left one set. Prefixes may cover each other. One
// that joins twice is in the set once; one that leaves need not be there.
type SetChange struct {
	ID           classifier.SetID
	Name         string // what is in it, for people
	Joined, Left []netip.Prefix
}

// Desired is who is judged, and how.
type Desired struct {
	Endpoints []Endpoint // at most one of each interface
	Settings  Settings
}

// Endpoint is what judges the traffic of one interface. Where a judgement is nil,
// nothing is asked at that place; Normal and Forward of an endpoint that is to
// deny everything must say so.
type Endpoint struct {
	Name      string // for people
	Interface string // as the kernel names it, or AllInterfaces
	// Normal is for what the host's own processes send and get.
	Normal [2]*Judgement
	// Forward is for what the kernel forwards from, or to, the interface.
	Forward [2]*Judgement
	// Untracked is for all that arrives, and what the host's processes send, before
	// connections are tracked. What it allows is not tracked.
	Untracked [2]*Judgement
	// PreDNAT is for all that arrives, before destinations are translated.
	PreDNAT *Judgement
}

// Judgement is lists that are asked one after the other. It must not change once
// it was given.
type Judgement struct {
	Tiers []Tier
	End   classifier.Action // of what none decides: Allow or Deny, or Pass where a later judgement decides
}

// Tier is one list for each family, and what becomes of packets that no rule of
// it decides. Profiles are tiers that end with Pass.
type Tier struct {
	Name   string // for people
	V4, V6 []classifier.Rule
	End    classifier.Action // Deny or Pass
}

// Settings are what holds for all endpoints.
type Settings struct {
	// Failsafe is what passes before policy, by Direction, in normal judgements and
	// those before tracking and translation; forwarded traffic has none.
	Failsafe [2][]Failsafe
	// Workloads are interfaces that AllInterfaces does not stand for: names, or what
	// names begin with and then "*".
	Workloads []string
	Tunnels   Tunnels
	// KeepInvalid lets rules judge packets of which connection tracking says that they
	// belong to nothing and begin nothing. They are dropped otherwise.
	KeepInvalid bool
	// Reject answers what is denied with an ICMP error; it is dropped silently
	// otherwise. Before tracking and translation packets are always dropped.
	Reject bool
	// Mark is bits of packets' marks that nobody else uses, two at least: the lowest
	// tells a later stage what an earlier one has allowed, the next one is set while
	// lists are asked. 0 is DefaultMark.
	Mark uint32
	// LogRate is how many lines each Log rule may write in LogPer (a second, a minute, an
	// hour or a day; 0: a second), LogBurst how many at once beyond that; 0 as a rate is no
	// limit.
	LogRate, LogBurst uint32
	LogPer            time.Duration
	// LogPrefix is what Options.Prefix is given.
	LogPrefix string
}

// DefaultMark is the lowest two of the bits that Calico takes.
const DefaultMark = 3 << 16

// Failsafe is a port that policy cannot close. Net limits it to the remote
// addresses within; the zero prefix is any.
type Failsafe struct {
	Protocol uint8 // as in an IP header
	Port     uint16
	Net      netip.Prefix
}

// Tunnels are those of the kernel between nodes, whose packets pass before policy
// of host endpoints. IPIP and VXLAN pass from and to Hosts alone; from others they
// are dropped, whether there are endpoints or not.
type Tunnels struct {
	Hosts     []netip.Addr // of other nodes, both families
	IPIP      bool
	VXLAN     []uint16 // UDP ports
	WireGuard []uint16 // UDP ports
}
