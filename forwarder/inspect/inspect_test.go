package inspect

import (
	"strings"
	"testing"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/forwarder/plane"
	"margay.dev/margay/forwarder/plane/planetest"
	"margay.dev/margay/internal/hostnet/hostnettest"
)

func TestEachWorkerHasItsOwnPinError(t *testing.T) {
	b := planetest.New(t, plane.Config{Workers: 3, CPUs: []int{100_000, 0, 100_002}})
	s := NewServer(b.Plane, Facts{})
	var workers []*pb.WorkerList_Worker
	hostnettest.Eventually(t, "two workers are told not to be on their CPU", func() bool {
		list, err := s.ListWorkers(t.Context(), &pb.ListWorkersRequest{})
		if err != nil {
			t.Fatal(err)
		}
		workers = list.Workers
		return workers[0].Error != "" && workers[2].Error != ""
	})
	for i, want := range []string{"CPU 100000", "", "CPU 100002"} {
		if got := workers[i].Error; (got == "") != (want == "") || !strings.Contains(got, want) || strings.Contains(got, "\n") {
			t.Errorf("worker %d says %q, want one line with %q", i, got, want)
		}
	}
}
