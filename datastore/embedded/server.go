// Package embedded is an etcd within the process: the store of a lab and of single
// machines, for which nobody installs a cluster. It is one member, alone; its
// clients speak to it as to any etcd (datastore/etcd).
package embedded

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"golang.org/x/sys/unix"
)

// Server is an etcd that runs.
type Server struct {
	etcd *embed.Etcd
	lock *os.File
}

// Start starts a server and waits until it can be read and written, or the context
// ends. It fails where another server has the data folder, or somebody answers at
// a socket; nothing is left behind then but folders.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("start etcd: %w", err)
	}
	lock, err := take(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("start etcd: %w", err)
	}
	s := &Server{lock: lock}
	if err := s.start(ctx, cfg); err != nil {
		return nil, errors.Join(fmt.Errorf("start etcd: %w", err), s.Close())
	}
	return s, nil
}

// start makes the way free, starts etcd, and waits for it.
func (s *Server) start(ctx context.Context, cfg Config) error {
	listen := make([]url.URL, len(cfg.Listen))
	for i, l := range cfg.Listen {
		u, err := url.Parse(l)
		if err != nil {
			return err
		}
		listen[i] = *u
		if u.Scheme == "unix" {
			if err := vacate(u.Path); err != nil {
				return fmt.Errorf("listen at %s: %w", l, err)
			}
		}
	}
	e, err := embed.StartEtcd(member(cfg, listen))
	if err != nil {
		return err
	}
	s.etcd = e
	for _, u := range listen {
		if u.Scheme == "unix" {
			if err := os.Chmod(u.Path, 0o600); err != nil {
				return fmt.Errorf("close socket to others: %w", err)
			}
		}
	}
	select {
	case <-e.Server.ReadyNotify():
		return nil
	case err := <-e.Err():
		return err
	case <-ctx.Done():
		return fmt.Errorf("wait until it is ready: %w", context.Cause(ctx))
	}
}

// member is the configuration in etcd's words. There is no door for other
// members: the address of one is a name in the data, and nobody listens there.
func member(cfg Config, listen []url.URL) *embed.Config {
	nowhere := url.URL{Scheme: "http", Host: "127.0.0.1:2380"}
	e := embed.NewConfig()
	e.Name, e.Dir = cfg.Name, cfg.Dir
	e.ListenClientUrls, e.AdvertiseClientUrls = listen, listen
	e.ListenPeerUrls, e.AdvertisePeerUrls = nil, []url.URL{nowhere}
	e.InitialCluster = cfg.Name + "=" + nowhere.String()
	e.InitialClusterToken = rand.Text() // data made anew is another cluster
	e.ClientTLSInfo.CertFile, e.ClientTLSInfo.KeyFile = cfg.CertFile, cfg.KeyFile
	e.ClientTLSInfo.TrustedCAFile, e.ClientTLSInfo.ClientCertAuth = cfg.ClientCAFile, cfg.ClientCAFile != ""
	e.QuotaBackendBytes = int64(cfg.Quota) << 20
	e.AutoCompactionMode, e.AutoCompactionRetention = "periodic", cfg.Keep.String()
	e.UnsafeNoFsync = cfg.NoSync
	e.EnableGRPCGateway = false
	e.ZapLoggerBuilder = embed.NewZapLoggerBuilder(logger(cfg.Log))
	return e
}

// take makes a data folder and locks it for this process: a second etcd would wait
// for the first one's lock, having taken its sockets away.
func take(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make data folder: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fmt.Errorf("close data folder to others: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data folder: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock data folder %s: %w: another server has it; stop that, or choose another folder", dir, err), f.Close())
	}
	return f, nil
}

// vacate makes sure that a socket can be made at path: with a folder, and nobody
// who answers there. What a dead server left is replaced by etcd.
func vacate(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make folder of socket: %w", err)
	}
	switch st, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case st.Mode()&fs.ModeSocket == 0:
		return errors.New("there is a file that is no socket: choose another path")
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		return errors.Join(errors.New("somebody answers there: stop that server, or choose another path"), c.Close())
	case !errors.Is(err, unix.ECONNREFUSED):
		return fmt.Errorf("ask whether somebody answers there: %w: choose another path", err)
	}
	return nil
}

// Run waits until the context ends, which is no error, or the server does.
func (s *Server) Run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-s.etcd.Err():
		return fmt.Errorf("serve etcd: %w", err)
	case <-s.etcd.Server.StopNotify():
		return errors.New("serve etcd: it stopped by itself: see its log")
	}
}

// Close stops the server; its data is on disk then.
func (s *Server) Close() error {
	if s.etcd != nil {
		s.etcd.Close()
	}
	if err := s.lock.Close(); err != nil {
		return fmt.Errorf("unlock data folder: %w", err)
	}
	return nil
}
