package guard

import (
	"slices"

	v1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/policy"
)

// Judge gives an endpoint the stages that judge it, and those that would. Who makes
// the endpoint of a host says so there (host): until it is judged nothing is forwarded.
func (s *Stages) Judge(e *v1.Endpoint) {
	e.Policy = v1.Endpoint_POLICY_ENFORCED
	if s.off {
		e.Policy = v1.Endpoint_POLICY_OFF
	}
	e.Egress, e.Ingress = s.Egress, s.Ingress
	e.StagedEgress, e.StagedIngress = s.StagedEgress, s.StagedIngress
}

// staged is a judgement with the staged policies in force, as stages: none where
// that makes no difference, or where a list of them does not fit, which keeps
// nothing else from being in force. One without tiers and profiles has a stage all
// the same, which decides nothing, since none would say that nothing is staged.
func (m *making) staged(now, old *policy.Judgement) []*v1.Stage {
	if now.Staged == nil {
		return nil
	}
	would := func(j *policy.Judgement) *policy.Judgement {
		return &policy.Judgement{Tiers: j.Staged, Profiles: j.Profiles, End: j.End}
	}
	if old.Staged == nil {
		old = now
	} else {
		old = would(old)
	}
	before := len(m.made.programs)
	out, err := m.judgement(would(now), old)
	if err != nil {
		m.gone = append(m.gone, &Stages{programs: slices.Clone(m.made.programs[before:])})
		m.made.programs, m.made.unstaged = m.made.programs[:before], err
		return nil
	}
	if len(out) == 0 {
		out = []*v1.Stage{{UndecidedPasses: true}}
	}
	return out
}
