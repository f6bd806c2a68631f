package socket

import (
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// shortPath is a path in a folder that there is not yet, short enough for a socket.
func shortPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "socket")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "run", "s")
}

func listen(t *testing.T, network, path string) *net.UnixListener {
	t.Helper()
	l, err := Listen(network, path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func TestListenReplacesOnlyWhatIsDead(t *testing.T) {
	for _, network := range []string{"unix", "unixpacket"} {
		other := map[string]string{"unix": "unixpacket", "unixpacket": "unix"}[network]
		for name, tt := range map[string]struct {
			before func(t *testing.T, path string)
			says   string
		}{
			"nothing": {func(*testing.T, string) {}, ""},
			"a dead socket": {func(t *testing.T, path string) {
				l := listen(t, network, path)
				l.SetUnlinkOnClose(false)
				_ = l.Close()
			}, ""},
			"a dead socket of another type": {func(t *testing.T, path string) {
				l := listen(t, other, path)
				l.SetUnlinkOnClose(false)
				_ = l.Close()
			}, ""},
			"a live one":                 {func(t *testing.T, path string) { listen(t, network, path) }, "another forwarder answers"},
			"a live one of another type": {func(t *testing.T, path string) { listen(t, other, path) }, "another type"},
			"a file": {func(t *testing.T, path string) {
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}, "no socket"},
		} {
			t.Run(network+" "+name, func(t *testing.T) {
				path := shortPath(t)
				tt.before(t, path)
				l, err := Listen(network, path)
				if tt.says != "" {
					if err == nil || !strings.Contains(err.Error(), tt.says) {
						t.Errorf("listen says %v, want %q", err, tt.says)
					}
					if _, err := os.Lstat(path); err != nil {
						t.Errorf("what was there is gone: %v", err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				for p, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
					if st, err := os.Stat(p); err != nil || st.Mode().Perm() != want {
						t.Errorf("%s has mode %v (%v), want %v", p, st.Mode(), err, want)
					}
				}
			})
		}
	}
}

func TestGuardLetsOurselvesIn(t *testing.T) {
	path := shortPath(t)
	l := Guard(listen(t, "unix", path), slog.New(slog.DiscardHandler))
	out, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	in, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	who, err := Peer(in.(*net.UnixConn))
	if err != nil || int(who.Uid) != os.Geteuid() || int(who.Pid) != os.Getpid() {
		t.Errorf("the peer is %+v (%v), want this process", who, err)
	}
}
