package nft

import (
	"bytes"
	"encoding/binary"
	"slices"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// image is what the kernel has of us, or shall have, but for the members of sets
// of addresses: chains, and what rules give literally.
type image struct {
	chains   map[string]*chain
	literals map[string]*literal
}

func newImage() *image {
	return &image{chains: map[string]*chain{}, literals: map[string]*literal{}}
}

// chain is rules in their order. One that has a hook is where packets come in.
// It does not change once it is part of an image.
type chain struct {
	hook     *hook
	rules    []rule
	literals map[string]*literal // that the rules name
}

// hook is a place in the kernel where packets are judged.
type hook struct {
	number   uint32
	priority int32
}

// rule is one rule: expressions in the kernel's form, each an attribute.
type rule struct {
	expressions []byte
	comment     string
}

func (c *chain) equal(d *chain) bool {
	return c == d || slices.EqualFunc(c.rules, d.rules, func(a, b rule) bool {
		return a.comment == b.comment && bytes.Equal(a.expressions, b.expressions)
	})
}

// literal is a set, or a map to verdicts, that never changes: its name says what
// is in it. A counter is kept as one, too.
type literal struct {
	kind     kind
	elements []element
}

// kind is what sets have as keys.
type kind struct {
	name     string
	datatype nftables.SetDatatype
	interval bool
	verdicts bool // it is a map
	native   bool // tools take the key for a number of this machine's
	counter  bool // it is no set, but a counter
}

// element is one key of a set, or the first key behind a range.
type element struct {
	key     []byte
	end     bool
	verdict *verdict
	timeout time.Duration // 0: for ever
}

// verdict is what becomes of a packet: a code of netfilter's, and the chain where
// it goes on.
type verdict struct {
	code  int32
	chain string
}

// turn writes what makes next of now.
func (b *batch) turn(now, next *image) {
	var fresh []string
	sets, maps := split(missing(next.literals, now.literals), next.literals)
	b.literals(sets, next.literals)
	for _, name := range missing(next.chains, now.chains) {
		b.newChain(name, next.chains[name].hook)
		fresh = append(fresh, name)
	}
	b.literals(maps, next.literals) // they name chains
	for name, is := range next.chains {
		if was := now.chains[name]; was != nil && !was.equal(is) {
			fresh = append(fresh, name)
		}
	}
	slices.Sort(fresh)
	for _, name := range fresh {
		if now.chains[name] != nil {
			b.flushChain(name)
		}
		for _, r := range next.chains[name].rules {
			b.newRule(name, r)
		}
	}
	dead := missing(now.chains, next.chains)
	for _, name := range dead {
		b.flushChain(name)
	}
	for _, name := range missing(now.literals, next.literals) {
		if now.literals[name].kind.counter {
			b.deleteCounter(name)
		} else {
			b.deleteSet(name)
		}
	}
	for _, name := range dead {
		b.deleteChain(name)
	}
}

// missing are the names in a that b does not have, sorted.
func missing[V any](a, b map[string]V) []string {
	var out []string
	for name := range a {
		if _, ok := b[name]; !ok {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// split tells sets from maps to verdicts.
func split(names []string, literals map[string]*literal) (sets, maps []string) {
	for _, name := range names {
		if literals[name].kind.verdicts {
			maps = append(maps, name)
		} else {
			sets = append(sets, name)
		}
	}
	return sets, maps
}

func (b *batch) literals(names []string, literals map[string]*literal) {
	for _, name := range names {
		if literals[name].kind.counter {
			b.newCounter(name)
			continue
		}
		b.newSet(name, literals[name].kind, "", 0)
		b.elements(unix.NFT_MSG_NEWSETELEM, name, literals[name].elements)
	}
}

// empty reports whether nothing is to be done.
func (b *batch) empty() bool { return b.messages == 0 }

// inet is the family of our table: both.
const inet = uint8(unix.NFPROTO_INET)

func (b *batch) newTable() {
	b.message(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, inet, func() { b.text(unix.NFTA_TABLE_NAME, b.table) })
}

func (b *batch) deleteTable() {
	b.message(unix.NFT_MSG_DELTABLE, 0, inet, func() { b.text(unix.NFTA_TABLE_NAME, b.table) })
}

func (b *batch) newChain(name string, h *hook) {
	b.message(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, inet, func() {
		b.text(unix.NFTA_CHAIN_TABLE, b.table)
		b.text(unix.NFTA_CHAIN_NAME, name)
		if h == nil {
			return
		}
		b.nest(unix.NFTA_CHAIN_HOOK, func() {
			b.number(unix.NFTA_HOOK_HOOKNUM, h.number)
			b.number(unix.NFTA_HOOK_PRIORITY, uint32(h.priority))
		})
		b.text(unix.NFTA_CHAIN_TYPE, "filter")
		b.number(unix.NFTA_CHAIN_POLICY, uint32(codeAccept))
	})
}

func (b *batch) deleteChain(name string) {
	b.message(unix.NFT_MSG_DELCHAIN, 0, inet, func() {
		b.text(unix.NFTA_CHAIN_TABLE, b.table)
		b.text(unix.NFTA_CHAIN_NAME, name)
	})
}

// flushChain takes all rules of a chain away.
func (b *batch) flushChain(name string) {
	b.message(unix.NFT_MSG_DELRULE, 0, inet, func() {
		b.text(unix.NFTA_RULE_TABLE, b.table)
		b.text(unix.NFTA_RULE_CHAIN, name)
	})
}

func (b *batch) newRule(chain string, r rule) {
	b.message(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, inet, func() {
		b.text(unix.NFTA_RULE_TABLE, b.table)
		b.text(unix.NFTA_RULE_CHAIN, chain)
		b.nest(unix.NFTA_RULE_EXPRESSIONS, func() { b.buf = append(b.buf, r.expressions...) })
		if r.comment != "" {
			b.attr(unix.NFTA_RULE_USERDATA, comment(userdataRuleComment, r.comment))
		}
	})
}

// Types of what tools keep with rules and sets, in the form that nft reads.
const (
	userdataRuleComment = 0
	userdataSetKeyOrder = 0
	userdataSetComment  = 7
	keyOrderNative      = 1
	longestComment      = 127
)

func comment(kind byte, s string) []byte {
	s = s[:min(len(s), longestComment)]
	return append(append([]byte{kind, byte(len(s) + 1)}, s...), 0)
}

// newSet makes a set; about is for people, and flags are those of the kernel that
// do not follow from the kind.
func (b *batch) newSet(name string, k kind, about string, flags uint32) {
	if k.interval {
		flags |= unix.NFT_SET_INTERVAL
	}
	if k.verdicts {
		flags |= unix.NFT_SET_MAP
	}
	b.message(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, inet, func() {
		b.sets++
		b.text(unix.NFTA_SET_TABLE, b.table)
		b.text(unix.NFTA_SET_NAME, name)
		b.number(unix.NFTA_SET_FLAGS, flags)
		b.number(unix.NFTA_SET_KEY_TYPE, k.datatype.GetNFTMagic())
		b.number(unix.NFTA_SET_KEY_LEN, k.datatype.Bytes)
		b.number(unix.NFTA_SET_ID, b.sets)
		if k.verdicts {
			b.number(unix.NFTA_SET_DATA_TYPE, unix.NFT_DATA_VERDICT)
			b.number(unix.NFTA_SET_DATA_LEN, 0)
		}
		var userdata []byte
		if k.native {
			userdata = append([]byte{userdataSetKeyOrder, 4}, native(keyOrderNative)...)
		}
		if about != "" {
			userdata = append(userdata, comment(userdataSetComment, about)...)
		}
		if userdata != nil {
			b.attr(unix.NFTA_SET_USERDATA, userdata)
		}
	})
}

func (b *batch) deleteSet(name string) {
	b.message(unix.NFT_MSG_DELSET, 0, inet, func() {
		b.text(unix.NFTA_SET_TABLE, b.table)
		b.text(unix.NFTA_SET_NAME, name)
	})
}

// emptySet takes all elements of a set away.
func (b *batch) emptySet(name string) {
	b.message(unix.NFT_MSG_DELSETELEM, 0, inet, func() {
		b.text(unix.NFTA_SET_ELEM_LIST_TABLE, b.table)
		b.text(unix.NFTA_SET_ELEM_LIST_SET, name)
	})
}

// elementsAtOnce is how many elements a message has: an attribute ends at 64 KiB.
const elementsAtOnce = 512

// elements lets elements join or leave a set, which kind of message says.
func (b *batch) elements(message uint16, set string, elements []element) {
	for some := range slices.Chunk(elements, elementsAtOnce) {
		b.message(message, unix.NLM_F_CREATE, inet, func() {
			b.text(unix.NFTA_SET_ELEM_LIST_TABLE, b.table)
			b.text(unix.NFTA_SET_ELEM_LIST_SET, set)
			b.nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func() {
				for _, e := range some {
					b.nest(unix.NFTA_LIST_ELEM, func() { b.element(e) })
				}
			})
		})
	}
}

func (b *batch) element(e element) {
	b.nest(unix.NFTA_SET_ELEM_KEY, func() { b.attr(unix.NFTA_DATA_VALUE, e.key) })
	if v := e.verdict; v != nil {
		b.nest(unix.NFTA_SET_ELEM_DATA, func() {
			b.nest(unix.NFTA_DATA_VERDICT, func() {
				b.number(unix.NFTA_VERDICT_CODE, uint32(v.code))
				if v.chain != "" {
					b.text(unix.NFTA_VERDICT_CHAIN, v.chain)
				}
			})
		})
	}
	if e.end {
		b.number(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
	}
	if e.timeout > 0 {
		b.attr(unix.NFTA_SET_ELEM_TIMEOUT, binary.BigEndian.AppendUint64(nil, uint64(e.timeout.Milliseconds())))
	}
}
