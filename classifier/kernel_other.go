//go:build !amd64

package classifier

// runs reports whether this CPU can run the walker.
func (w Walker) runs() bool { return w == Portable }

// walk leaves in out the ranks of up to Burst keys.
//
//fastpath:hot
func (p *Program) walk(keys []Key, out []Verdict) { p.burst(keys, out) }

// walkOne is the rank of the rule that decides.
//
//fastpath:hot
func (p *Program) walkOne(k *Key) uint32 { return p.rank(k) }
