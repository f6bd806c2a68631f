package policy

import (
	"net/netip"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/classifier"
)

// Key names an object. Policies that were converted from another API keep its
// kind, which is theirs in ordering too.
type Key struct{ Kind, Namespace, Name string }

// String is kind namespace/name, without the namespace where there is none.
func (k Key) String() string {
	if k.Namespace == "" {
		return k.Kind + " " + k.Name
	}
	return k.Kind + " " + k.Namespace + "/" + k.Name
}

// Direction is of traffic, seen from the endpoint.
type Direction uint8

// The directions.
const (
	Ingress Direction = iota
	Egress
)

// String is the direction as api/v3 writes it.
func (d Direction) String() string {
	if d == Ingress {
		return string(v3.PolicyTypeIngress)
	}
	return string(v3.PolicyTypeEgress)
}

// Changes are what one Flush found different from the one before. To apply them
// without a moment of anything that neither state allows: let the members of
// Sets join, put Endpoints in force, let members leave, forget GoneSets, and
// when nobody looks at the state before any more, call Settled.
type Changes struct {
	Generation uint64 // counts the calls of Flush from 1
	Sets       []SetChange
	GoneSets   []classifier.SetID // no list names them any more; their members left
	Endpoints  []*Endpoint        // by key; one without judgements is judged no longer
	Rules      []uint32           // ids of rules that have another place now than Rule said, ascending
	Conditions []Condition        // by key

	// NewDomains are patterns of names of hosts, in canonical form, that a network set
	// has and none had before; until SetDomain says more, their names have no addresses.
	// GoneDomains are those that none has any more. Both are sorted. Domains has them
	// before Flush.
	NewDomains, GoneDomains []string
}

// SetChange is addresses that joined and left one set; a set is new when its
// first change is told. An empty set may be told, and a set may hold prefixes of
// which one covers another.
type SetChange struct {
	ID           classifier.SetID
	Name         string // what is in it, for people; equal names are equal sets
	Joined, Left []netip.Prefix
}

// Condition is what cannot be understood of an object, and what stands in for
// it. Without faults it tells that there are none any more.
type Condition struct {
	Object Key
	Faults []string
}

// Endpoint is what judges one endpoint's packets, by Direction. Each has a
// judgement of normal traffic; only host endpoints have the others. A judgement
// that did not change is the same pointer as before.
type Endpoint struct {
	Key Key
	// Normal is for traffic of the endpoint itself.
	Normal [2]*Judgement
	// Forward is for what the host forwards through the endpoint.
	Forward [2]*Judgement
	// Untracked is for all of it, before connections are tracked.
	Untracked [2]*Judgement
	// PreDNAT is for what arrives, before destinations are translated: Ingress alone.
	PreDNAT [2]*Judgement
}

// Judgement is the lists that judge packets one after the other: tiers, then
// profiles. It does not change once it was told.
type Judgement struct {
	Tiers []Tier
	// Staged is Tiers as they would be with the staged policies in force; nil where
	// that makes no difference. It is for reports: never enforce it.
	Staged []Tier
	// Profiles: each is asked where the one before passes, or has no rule that
	// matches.
	Profiles []*List
	// End is what becomes of what none of them decides: Deny; for forwarded traffic
	// Allow; Pass before tracking and translation, where later judgements decide.
	End classifier.Action
}

// Tier is the policies of one tier that govern the endpoint and direction, as
// one list.
type Tier struct {
	Name  string
	Rules *List
	End   classifier.Action // of what no rule decides: Deny or Pass
}

// List is rules of which the first that matches decides, for each family. It
// does not change, and who has the same rules has the same list: compile it once.
// Where no rule is of one family alone, V4 and V6 are one slice.
type List struct {
	V4, V6 []classifier.Rule
}

// RuleRef says which rule of which object an id stands for.
type RuleRef struct {
	Object    Key
	Tier      string // empty: the rule is a profile's
	Staged    bool   // it is never enforced
	Direction Direction
	Index     int     // in the object's rules of the direction; -1: it stands for an object that is missing, or cannot be understood
	StandsIn  bool    // it denies everything, in the place of what is missing or cannot be understood
	Rule      v3.Rule // as the object has it
}
