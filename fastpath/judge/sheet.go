package judge

import (
	"iter"
	"sync"
	"sync/atomic"

	"margay.dev/margay/classifier"
)

// MaxNumber is the greatest number that a Tally counts by.
const MaxNumber = classifier.MaxRuleID

const (
	pageBits = 12
	pages    = 1 << (24 - pageBits)
)

// sheet is what one worker has for each number. Its pages come into being before
// anything is in force that needs them, and stay: numbers are given again. What
// nobody expected has the place of number 0.
type sheet[T any] [pages]atomic.Pointer[[1 << pageBits]T]

// at is the place of a number.
//
//fastpath:hot
func (s *sheet[T]) at(n uint32) *T {
	p := s[n>>pageBits&(pages-1)].Load()
	if p == nil {
		p, n = s[0].Load(), 0
	}
	return &p[n&(1<<pageBits-1)]
}

// pad is the sheets of all workers.
type pad[T any] struct {
	mu     sync.Mutex
	sheets []*sheet[T]
	paged  [pages]bool // what every sheet has, beside the first page
}

// join makes another worker's sheet.
func (p *pad[T]) join() *sheet[T] {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := &sheet[T]{}
	for i := range s {
		if i == 0 || p.paged[i] {
			s[i].Store(&[1 << pageBits]T{})
		}
	}
	p.sheets = append(p.sheets, s)
	return s
}

// Expect makes room for numbers, before anything is in force that uses them.
// Those above MaxNumber are passed over.
func (p *pad[T]) Expect(numbers iter.Seq[uint32]) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for n := range numbers {
		i := n >> pageBits
		if i == 0 || n > MaxNumber || p.paged[i] {
			continue
		}
		p.paged[i] = true
		for _, s := range p.sheets {
			s[i].Store(&[1 << pageBits]T{})
		}
	}
}

// each shows the places that workers have for a number.
func (p *pad[T]) each(n uint32, show func(*T)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.sheets {
		if page := s[n>>pageBits&(pages-1)].Load(); page != nil && n <= MaxNumber {
			show(&page[n&(1<<pageBits-1)])
		}
	}
}

// has says whether there is a page for the numbers from i << pageBits on.
func (p *pad[T]) has(i uint32) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.paged[i]
}
