// Package forwarder is the packet process: it restores what it last
// acknowledged, forwards, and serves clients and inspection until it is told to
// stop.
//
//	config ─► Daemon ─┬─ plane     engine, ports, FIB: brought to the desired state
//	                  ├─ statefile every acknowledged state, before it is acknowledged
//	                  ├─ journal   every setting of the host that was changed
//	                  ├─ session   one client at a time, on a Unix socket
//	                  ├─ inspect   the same socket
//	                  └─ metrics   HTTP on loopback
package forwarder

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/config"
	"margay.dev/margay/fastpath/judge"
	"margay.dev/margay/forwarder/desired"
	"margay.dev/margay/forwarder/handover"
	"margay.dev/margay/forwarder/inspect"
	"margay.dev/margay/forwarder/metrics"
	"margay.dev/margay/forwarder/plane"
	"margay.dev/margay/forwarder/session"
	"margay.dev/margay/forwarder/statefile"
	"margay.dev/margay/internal/hostnet/journal"
	"margay.dev/margay/internal/version"
)

// Daemon is one forwarder. New makes it, Run is its life.
type Daemon struct {
	cfg     config.Forwarder
	log     *slog.Logger
	bootID  string
	started time.Time

	journal  *journal.Journal
	store    *statefile.Store
	plane    *plane.Plane
	session  *session.Server
	doors    doors
	restored bool
	ready    atomic.Bool
	stopping atomic.Bool
	given    atomic.Bool // another forwarder has taken over
	commits  sync.Mutex  // held while a commit is put in force and stored, and during an offer
}

const (
	restoreTime  = 30 * time.Second // for settings of the host, at start and end
	shutdownTime = 2 * time.Second  // for streams and requests to end by themselves
	quiesceTime  = 10 * time.Second // for workers to move past a commit
)

