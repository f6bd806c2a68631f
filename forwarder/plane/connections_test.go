package plane

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/internal/mem"
)

// Connections outlive a dataplane that ends, and go on by the policy of the next:
// those that it allows as they were, the others not.
func TestConnectionsOutliveTheDataplane(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "margay-flows-")
	if err != nil {
		t.Skip("needs a tmpfs at /dev/shm: ", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	file := filepath.Join(dir, "flows")
	one, e1 := pod(1)
	two, e2 := policed(2)
	start := func(workers int, members *pb.PrefixColumns) *bench {
		b := newBenchOf(t, Config{Workers: workers, FlowsFile: file})
		b.apply(true, &pb.Chunk{
			Ports: []*pb.Port{one, two}, Endpoints: []*pb.Endpoint{e1, e2}, Sets: []*pb.SetMembers{{Set: 1, Joined: members}},
			Programs: []*pb.ProgramPart{{Id: 1, Size: uint32(len(image(t))), Image: image(t)}},
		})
		return b
	}
	requests := [][]byte{packet(addr4(1), addr4(2)), packet(addr6(1), addr6(2))}
	replies := [][]byte{packet(addr4(2), addr4(1)), packet(addr6(2), addr6(1))}
	stop := func(b *bench) {
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}

	b := start(1, member(1))
	b.opener.get("p1").Inject(0, requests...)
	b.collect("p2", 2)
	stop(b)

	b = start(1, member(1, 3))
	if n := b.connections.Table.Stats().Flows; n != 2 {
		t.Errorf("%d connections have outlived the dataplane, want 2", n)
	}
	b.opener.get("p1").Inject(0, requests...)
	b.collect("p2", 2)
	b.opener.get("p2").Inject(0, replies...)
	b.collect("p1", 2)
	if n := b.connections.Table.Stats().Flows; n != 2 {
		t.Errorf("there are %d connections, want the 2 of before", n)
	}
	stop(b)

	b = start(1, member(3)) // which allows them no longer
	b.opener.get("p2").Inject(0, replies...)
	b.drops(graph.IngressDenied, 2)
	stop(b)

	if n := start(2, member(1)).connections.Table.Stats().Flows; n != 0 {
		t.Errorf("%d connections of a forwarder with another number of workers are there", n)
	}
}

// Where there is no memory that outlives the process, or what is in it cannot be
// used, packets are forwarded all the same, and the operator is told.
func TestConnectionsThatCannotBeKept(t *testing.T) {
	disk := t.TempDir()
	memory, err := os.MkdirTemp("/dev/shm", "margay-flows-")
	if err != nil {
		t.Skip("needs a tmpfs at /dev/shm: ", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(memory) })
	for name, c := range map[string]struct{ file, says string }{
		"on a disk": {filepath.Join(disk, "flows"), "name a file on a tmpfs"},
		"spoilt":    {filepath.Join(memory, "flows"), "connections of a former run cannot be used"},
	} {
		t.Run(name, func(t *testing.T) {
			var on unix.Statfs_t
			if err := unix.Statfs(filepath.Dir(c.file), &on); err != nil || name == "on a disk" && on.Type == unix.TMPFS_MAGIC {
				t.Skip("needs a folder for temporary files that is not in memory")
			}
			b := newBenchOf(t, Config{Workers: 1, FlowsFile: c.file})
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			spoil(t, c.file)
			var log strings.Builder
			b = newBenchOf(t, Config{Workers: 1, FlowsFile: c.file, Log: slog.New(slog.NewTextHandler(&log, nil))})
			if !strings.Contains(log.String(), c.says) {
				t.Errorf("the log does not say %q:\n%s", c.says, &log)
			}
			one, e1 := pod(1)
			two, e2 := policed(2)
			b.apply(true, &pb.Chunk{
				Ports: []*pb.Port{one, two}, Endpoints: []*pb.Endpoint{e1, e2}, Sets: []*pb.SetMembers{{Set: 1, Joined: member(1)}},
				Programs: []*pb.ProgramPart{{Id: 1, Size: uint32(len(image(t))), Image: image(t)}},
			})
			b.opener.get("p1").Inject(0, packet(addr4(1), addr4(2)), packet(addr6(1), addr6(2)))
			b.collect("p2", 2)
		})
	}
}

// spoil writes garbage over the head of a table of connections, if there is one.
func spoil(t *testing.T, file string) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if os.IsNotExist(err) {
		return
	}
	if err == nil {
		_, err = f.WriteAt(bytes.Repeat([]byte{0xa5}, 200), mem.HeaderSize)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}
