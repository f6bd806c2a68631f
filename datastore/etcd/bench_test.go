package etcd_test

import (
	"fmt"
	"path/filepath"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"margay.dev/margay/datastore"
	"margay.dev/margay/datastore/embedded"
	"margay.dev/margay/datastore/etcd"
)

// BenchmarkList lists 10,000 objects of an etcd in this process.
func BenchmarkList(b *testing.B) {
	const n = 10_000
	dir := b.TempDir()
	cfg := embedded.Default()
	cfg.Dir, cfg.Listen, cfg.NoSync = filepath.Join(dir, "data"), []string{"unix://" + filepath.Join(dir, "etcd.sock")}, true
	server, err := embedded.Start(b.Context(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	defer server.Close()
	client, err := clientv3.New(clientv3.Config{Endpoints: cfg.Listen, Logger: zap.NewNop()})
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	for i := 0; i < n; i += 100 {
		var puts []clientv3.Op
		for j := i; j < i+100; j++ {
			name := fmt.Sprint("s", j)
			puts = append(puts, clientv3.OpPut("/margay/v3/NetworkSet/x/"+name, fmt.Sprintf(`{"apiVersion":"projectcalico.org/v3","kind":"NetworkSet","metadata":{"name":%q,"namespace":"x","uid":"u","generation":1},"spec":{"nets":["10.0.0.0/8","fd00::/8"]}}`, name)))
		}
		if _, err := client.Txn(b.Context()).Then(puts...).Commit(); err != nil {
			b.Fatal(err)
		}
	}
	s, err := etcd.Open(etcd.Config{Endpoints: cfg.Listen})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	for b.Loop() {
		if l, err := s.List(b.Context(), datastore.Scope{}); err != nil || len(l.Objects) != n {
			b.Fatalf("%v", err)
		}
	}
	b.ReportMetric(b.Elapsed().Seconds()*1e9/float64(b.N*n), "ns/object")
}
