// Package size is too long in every way, by limits made for it.
package size

// Long has six lines.
func Long() int {
	n := 1
	n++
	n++
	return n
}

// Short has three.
func Short() int {
	return 3
}

// Reasoned has six lines.
//
// arch:long the six steps are one thought
func Reasoned() int {
	n := 1
	n++
	n++
	return n
}

// Unreasoned has six lines, and a waiver that gives no reason.
//
// arch:long
func Unreasoned() int {
	n := 1
	n++
	n++
	return n
}