// New puts back what a former run left changed on the host, starts the workers
// and restores the state that was last acknowledged.
func New(ctx context.Context, cfg config.Forwarder, log *slog.Logger) (*Daemon, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	// One thread for each worker, and two for everything else, so that the
	// kernel and not Go's scheduler shares the cores.
	runtime.GOMAXPROCS(cfg.Workers + 2)
	d := &Daemon{cfg: cfg, log: log, bootID: bootID(), started: time.Now()}
	if err := d.open(ctx); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

func (d *Daemon) open(ctx context.Context) (err error) {
	if d.journal, err = journal.Open(filepath.Join(d.cfg.StateDir, "journal")); err != nil {
		return err
	}
	if damage := d.journal.Damage(); damage != nil {
		d.log.Error("journal of host settings is damaged; what the bad records are about is not put back", "error", damage)
	}
	d.putBack(ctx, "settings of a former run put back")
	if d.plane, err = plane.New(d.planeConfig()); err != nil {
		return err
	}
	d.session = session.NewServer(d, d.plane, d.bootID, d.log)
	return d.restore(ctx)
}

func (d *Daemon) planeConfig() plane.Config {
	return plane.Config{
		Workers: d.cfg.Workers, CPUs: d.cfg.CPUs, BusyPoll: d.cfg.BusyPoll == config.BusyPollAlways,
		Spin: time.Duration(d.cfg.Spin), Burst: d.cfg.Burst, Frames: d.cfg.Frames, Supers: d.cfg.Supers, FlowBytes: d.cfg.Flows << 20,
		FlowsFile: d.cfg.FlowsPath(), KeepEstablished: d.cfg.Established == config.EstablishedKept,
		LogRate: judge.LogRate{Burst: d.cfg.Log.RuleBurst, Every: time.Duration(d.cfg.Log.RuleEvery)},
		Log:     d.log, Journal: d.journal,
	}
}

// putBack undoes what the journal holds, and logs what became of it.
func (d *Daemon) putBack(ctx context.Context, what string) {
	ctx, cancel := context.WithTimeout(ctx, restoreTime)
	defer cancel()
	report, err := d.journal.Restore(ctx)
	if err != nil {
		d.log.Error("put settings of the host back; what is left stays in the journal", "error", err)
	}
	for _, kept := range report.Kept {
		d.log.Warn("setting left as it is: somebody else changed it after us", "setting", kept.String())
	}
	if len(report.Restored) > 0 {
		d.log.Info(what, "report", report.String())
	}
}

// restore brings back the state that was last acknowledged. What cannot be read
// is set aside: an empty forwarder leaves the host reachable.
func (d *Daemon) restore(ctx context.Context) error {
	store, records, err := statefile.Open(d.cfg.StateDir)
	if store == nil {
		return err
	}
	d.store = store
	if err != nil {
		d.log.Error("state on disk cannot be used; starting empty and waiting for a client. The files were set aside as *.corrupt", "error", err)
		return nil
	}
	state, generation, err := replay(records)
	if err != nil {
		d.log.Error("state on disk contradicts itself; starting empty and waiting for a client", "error", err)
		return nil
	}
	if state == nil {
		d.log.Info("no state on disk; waiting for a client")
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, quiesceTime)
	defer cancel()
	if err := d.plane.Restore(ctx, generation, state); err != nil {
		return fmt.Errorf("restore state of generation %d: %w", generation, err)
	}
	d.restored = true
	d.log.Info("state restored from disk", "generation", generation, "state", state.Summary())
	return nil
}

// replay makes a state of what was stored: a snapshot, then deltas.
func replay(records []statefile.Record) (state *desired.State, generation uint64, err error) {
	for i, r := range records {
		c := desired.NewChange()
		for _, b := range r.Chunks {
			var m pb.Chunk
			if err := proto.Unmarshal(b, &m); err != nil {
				return nil, 0, fmt.Errorf("read record %d: %w", i, err)
			}
			c.Add(&m)
		}
		if state == nil {
			state = desired.Empty()
		}
		next, faults := state.Apply(c, i == 0)
		if faults != nil {
			return nil, 0, fmt.Errorf("apply record %d: %d faults, the first: %s", i, len(faults), faults[0])
		}
		state, generation = next, r.Generation
	}
	return state, generation, nil
}

func bootID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// Commit puts a commit in force and stores it.
func (d *Daemon) Commit(ctx context.Context, c session.Commit) (faults []string, err error) {
	d.commits.Lock()
	defer d.commits.Unlock()
	ctx, cancel := context.WithTimeout(ctx, quiesceTime)
	defer cancel()
	begun := time.Now()
	faults, err = d.plane.Apply(ctx, c.Generation, c.Change, c.Snapshot)
	if faults != nil || err != nil {
		return faults, err
	}
	inForce := time.Since(begun)
	if err := d.save(c); err != nil {
		// The network must not stand still for a full disk: the state is in
		// force and acknowledged, and everybody is told.
		d.plane.Note("state-file", plane.ReasonStateFile, "the state in force is not on disk, and would be lost with this process: "+err.Error())
	} else {
		d.plane.Note("state-file", "", "")
	}
	level := slog.LevelDebug
	if c.Snapshot {
		level = slog.LevelInfo
	}
	d.log.Log(ctx, level, "commit in force", "generation", c.Generation, "snapshot", c.Snapshot, "bytes", c.Change.Bytes(),
		"applied", inForce, "stored", time.Since(begun)-inForce)
	return nil, nil
}

func (d *Daemon) save(c session.Commit) error {
	if c.Snapshot {
		return d.fold()
	}
	chunks := make([][]byte, 0, len(c.Chunks))
	for _, m := range c.Chunks {
		b, err := proto.Marshal(m)
		if err != nil {
			return err
		}
		chunks = append(chunks, b)
	}
	return d.store.Append(c.Generation, chunks)
}

// fold stores the whole state in place of the snapshot and the log.
func (d *Daemon) fold() (err error) {
	d.plane.Export(func(s *desired.State, generation uint64) {
		var chunks [][]byte
		for _, m := range s.Export() {
			b, merr := proto.Marshal(m)
			err = errors.Join(err, merr)
			chunks = append(chunks, b)
		}
		if err == nil {
			err = d.store.Replace(generation, chunks)
		}
	})
	return err
}

// Acknowledged folds the log when it has grown long; nobody waits for it now.
func (d *Daemon) Acknowledged() {
	d.commits.Lock()
	defer d.commits.Unlock()
	if !d.store.Full() {
		return
	}
	if err := d.fold(); err != nil {
		d.log.Error("fold the log of deltas", "error", err)
	}
}

// Generation is the number of the state in force.
func (d *Daemon) Generation() uint64 { return d.plane.Generation() }

// Listen calls hear for each condition that is not ok, then for each change.
func (d *Daemon) Listen(hear func(plane.Condition)) (stop func()) { return d.plane.Listen(hear) }

// Run serves until ctx ends, then stops cleanly: settings of the host are put
// back, devices that were to be kept stay. It also ends, and nothing is put
// back, when another forwarder has taken over.
func (d *Daemon) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if err := d.openDoors(); err != nil {
		return errors.Join(err, d.close())
	}
	rpc := grpc.NewServer(grpc.MaxRecvMsgSize(session.MaxMessage), grpc.MaxConcurrentStreams(64))
	pb.RegisterDataplaneServer(rpc, d.session)
	pb.RegisterInspectServer(rpc, inspect.NewServer(d.plane, d.facts()))
	web := d.serveHTTP(cancel)
	var running sync.WaitGroup
	serve := func(what string, run func() error) {
		running.Go(func() {
			if err := run(); ctx.Err() == nil {
				cancel(fmt.Errorf("%s: %w", what, err))
			}
		})
	}
	serve("watch the host", func() error { return d.plane.Run(ctx) })
	running.Go(func() { d.plane.Ledger().Report(ctx, d.log) })
	running.Go(func() {
		g := &giver{Daemon: d, taken: func() { cancel(errHandedOver) }}
		if err := handover.Serve(ctx, d.doors.handOver, g, d.log); ctx.Err() == nil {
			d.log.Error("no forwarder can take over from this one any more", "error", err)
		}
	})
	serve("serve "+d.cfg.Socket, func() error { return rpc.Serve(d.doors.clients) })
	d.ready.Store(true)
	d.log.Info("ready", "node", d.cfg.Node, "socket", d.cfg.Socket, "metrics", d.cfg.Metrics, "version", version.Version(),
		"workers", d.cfg.Workers, "generation", d.plane.Generation())
	notifier := d.notify(ctx)
	<-ctx.Done()
	cause := context.Cause(ctx)
	d.log.Info("stopping", "cause", cause)
	d.ready.Store(false)
	d.stopping.Store(true)
	stopServers(rpc, web)
	running.Wait()
	gone := d.given.Load() // perhaps after something else had told us to end
	notifier(!gone)
	if gone {
		return d.forsake()
	}
	if err := d.close(); err != nil {
		return err
	}
	if errors.Is(cause, context.Canceled) {
		return nil
	}
	return cause
}

