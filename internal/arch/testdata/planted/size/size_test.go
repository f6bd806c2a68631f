package size

import "testing"

func TestRowsDoNotCount(t *testing.T) {
	for _, want := range []int{
		1,
		2,
		3,
	} {
		_ = want
	}
}

func TestLong(t *testing.T) {
	t.Log(1)
	t.Log(2)
	t.Log(3)
	t.Log(4)
	t.Log(5)
}
