package converge

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestClocksOfObjectsSayNothing has objects come with creation times of other clocks,
// and the same objects with others again: no commit follows from that, and what
// else changes counts, whichever of two seems the younger.
func TestClocksOfObjectsSayNothing(t *testing.T) {
	for name, made := range map[string]time.Time{
		"ahead":            time.Now().Add(24 * time.Hour),
		"behind":           time.Now().Add(-24 * time.Hour),
		"at the end":       time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		"at the beginning": time.Unix(0, 0),
		"unset":            {},
	} {
		t.Run(name, func(t *testing.T) {
			s := up(t)
			commits := len(s.f.commits)
			tell := func(manifest string) {
				events := now(t, manifest)
				for i := range events {
					if i%2 == 0 { // the others have none
						events[i].Object.SetCreationTimestamp(metav1.NewTime(made))
					}
				}
				s.tell(events...)
			}
			tell(cluster)
			s.wantCluster()
			if n := len(s.f.commits); n != commits {
				t.Errorf("%d commits are sent for a creation time", n-commits)
			}
			tell(strings.ReplaceAll(cluster, "172.16.0.2", "172.16.0.3"))
			if n := len(s.f.commits); n != commits+1 {
				t.Errorf("%d commits are sent for another address of n1, want 1", n-commits)
			}
			tell(cluster)
			s.wantCluster()
		})
	}
}
