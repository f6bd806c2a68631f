package flow

import (
	"testing"
	"unsafe"
)

func TestSizesOfWhatIsShared(t *testing.T) {
	for name, size := range map[string][2]uintptr{
		"head fits its page": {min(unsafe.Sizeof(head{}), headSize), unsafe.Sizeof(head{})},
		"side":               {unsafe.Sizeof(side{}), lineSize},
		"core":               {unsafe.Sizeof(core{}), lineSize},
		"rest":               {unsafe.Sizeof(rest{}), lineSize},
		"entry":              {unsafe.Sizeof(entry{}), entrySize},
		"bucket":             {unsafe.Sizeof(bucket{}), lineSize},
		"datagram":           {unsafe.Sizeof(datagram{}), 128},
		"fragmentSet":        {unsafe.Sizeof(fragmentSet{}), fragmentSetSize},
		"freed has a line":   {unsafe.Offsetof(head{}.freed) % lineSize, 0},
		"intake has a line":  {unsafe.Offsetof(head{}.intake) % lineSize, 0},
		"owner has a line":   {unsafe.Offsetof(head{}.wheelNow) % lineSize, 0},
	} {
		if size[0] != size[1] {
			t.Errorf("%s: %d, want %d", name, size[0], size[1])
		}
	}
}
