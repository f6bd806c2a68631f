package plane

import (
	"errors"
	"net/netip"

	"margay.dev/margay/fastpath/xsk"
	"margay.dev/margay/forwarder/desired"
)

// SteeringSource gives the map of what is ours to a port that shares its device
// with the kernel.
type SteeringSource func() (*xsk.Steering, error)

// steeringSource makes the steering maps when the first port needs them. mu is held.
func (p *Plane) steeringSource() (*xsk.Steering, error) {
	if p.steering == nil {
		s, err := xsk.NewSteering()
		if err != nil {
			return nil, err
		}
		p.steering = s
		if err := p.writeSteering(); err != nil {
			return nil, err
		}
	}
	return p.steering, nil
}

// convergeSteering brings the maps, once there are any, to what is wanted.
func (p *Plane) convergeSteering() {
	if p.steering == nil {
		return
	}
	if err := p.writeSteering(); err != nil {
		p.note("steering", ReasonHost, err.Error())
	} else {
		p.note("steering", "", "")
	}
}

func (p *Plane) writeSteering() error {
	errs := faults{}
	errs.add(p.writeOwned(ownedPrefixes(&p.want.Steering)))
	wanted := map[xsk.Service]bool{}
	for _, s := range p.want.Steering.Services {
		wanted[xsk.Service{Proto: s.Protocol, Low: s.First, High: s.Last}] = true
	}
	for _, s := range p.steering.Services() {
		if !wanted[s] {
			errs.add(gone(p.steering.DeleteService(s.Proto, s.Low, s.High)))
		}
		delete(wanted, s)
	}
	for s := range wanted {
		errs.add(p.steering.SetService(s.Proto, s.Low, s.High))
	}
	return errs.err()
}

func (p *Plane) writeOwned(wanted map[netip.Prefix]xsk.Ownership) error {
	errs := faults{}
	have := map[netip.Prefix]xsk.Ownership{}
	for _, o := range p.steering.Prefixes() {
		have[o.Prefix] = o.Ownership
		if _, keep := wanted[o.Prefix]; !keep {
			errs.add(gone(p.steering.DeletePrefix(o.Prefix)))
		}
	}
	for prefix, o := range wanted {
		if have[prefix] != o {
			errs.add(p.steering.SetPrefix(prefix, o))
		}
	}
	return errs.err()
}

func ownedPrefixes(s *desired.Steering) map[netip.Prefix]xsk.Ownership {
	out := map[netip.Prefix]xsk.Ownership{}
	for _, a := range s.Local {
		out[netip.PrefixFrom(a, a.BitLen())] = xsk.Local
	}
	for _, prefix := range s.Prefixes {
		out[prefix] = xsk.Whole
	}
	return out
}

// gone takes "was not set" for done.
func gone(err error) error {
	if errors.Is(err, xsk.ErrNotSet) {
		return nil
	}
	return err
}
