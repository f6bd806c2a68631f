package plane

import (
	"errors"
	"maps"
	"slices"
	"strings"

	pb "margay.dev/margay/api/dataplane/v1"
)

// Condition tells whether an object that was accepted is in force.
type Condition struct {
	Object  string // "port/eth0", "host-port", "steering", ...
	OK      bool
	Reason  string // for programs: "device-missing"
	Message string // for people
}

// The reasons of conditions that are not ok.
const (
	ReasonDeviceMissing = "device-missing"
	ReasonDeviceFailed  = "device-failed"
	ReasonDeviceDown    = "device-down"
	ReasonFewFrames     = "few-frames"
	ReasonHost          = "host-refused"
	ReasonTables        = "tables-refused"
	ReasonStateFile     = "state-file"
)

// conditions are those that are not ok, and who wants to hear of changes.
type conditions struct {
	now  map[string]Condition
	hear []func(Condition)
}

// note records the condition of an object: ok when reason is empty. Listeners
// hear of it when it has changed.
func (p *Plane) note(object, reason, message string) {
	c := Condition{Object: object, OK: reason == "", Reason: reason, Message: message}
	was, bad := p.conditions.now[object]
	if c.OK && !bad || was == c {
		return
	}
	if c.OK {
		delete(p.conditions.now, object)
		p.log.Info("in force again", "object", object)
	} else {
		p.conditions.now[object] = c
		p.log.Warn("not in force", "object", object, "reason", reason, "message", message)
	}
	for _, h := range p.conditions.hear {
		if h != nil {
			h(c)
		}
	}
}

// Note records a condition that somebody else knows of: ok when reason is empty.
func (p *Plane) Note(object, reason, message string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.note(object, reason, message)
}

// Conditions lists those that are not ok, by object.
func (p *Plane) Conditions() []Condition {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.conditionList()
}

func (p *Plane) conditionList() []Condition {
	return slices.SortedFunc(maps.Values(p.conditions.now), func(a, b Condition) int { return strings.Compare(a.Object, b.Object) })
}

// Listen calls hear for each condition that is not ok, and from then on for
// each change, until stop is called. hear must not block nor call the Plane.
func (p *Plane) Listen(hear func(Condition)) (stop func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conditionList() {
		hear(c)
	}
	at := len(p.conditions.hear)
	p.conditions.hear = append(p.conditions.hear, hear)
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.conditions.hear[at] = nil
		for n := len(p.conditions.hear); n > 0 && p.conditions.hear[n-1] == nil; n-- {
			p.conditions.hear = p.conditions.hear[:n-1]
		}
	}
}

// faults gathers errors.
type faults []error

func (f *faults) add(err error) {
	if err != nil {
		*f = append(*f, err)
	}
}

func (f *faults) err() error { return errors.Join(*f...) }

// Proto is the condition as the contract tells it.
func (c Condition) Proto() *pb.Condition {
	return &pb.Condition{Object: c.Object, Ok: c.OK, Reason: c.Reason, Message: c.Message}
}
