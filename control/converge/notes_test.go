package converge

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"margay.dev/margay/datastore"
)

// strange is an object of which a part is left out when it is converted.
const strange = `
apiVersion: projectcalico.org/v3
kind: StagedKubernetesNetworkPolicy
metadata: {name: odd, namespace: shop, generation: 3}
spec: {podSelector: {}, policyTypes: [Ingress, Sideways]}
`

// orphan names a profile that nobody has.
const orphan = `
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: odd, namespace: shop, generation: 3}
spec: {node: n0, orchestrator: cni, workload: odd, endpoint: eth0, ipNetworks: [10.1.0.9/32, "fd01::9/128"], profiles: [kns.nobody], interfaceName: cali9}
`

// missed is what has come to be reported of an object since the last time that somebody
// asked; false where nothing has.
func (s *scene) missed(key datastore.Key) (Report, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, some := s.reports[key]
	delete(s.reports, key)
	return r, some
}

// What was found of an object stays found when the store tells of it again, as it does
// when somebody has written that down.
func TestAFaultOutlivesItsReport(t *testing.T) {
	for name, manifest := range map[string]string{"of the object": strange, "of its use": orphan} {
		t.Run(name, func(t *testing.T) {
			s := up(t)
			events := now(t, manifest)
			key := events[0].Key
			s.tell(events...)
			first, some := s.missed(key)
			if !some || len(first.Faults) == 0 || first.Again {
				t.Fatalf("what is reported is %+v, want a fault", first)
			}
			s.tell(now(t, manifest)...)
			again, some := s.missed(key)
			if !some || len(again.Faults) != len(first.Faults) || !again.Again {
				t.Errorf("when the store has told the same, what is reported is %+v, want again %q", again, first.Faults)
			}
			if st, err := s.core.Stats(t.Context()); err != nil || st.Faulty != 1 {
				t.Errorf("%d objects are faulty (%v)", st.Faulty, err)
			}
		})
	}
}

// What is well and ours is told of again, too, to who may have lost it; what is well and
// of others is not.
func TestWhatComesAgainByItsNameIsReportedAnew(t *testing.T) {
	s := up(t)
	bob := annK
	bob.Name = "bob"
	again := func(uid types.UID) []datastore.Event {
		events := now(t, cluster)
		for i := range events {
			events[i].Object.SetUID(uid)
		}
		return events
	}
	s.tell(again("first")...)
	s.missed(annK)
	s.missed(bob)
	s.tell(again("first")...)
	if r, some := s.missed(annK); !some || !r.Again || r.Here != "" {
		t.Errorf("ours is told again, and reported is %+v", r)
	}
	if r, some := s.missed(bob); some {
		t.Errorf("another's is told again as it was, and reported is %+v", r)
	}
	s.tell(again("second")...)
	for _, key := range []datastore.Key{annK, bob} {
		if r, some := s.missed(key); !some || r.Again {
			t.Errorf("%v is another object, and reported is %+v", key, r)
		}
	}
	s.tell(gone(annK.Kind, annK.Namespace, annK.Name), again("second")[5])
	if r, some := s.missed(annK); !some || r.Again {
		t.Errorf("it went and came in one breath, and reported is %+v", r)
	}
}

// After a refusal all is calculated anew, by who does not know what was said before.
func TestWhatIsMendedDuringARefusalIsWell(t *testing.T) {
	s := up(t)
	events := now(t, orphan)
	key := events[0].Key
	s.tell(events...)
	s.f.mu.Lock()
	s.f.refuse = 3 // the pauses are 100, 200 and 400 ms
	s.f.mu.Unlock()
	s.core.Deliver(t.Context(), now(t, strings.Replace(cluster, "[80]", "[81]", 1)))
	for {
		st, err := s.core.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if st.Failures > 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	s.tell(now(t, strings.Replace(profileOf, "NAME", "kns.nobody", 1))...)
	if r := s.report(key); len(r.Faults) > 0 {
		t.Errorf("the profile is there, and reported is %q", r.Faults)
	}
}

const profileOf = `
apiVersion: projectcalico.org/v3
kind: Profile
metadata: {name: NAME}
spec: {ingress: [{action: Allow}], egress: [{action: Allow}]}
`

// An attachment that is taken away and comes back as it was, before anybody has looked,
// is in force.
func TestAnAttachmentThatComesBackAsItWasIsInForce(t *testing.T) {
	s := up(t)
	s.mu.Lock() // the loop waits in Report, from the next fault on
	s.core.Deliver(t.Context(), now(t, strange))
	stuck, done := context.WithTimeout(t.Context(), time.Second)
	for stuck.Err() == nil {
		short, cancel := context.WithTimeout(stuck, 50*time.Millisecond)
		_, err := s.core.Stats(short)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
	}
	done()
	_, err := s.book.Remove(ann)
	version, again := s.book.Put(tun)
	s.mu.Unlock()
	if err := errors.Join(err, again); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := s.book.Await(ctx, ann, version); err != nil {
		t.Error(err)
	}
}

// recount fails where what a Core counts as it goes is not what it has. It is asked of
// every scene at its end.
func (c *Core) recount(t testing.TB) {
	t.Helper()
	kinds, faulty := map[string]int{}, 0
	for key := range c.objects {
		kinds[key.Kind]++
	}
	for key, r := range c.notes.reported {
		if _, there := c.objects[key]; !there && len(c.notes.changed) == 0 {
			t.Errorf("%v is gone, and what was reported of it is kept", key)
		}
		if !r.well() {
			faulty++
		}
	}
	if len(kinds) != len(c.kinds) || faulty != c.notes.faulty {
		t.Errorf("counted are %v and %d faulty, and there are %v and %d", c.kinds, c.notes.faulty, kinds, faulty)
	}
	for kind, n := range kinds {
		if c.kinds[kind] != n {
			t.Errorf("%d of kind %s are counted, and there are %d", c.kinds[kind], kind, n)
		}
	}
}

// A pool that is IPv4 in IPv6's clothes comes by other ways than validation. A forwarder
// would refuse all that it came with.
func TestAPoolThatNoForwarderTakesIsNone(t *testing.T) {
	s := up(t)
	s.tell(now(t, "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: odd}\nspec: {cidr: \"::ffff:10.3.0.0/112\"}\n")...)
	s.wantCluster()
}
