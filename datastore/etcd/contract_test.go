package etcd_test

import (
	"context"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"margay.dev/margay/datastore"
	"margay.dev/margay/datastore/contract"
	"margay.dev/margay/datastore/embedded"
	"margay.dev/margay/datastore/etcd"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve starts an etcd with a data folder; stop ends it, at the latest with the
// test.
func serve(t *testing.T, dir, socket string) (endpoint string, stop func()) {
	t.Helper()
	cfg := embedded.Default()
	cfg.Dir, cfg.Listen, cfg.NoSync = dir, []string{"unix://" + socket}, true
	s, err := embedded.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return cfg.Listen[0], stop
}

// open opens an etcd that is looked at often.
func open(t *testing.T, endpoint, prefix string) *etcd.Store {
	t.Helper()
	return openFor(t, endpoint, prefix, 10*time.Second)
}

// openFor opens an etcd that has so long to answer.
func openFor(t *testing.T, endpoint, prefix string, timeout time.Duration) *etcd.Store {
	t.Helper()
	s, err := etcd.Open(etcd.Config{
		Endpoints: []string{endpoint}, Prefix: prefix,
		Timeout: metav1.Duration{Duration: timeout}, Heartbeat: metav1.Duration{Duration: 50 * time.Millisecond},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// raw is a client without us between.
func raw(t *testing.T, endpoint string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// put writes a pair as anybody may.
func put(t *testing.T, c *clientv3.Client, key, value string) {
	t.Helper()
	if _, err := c.Put(context.Background(), key, value); err != nil {
		t.Fatal(err)
	}
}

// path is where the store of a prefix keeps an object.
func path(prefix string, k datastore.Key) string {
	namespace := k.Namespace
	if namespace == "" {
		namespace = "-"
	}
	return prefix + "/v3/" + k.Kind + "/" + namespace + "/" + k.Name
}

func TestContract(t *testing.T) {
	dir := t.TempDir()
	endpoint, _ := serve(t, filepath.Join(dir, "data"), filepath.Join(dir, "etcd.sock"))
	client := raw(t, endpoint)
	prefixes := 0
	contract.Run(t, func(t *testing.T) contract.Subject {
		prefixes++
		prefix := "/test" + string(rune('a'+prefixes)) // a store of its own, of one etcd
		s := open(t, endpoint, prefix)
		return contract.Subject{
			Store: s,
			Other: func() datastore.Store { return open(t, endpoint, prefix) },
			Plant: func(key datastore.Key, text string) { put(t, client, path(prefix, key), text) },
			Fill: func(texts map[datastore.Key]string) {
				for some := range slices.Chunk(slices.Collect(maps.Keys(texts)), 100) {
					var puts []clientv3.Op
					for _, key := range some {
						puts = append(puts, clientv3.OpPut(path(prefix, key), texts[key]))
					}
					if _, err := client.Txn(t.Context()).Then(puts...).Commit(); err != nil {
						t.Fatal(err)
					}
				}
			},
			Forget: func() {
				r, err := client.Get(t.Context(), "/")
				if err != nil {
					t.Fatal(err)
				}
				if _, err := client.Compact(t.Context(), r.Header.Revision); err != nil {
					t.Fatal(err)
				}
			},
		}
	})
}
