package etcd_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"margay.dev/margay/datastore"
)

// beat is what an etcd says to a heartbeat.
type beat struct {
	at    int64
	name  string // of the store; "" for none
	fails bool
}

// puppet is an etcd that says what it is told to: a beat to each question, the last
// one for ever, and one revision to each watch.
type puppet struct {
	etcdserverpb.UnimplementedKVServer
	etcdserverpb.UnimplementedWatchServer

	mu      sync.Mutex
	beats   []beat
	asked   int
	seen    int64 // of the watch
	forgets int   // pages of listings that are refused: their revision was compacted
	pages   int   // of a listing, after those
	listed  []int64
}

// Range is asked for the store's name, or for a page.
func (p *puppet) Range(_ context.Context, r *etcdserverpb.RangeRequest) (*etcdserverpb.RangeResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(r.RangeEnd) > 0 {
		if p.forgets--; p.forgets >= 0 {
			return nil, rpctypes.ErrGRPCCompacted
		}
		p.pages--
		p.listed = append(p.listed, r.Revision)
		return &etcdserverpb.RangeResponse{
			Header: &etcdserverpb.ResponseHeader{Revision: 99}, Kvs: []*mvccpb.KeyValue{{Key: append(r.Key, "x"...)}}, More: p.pages > 0,
		}, nil
	}
	b := p.beats[min(p.asked, len(p.beats)-1)]
	p.asked++
	if b.fails {
		return nil, status.Error(codes.Internal, "out of order")
	}
	reply := &etcdserverpb.RangeResponse{Header: &etcdserverpb.ResponseHeader{Revision: b.at}}
	if b.name != "" {
		reply.Kvs = []*mvccpb.KeyValue{{Value: []byte(b.name)}}
	}
	return reply, nil
}

// Watch begins each watch, tells of a revision, and then of nothing.
func (p *puppet) Watch(s grpc.BidiStreamingServer[etcdserverpb.WatchRequest, etcdserverpb.WatchResponse]) error {
	if _, err := s.Recv(); err != nil {
		return err
	}
	header := &etcdserverpb.ResponseHeader{Revision: p.seen}
	if err := s.Send(&etcdserverpb.WatchResponse{Header: header, Created: true}); err != nil {
		return err
	}
	<-s.Context().Done()
	return nil
}

// serve gives the address of a puppet.
func (p *puppet) serve(t *testing.T) string {
	socket := filepath.Join(t.TempDir(), "etcd.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	etcdserverpb.RegisterKVServer(g, p)
	etcdserverpb.RegisterWatchServer(g, p)
	var done sync.WaitGroup
	done.Go(func() { _ = g.Serve(l) }) // until Stop
	t.Cleanup(func() { g.Stop(); done.Wait() })
	return "unix://" + socket
}

// A watch lives through a heartbeat that fails, but not two; and ends at once where
// the store has become another, whatever tells it.
func TestHeartbeat(t *testing.T) {
	well, bad := beat{10, "s", false}, beat{fails: true}
	tests := map[string]struct {
		beats []beat
		seen  int64
		want  error
		asked int // at least; no more than that where the watch ends; 0: as often as it takes
	}{
		"one in two fails":            {[]beat{well, bad, well, bad, well, bad, well, bad, well}, 10, nil, 12},
		"two in a row fail":           {[]beat{well, bad, well, bad, bad, well}, 10, datastore.ErrUnavailable, 5},
		"another name, once":          {[]beat{well, well, {11, "z", false}, well}, 10, datastore.ErrCompacted, 3},
		"no name any more, once":      {[]beat{well, {11, "", false}, well}, 10, datastore.ErrCompacted, 2},
		"a name after none":           {[]beat{{10, "", false}, {10, "", false}, {11, "s", false}, {12, "s", false}}, 10, nil, 8},
		"a name after none, another":  {[]beat{{10, "", false}, {11, "s", false}, {12, "z", false}, {12, "s", false}}, 10, datastore.ErrCompacted, 3},
		"behind what a watch said":    {[]beat{{10, "s", false}, {19, "s", false}}, 20, datastore.ErrCompacted, 0},
		"as far as a watch said":      {[]beat{{10, "s", false}, {20, "s", false}}, 20, nil, 6},
		"behind what was listed":      {[]beat{{9, "s", false}, well}, 10, datastore.ErrCompacted, 1},
		"of another name at the list": {[]beat{{10, "z", false}, well}, 10, datastore.ErrCompacted, 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := &puppet{beats: tt.beats, seen: tt.seen}
			s := open(t, p.serve(t), "/o")
			from := datastore.Revision("10/s")
			if tt.beats[0].name == "" {
				from = "10/"
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			ended := make(chan error, 1)
			go func() { ended <- s.Watch(ctx, datastore.Scope{}, from, func([]datastore.Event) {}) }()
			var err error
			if tt.want == nil {
				err = p.beatsOn(tt.asked, ended)
				cancel()
				<-ended
			} else {
				err = <-ended
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			if !errors.Is(err, tt.want) || tt.want == datastore.ErrCompacted && errors.Is(err, datastore.ErrUnavailable) || tt.want != nil && tt.asked > 0 && p.asked != tt.asked {
				t.Errorf("it ends with %v after %d beats, want %v after %d", err, p.asked, tt.want, tt.asked)
			}
		})
	}
}

// beatsOn waits until a puppet was asked so often; a watch that ends meanwhile is the
// error.
func (p *puppet) beatsOn(often int, ended chan error) error {
	for {
		p.mu.Lock()
		asked := p.asked
		p.mu.Unlock()
		if asked >= often {
			return nil
		}
		select {
		case err := <-ended:
			ended <- err
			return err
		case <-time.After(5 * time.Millisecond):
		}
	}
}
