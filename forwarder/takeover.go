package forwarder

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"time"

	"google.golang.org/protobuf/proto"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/config"
	"margay.dev/margay/fastpath/umem"
	"margay.dev/margay/forwarder/desired"
	"margay.dev/margay/forwarder/handover"
	"margay.dev/margay/forwarder/plane"
	"margay.dev/margay/forwarder/session"
	"margay.dev/margay/forwarder/statefile"
	"margay.dev/margay/internal/hostnet/journal"
	"margay.dev/margay/internal/version"
)

// errHandedOver ends a daemon that another one has taken over from.
var errHandedOver = errors.New("another forwarder has taken over")

// TakeOver makes a daemon of what the running one at the same socket hands over:
// devices, packets on their way, state and listeners. It forwards when TakeOver
// returns. On an error the running one is in charge as before.
func TakeOver(ctx context.Context, cfg config.Forwarder, log *slog.Logger) (*Daemon, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	runtime.GOMAXPROCS(cfg.Workers + 2)
	d := &Daemon{cfg: cfg, log: log, bootID: bootID(), started: time.Now(), restored: true}
	t, b, err := handover.Take(ctx, handOverSocket(cfg.Socket), d.handOverFacts())
	if err != nil {
		return nil, err
	}
	if err := d.takeOver(ctx, t, b); err != nil {
		ferr := d.forsake() // before the other one may touch anything again
		t.Abort(err)
		return nil, errors.Join(fmt.Errorf("take over: %w", err), ferr)
	}
	log.Info("taken over", "generation", d.plane.Generation(), "took", time.Since(d.started), "alone", t.Alone())
	d.plane.Renew()
	if err := d.fold(); err != nil {
		log.Error("store the state that was handed over; it would be lost with this process", "error", err)
	}
	return d, nil
}

func (d *Daemon) takeOver(ctx context.Context, t *handover.Taking, b handover.Bundle) error {
	w, state, err := readWill(b.Image)
	if err != nil {
		return err
	}
	if dir := absolute(d.cfg.StateDir); dir != w.StateDir {
		return fmt.Errorf("the running forwarder keeps its state in %s, and this configuration wants %s: a hand-over cannot move it", w.StateDir, dir)
	}
	if err := d.inheritDoors(w.Doors, b.FDs); err != nil {
		return err
	}
	if err := d.openDoors(); err != nil { // what is new
		return err
	}
	if d.journal, err = journal.Open(filepath.Join(d.cfg.StateDir, "journal")); err != nil {
		return err
	}
	if d.plane, err = plane.Inherit(ctx, d.planeConfig(), w.Estate, b.FDs, state); err != nil {
		return err
	}
	if d.store, _, err = statefile.Open(d.cfg.StateDir); d.store == nil {
		return err
	}
	d.session = session.NewServer(d, d.plane, d.bootID, d.log)
	flight, err := t.Ready(ctx)
	if err != nil {
		return err
	}
	if err := d.plane.Land(flight); err != nil {
		return err
	}
	if err := t.Applied(ctx); err != nil {
		return err
	}
	d.plane.Begin()
	return t.Running()
}

func (d *Daemon) handOverFacts() handover.Facts {
	return handover.Facts{
		Program: version.Line("margay-forwarder"), Contract: pb.Version, MinContract: pb.MinVersion,
		Arena: umem.LayoutVersion, Workers: d.cfg.Workers, Frames: d.cfg.Frames, Supers: d.cfg.Supers,
	}
}

// giver is the daemon as who hands over.
type giver struct {
	*Daemon
	taken func() // ends the daemon
}

// Facts is what the other process must agree with.
func (g *giver) Facts() handover.Facts { return g.handOverFacts() }

// Prepare offers everything. From here on commits wait.
func (g *giver) Prepare(context.Context) (handover.Bundle, error) {
	g.commits.Lock() // what is in force is on disk, and nobody writes to it
	e, fds, err := g.plane.Offer()
	if err != nil {
		g.commits.Unlock()
		return handover.Bundle{}, err
	}
	w := will{Version: willVersion, Estate: e, StateDir: absolute(g.cfg.StateDir)}
	if w.Doors, err = g.doors.offer(&fds, g.cfg.Metrics); err == nil {
		err = g.journal.Lend()
	}
	var image []byte
	if err == nil {
		image, err = g.write(&w)
	}
	if err != nil {
		g.takeBack(false)
		return handover.Bundle{}, err
	}
	return handover.Bundle{Image: image, FDs: fds}, nil
}

