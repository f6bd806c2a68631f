package label

import (
	"net/netip"
	"testing"
)

// A class is as old as what it holds: one whose number is used again is young.
func TestClassesAreAsOldAsWhatTheyHold(t *testing.T) {
	for name, addr := range map[string]string{"IPv4": "10.0.0.1", "IPv6": "2001:db8::1"} {
		t.Run(name, func(t *testing.T) {
			a, tab := netip.MustParseAddr(addr), New(nil)
			host := netip.PrefixFrom(a, a.BitLen())
			age := func() (Class, uint64) { v := tab.View(); c := v.Lookup(a); return c, v.Born(c) }
			do := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			if c, born := age(); c != 0 || born != 0 {
				t.Errorf("without sets the class is %d of age %d, want 0 of 0", c, born)
			}
			tab.BirthsAt(5)
			do(tab.Join(1, host))
			first, born := age()
			if born != 5 {
				t.Errorf("the class was born in %d, want 5", born)
			}
			tab.BirthsAt(6)
			do(tab.Join(1, host)) // it is in the set twice, which is no other class
			if c, born := age(); c != first || born != 5 {
				t.Errorf("class %d of age %d, want %d of 5", c, born, first)
			}
			do(tab.Join(2, host))
			if c, born := age(); c == first || born != 6 {
				t.Errorf("class %d of age %d, want another than %d, of 6", c, born, first)
			}
			tab.Reclaim()
			tab.BirthsAt(7)
			do(tab.Join(3, host))
			if c, born := age(); c != first || born != 7 {
				t.Errorf("class %d of age %d, want the number %d again, of 7", c, born, first)
			}
		})
	}
}