// facts is what inspection and metrics cannot ask the plane.
func (d *Daemon) facts() inspect.Facts {
	return inspect.Facts{
		BootID: d.bootID, Started: d.started, Connected: d.session.Connected, Restored: d.restored, Diagnose: d.diagnose,
	}
}

// serveHTTP serves metrics; nil where none are wanted.
func (d *Daemon) serveHTTP(failed context.CancelCauseFunc) *http.Server {
	if d.doors.metrics == nil {
		return nil
	}
	web := &http.Server{
		Handler: metrics.Handler(d.plane, d.facts(), d.cfg.Node, d.healthy, d.isReady), ReadHeaderTimeout: 10 * time.Second,
	}
	go func() {
		if err := web.Serve(d.doors.metrics); !errors.Is(err, http.ErrServerClosed) {
			failed(fmt.Errorf("serve metrics: %w", err))
		}
	}()
	return web
}

// stopServers ends streams at once, and lets requests finish for a while.
func stopServers(rpc *grpc.Server, web *http.Server) {
	rpc.Stop()
	if web != nil {
		ctx, cancel := context.WithTimeout(context.Background(), shutdownTime)
		defer cancel()
		_ = web.Shutdown(ctx) // what hangs beyond it is cut off by our exit
	}
}

// close ends what New made, in reverse order.
func (d *Daemon) close() error {
	var errs []error
	if d.plane != nil {
		errs = append(errs, d.plane.Close())
	}
	if d.store != nil {
		errs = append(errs, d.store.Close())
	}
	if d.journal != nil {
		d.putBack(context.Background(), "settings of the host put back")
		errs = append(errs, d.journal.Close())
	}
	return errors.Join(errs...)
}
