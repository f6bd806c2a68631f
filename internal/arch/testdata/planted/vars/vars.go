// Package vars has variables that change, and some that do not.
package vars

import (
	"errors"
	"regexp"
	"sync"
	"sync/atomic"
)

// These pass.
var (
	ErrGone       = errors.New("gone")
	table         = [4]int{1, 2, 3, 4}
	names         = map[string]int{"a": 1}
	word          = regexp.MustCompile(`\w+`)
	_       error = (*wrapped)(nil)
	tree          = &node{left: &node{}}
	scratch int   // arch:var the test of the waiver counts in it
)

// These do not.
var (
	lock    sync.Mutex
	count   atomic.Int64
	done    = make(chan struct{})
	flag    = new(bool)
	guarded struct {
		sync.RWMutex
		n int
	}
	pool = &sync.Pool{}

	// Shared is written by another package.
	Shared int

	plain   int
	seen    = map[string]bool{}
	rows    []int
	first   [4]int
	bits    set
	pointed = &node{}
	ranged  int
	handed  int
	cleared = map[int]int{}
)

type wrapped struct{}

func (*wrapped) Error() string { return "" }

type node struct {
	left *node
	n    int
}

type set uint64

func (s *set) add(i int)      { *s |= 1 << i }
func (s set) has(i int) bool  { return s&(1<<i) != 0 }
func (n *node) depth() int    { return n.n }
func reads(i int) (int, bool) { return table[i] + names["a"] + tree.depth(), bits.has(i) }

func writes(in []int) *int {
	plain = 1
	seen["a"] = true
	rows = append(rows, 1)
	first[1]++
	bits.add(3)
	pointed.left.n = 2
	for ranged = range in {
		plain := ranged // a local of the same name
		plain++
	}
	delete(cleared, 1)
	copy(rows[1:], in)
	scratch++
	return &handed
}
