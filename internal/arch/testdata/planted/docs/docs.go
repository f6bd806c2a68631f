// Package docs has names with and without a sentence.
package docs

// Said has one.
func Said() {}

func Unsaid() {}

// Half a sentence
func HalfSaid() {}

// Drawn is explained by a drawing:
//
//	a ──► b
func Drawn() {}

// Led holds a sentence. It is led on by
//
//	a drawing
func Led() {}

//go:noinline
func Directed() {}

// T has methods.
type T struct{}

func (T) String() string { return "" }

func (*T) Unsaid() {}

type hidden struct{}

func (hidden) Exported() {}

type U int // behind the name will do

type V int

// The group speaks for its names.
const (
	A = 1
	B = 2
)

const (
	C = 1 // said behind it
	D = 2
	e = 3
)

const (
	// G and H stand together.
	G = 1
	H = 2

	I = 3
)

var F = 1