// Freeze stops the workers.
func (g *giver) Freeze(ctx context.Context) ([]byte, error) { return g.plane.Freeze(ctx) }

// Resume goes on after the other process failed.
func (g *giver) Resume(touched bool, why error) {
	g.takeBack(touched)
	if touched {
		g.log.Warn("packets that were held are dropped, and those in the hands of the failed process are lost", "error", why)
	}
}

// takeBack undoes Prepare, and Freeze if it was called.
func (g *giver) takeBack(touched bool) {
	g.plane.Unfreeze(touched) // packets first
	if err := g.journal.Regain(); err != nil {
		g.log.Warn("the journal is not back; settings of the host can be changed when the other process has let go of it", "error", err)
	}
	g.plane.Withdraw()
	g.commits.Unlock()
}

// Done ends the daemon: the other process has everything.
func (g *giver) Done() {
	g.plane.Cede()
	g.given.Store(true)
	g.doors.leave()
	g.taken()
}

// forsake ends a daemon whose packets another process has, or has kept. What
// it changed of the host stays.
func (d *Daemon) forsake() error {
	d.doors.leave()
	errs := []error{d.doors.close()}
	if d.plane != nil {
		errs = append(errs, d.plane.Forsake())
	}
	if d.store != nil {
		errs = append(errs, d.store.Close())
	}
	if d.journal != nil {
		errs = append(errs, d.journal.Close())
	}
	return errors.Join(errs...)
}

// will is what one daemon leaves to the next beside the state.
//
//	image = length of JSON (8 bytes) | JSON | length of chunk (8 bytes) | chunk | ...
type will struct {
	Version  int // of its encoding
	Estate   *plane.Estate
	Doors    doorsEstate
	StateDir string
}

// willVersion grows when a forwarder of the version before would misread a will.
// A field that it may pass over is no such case.
const willVersion = 1

// absolute is a path that means the same to another process.
func absolute(path string) string {
	if full, err := filepath.Abs(path); err == nil {
		return full
	}
	return path
}

func (g *giver) write(w *will) (image []byte, err error) {
	part := func(b []byte) { image = append(binary.BigEndian.AppendUint64(image, uint64(len(b))), b...) }
	head, err := json.Marshal(w)
	if err != nil {
		return nil, err
	}
	part(head)
	g.plane.Offered(func(s *desired.State) {
		for _, m := range s.Export() {
			b, merr := proto.Marshal(m)
			err = errors.Join(err, merr)
			part(b)
		}
	})
	return image, err
}

// readWill reads an image, and makes a state of its chunks.
func readWill(image []byte) (*will, *desired.State, error) {
	var parts [][]byte
	for len(image) > 0 {
		if len(image) < 8 || binary.BigEndian.Uint64(image) > uint64(len(image)-8) {
			return nil, nil, fmt.Errorf("read what was handed over: part %d is cut off", len(parts))
		}
		n := binary.BigEndian.Uint64(image)
		parts, image = append(parts, image[8:8+n]), image[8+n:]
	}
	if len(parts) == 0 {
		return nil, nil, errors.New("read what was handed over: it is empty")
	}
	w := &will{}
	if err := json.Unmarshal(parts[0], w); err != nil || w.Estate == nil {
		return nil, nil, fmt.Errorf("read what was handed over: %w", errors.Join(err, errors.New("there is no estate")))
	}
	if w.Version != willVersion {
		return nil, nil, fmt.Errorf("read what was handed over: it is of version %d and this forwarder reads %d: stop the one that runs, and start this one without --take-over", w.Version, willVersion)
	}
	state, _, err := replay([]statefile.Record{{Generation: w.Estate.Generation, Chunks: parts[1:]}})
	if err != nil {
		return nil, nil, fmt.Errorf("read the state that was handed over: %w", err)
	}
	return w, state, nil
}
