// Package hot has marked functions, most of which do what they must not.
package hot

import (
	"fmt"
	"sync"
	"time"
)

type big struct{ a [64]int }

var keep = func(*big) {}

// Clean indexes, adds and panics with a constant.
//
//fastpath:hot
func Clean(v []int, i int) int {
	if i >= len(v) {
		panic("index beyond the vector")
	}
	return v[i] + 1
}

// Moves lets a local variable escape.
//
//fastpath:hot
func Moves() int {
	var b big
	keep(&b)
	return b.a[0]
}

// Unmarked may.
func Unmarked() *big {
	return new(big)
}

func fresh() *big { return &big{} }

// Inlines takes its allocation from a function that is inlined into it.
//
//fastpath:hot
func Inlines() *big {
	return fresh()
}

// Boxes hands an integer to an interface.
//
//fastpath:hot
func Boxes(n int) any {
	return n
}

// Generic is compiled where it is used.
//
//fastpath:hot
func Generic[T any](v T) *T {
	p := v
	return &p
}

// Grows appends to a slice that has no room for sure.
//
//fastpath:hot
func Grows(v []int) []int {
	return append(v, 1)
}

// Fits appends where there is room, and says so.
//
//fastpath:hot
func Fits(v []int) []int {
	// arch:cap made with room for every port
	v = append(v, 1)
	return append(v, 2) // arch:cap the same
}

// Claims gives no reason, and another waiver.
//
//fastpath:hot
func Claims(v []int) []int {
	v = append(v, 1)    // arch:cap
	return append(v, 2) // arch:long it is not about length
}

// Slow does all that needs no compiler to be seen.
//
//fastpath:hot
func Slow(c chan int, m map[int]int, mu *sync.Mutex) int {
	c <- 1
	n := <-c
	for k := range m {
		n += k
	}
	for k := range c {
		n += k
	}
	select {
	case n = <-c:
	default:
	}
	go Moves()
	mu.Lock()
	n += time.Now().Nanosecond()
	mu.Unlock()
	n += int(time.Duration(3).Seconds())
	fmt.Print()
	return n
}

//fastpath:hot

// Lost has a marker that a blank line cuts off.
func Lost() {}

// T is no function.
//
//fastpath:hot
type T int
