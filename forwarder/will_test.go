package forwarder

import (
	"encoding/binary"
	"strings"
	"testing"
)

// parts is an image of these.
func parts(all ...string) []byte {
	var image []byte
	for _, p := range all {
		image = append(binary.BigEndian.AppendUint64(image, uint64(len(p))), p...)
	}
	return image
}

const goodWill = `{"Version":1,"Estate":{"Generation":7},"Doors":{},"StateDir":"/x"}`

func TestWillsThatCannotBeRead(t *testing.T) {
	if w, s, err := readWill(parts(goodWill)); err != nil || w.Estate.Generation != 7 || s == nil {
		t.Fatalf("a will without chunks: %v, %v, %v", w, s, err)
	}
	tests := map[string]struct {
		image []byte
		want  string
	}{
		"nothing":            {nil, "it is empty"},
		"half a length":      {[]byte{0, 0, 0}, "part 0 is cut off"},
		"an absurd length":   {[]byte{255, 255, 255, 255, 255, 255, 255, 255, '{'}, "part 0 is cut off"},
		"a chunk cut off":    {parts(goodWill, "0123456789")[:len(parts(goodWill))+12], "part 1 is cut off"},
		"no JSON":            {parts("no"), "invalid character"},
		"no estate":          {parts(`{"Version":1}`), "there is no estate"},
		"another version":    {parts(strings.Replace(goodWill, "1", "2", 1)), "of version 2 and this forwarder reads 1"},
		"no version":         {parts(`{"Estate":{}}`), "of version 0"},
		"a chunk of rubbish": {parts(goodWill, "\xff\xff\xff"), "read record 0"},
	}
	for name, tt := range tests {
		if _, _, err := readWill(tt.image); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want a word on %q", name, err, tt.want)
		}
	}
}

// Whatever the bytes are, reading them ends and breaks nothing.
func FuzzWill(f *testing.F) {
	f.Add(parts(goodWill))
	f.Add(parts(goodWill, "", "\x0a\x00"))
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 1, '{'})
	f.Fuzz(func(t *testing.T, image []byte) {
		if w, s, err := readWill(image); err == nil && (w.Estate == nil || s == nil) {
			t.Error("a will was read that leaves nothing")
		}
	})
}
