package fibtest

import (
	"net/netip"
	"slices"
	"testing"
)

func TestTablesLookLikeTheInternets(t *testing.T) {
	tests := map[string]struct {
		draw   func(int, uint64) []netip.Prefix
		common int     // the most common length
		share  float64 // of it
	}{
		"IPv4": {Internet4, 24, 0.59},
		"IPv6": {Internet6, 48, 0.45},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			const n = 20_000
			routes := tt.draw(n, 1)
			if !slices.Equal(routes, tt.draw(n, 1)) {
				t.Error("the same seed drew another table")
			}
			if slices.Equal(routes, tt.draw(n, 2)) {
				t.Error("another seed drew the same table")
			}
			seen, common := map[netip.Prefix]bool{}, 0
			for _, p := range routes {
				if p != p.Masked() || seen[p] {
					t.Fatalf("%v has host bits or comes twice", p)
				}
				seen[p] = true
				if p.Bits() == tt.common {
					common++
				}
			}
			if got := float64(common) / n; got < tt.share-0.03 || got > tt.share+0.03 {
				t.Errorf("%.3f of the routes have length %d, want about %.2f", got, tt.common, tt.share)
			}
		})
	}
}

func TestDestinationsLieInTheirRoutes(t *testing.T) {
	for name, routes := range map[string][]netip.Prefix{"IPv4": Internet4(50, 3), "IPv6": Internet6(50, 3)} {
		t.Run(name, func(t *testing.T) {
			for _, a := range Spread(routes, 1000, 4) {
				if !slices.ContainsFunc(routes, func(p netip.Prefix) bool { return p.Contains(a) }) {
					t.Fatalf("%v is in no route", a)
				}
			}
		})
	}
}
