package graph

import (
	"fmt"
	"slices"
	"strings"
)

// MarshalText writes the names of the flags that are set, with commas between.
func (f Flags) MarshalText() ([]byte, error) {
	if f>>len(flagNames) != 0 {
		return nil, fmt.Errorf("write flags of a packet: %#x has bits without a name", uint16(f))
	}
	return []byte(strings.Join(f.Names(), ",")), nil
}

// UnmarshalText reads what MarshalText wrote. A name that this version does not
// have is an error: it would take the packet for another one than it is.
func (f *Flags) UnmarshalText(text []byte) error {
	*f = 0
	for name := range strings.SplitSeq(string(text), ",") {
		if name == "" {
			continue
		}
		i := slices.Index(flagNames[:], name)
		if i < 0 {
			return fmt.Errorf("read flags of a packet: %q is not known to this version", name)
		}
		*f |= 1 << i
	}
	return nil
}

var gsoNames = [...]string{GSONone: "none", GSOTCP4: "tcp4", GSOTCP6: "tcp6", GSOUDP: "udp"}

// MarshalText writes the kind's name.
func (k GSOKind) MarshalText() ([]byte, error) {
	if int(k) >= len(gsoNames) {
		return nil, fmt.Errorf("write kind of a superpacket: %d has no name", k)
	}
	return []byte(gsoNames[k]), nil
}

// UnmarshalText reads a kind's name. One that this version does not have is an
// error.
func (k *GSOKind) UnmarshalText(text []byte) error {
	i := slices.Index(gsoNames[:], string(text))
	if i < 0 {
		return fmt.Errorf("read kind of a superpacket: %q is not known to this version", text)
	}
	*k = GSOKind(i)
	return nil
}

// MarshalText writes the reason's name.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads a reason's name; one that this version does not have is
// Former.
func (r *Reason) UnmarshalText(text []byte) error {
	*r = Reason(placeOf(string(text), Reasons, reasonName, int(Former)))
	return nil
}
