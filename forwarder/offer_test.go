package forwarder

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/config"
	"margay.dev/margay/forwarder/desired"
	"margay.dev/margay/forwarder/session"
	"margay.dev/margay/forwarder/statefile"
)

// drop is a next hop and n routes to it, of each family.
func drop(n int) *pb.Chunk {
	r := &pb.RouteColumns{}
	for i := range n {
		at := []byte{10, byte(i >> 8), byte(i), 0}
		r.Addresses4, r.Lengths4, r.NextHops4 = append(r.Addresses4, at...), append(r.Lengths4, 24), append(r.NextHops4, 1)
		r.Addresses6 = append(append(append(r.Addresses6, 0xfd), at...), make([]byte, 11)...)
		r.Lengths6, r.NextHops6 = append(r.Lengths6, 64), append(r.NextHops6, 1)
	}
	return &pb.Chunk{NextHops: []*pb.NextHop{{Id: 1, Kind: pb.NextHop_KIND_BLACKHOLE}}, Routes: r}
}

// What is offered is on disk, and nothing is written there until it is taken
// back: the other process opens the same files.
func TestWhatIsOfferedIsStored(t *testing.T) {
	dir, err := os.MkdirTemp("", "offer")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	cfg := config.Default()
	cfg.Socket, cfg.StateDir, cfg.Metrics, cfg.Workers, cfg.Frames, cfg.Supers = filepath.Join(dir, "s"), filepath.Join(dir, "state"), "", 1, 4096, 64
	d, err := New(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.openDoors(); err != nil {
		t.Fatal(err)
	}
	m := drop(20_000)
	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() { stopped <- d.commitUntil(stop, m) }()
	g := &giver{Daemon: d, taken: func() {}}
	for range 10 {
		offered, err := g.Prepare(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		w, _, err := readWill(offered.Image)
		if err != nil {
			t.Fatal(err)
		}
		copied := t.TempDir()
		if err := os.CopyFS(copied, os.DirFS(cfg.StateDir)); err != nil {
			t.Fatal(err)
		}
		_, records, err := statefile.Open(copied)
		if err != nil {
			t.Fatal(err)
		}
		stored := uint64(0)
		if len(records) > 0 {
			stored = records[len(records)-1].Generation
		}
		if stored != w.Estate.Generation {
			t.Errorf("generation %d is offered, %d is on disk", w.Estate.Generation, stored)
		}
		g.takeBack(false)
	}
	close(stop)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if err := d.doors.close(); err != nil {
		t.Error(err)
	}
	if err := d.close(); err != nil {
		t.Error(err)
	}
}

// commitUntil commits m again and again: the first time as a snapshot.
func (d *Daemon) commitUntil(stop <-chan struct{}, m *pb.Chunk) error {
	for gen := uint64(1); ; gen++ {
		select {
		case <-stop:
			return nil
		default:
		}
		c := desired.NewChange()
		c.Add(m)
		commit := session.Commit{Generation: gen, Change: c, Snapshot: gen == 1, Chunks: []*pb.Chunk{m}}
		if _, err := d.Commit(context.Background(), commit); err != nil {
			return err
		}
		d.Acknowledged()
	}
}
