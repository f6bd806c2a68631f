package stage

import (
	"testing"
	"time"

	"margay.dev/margay/internal/hostnet/hostnettest"
	"margay.dev/margay/internal/lab/load"
)

func TestEndsReachEachOtherByTheKernel(t *testing.T) {
	hostnettest.NeedRoot(t)
	files := hostnettest.Descriptors(t)
	r, err := Route(3)
	if err != nil {
		t.Fatal(err)
	}
	for _, ns := range r.Ends {
		if err := ns.SetSysctl("net.ipv4.ping_group_range", "0 2147483647"); err != nil {
			t.Fatal(err)
		}
	}
	for _, six := range []bool{false, true} {
		hostnettest.Eventually(t, "the first end reaches the third", func() bool {
			got, err := load.Ping{Timeout: 200 * time.Millisecond}.Run(t.Context(), r.Ends[0], r.Addr(0, six), r.Addr(2, six))
			return err == nil && got.OK()
		})
	}
	r.Close()
	hostnettest.Eventually(t, "descriptors are given back", func() bool { return hostnettest.Descriptors(t) <= files+2 })
}
