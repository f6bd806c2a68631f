package embedded_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"margay.dev/margay/datastore/embedded"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// config is a server in a folder of the test's.
func config(t *testing.T) embedded.Config {
	dir := t.TempDir()
	c := embedded.Default()
	c.Dir, c.Listen, c.NoSync = filepath.Join(dir, "data"), []string{"unix://" + filepath.Join(dir, "run", "etcd.sock")}, true
	return c
}

// Nobody but its user reaches the server or its data, and what it logs comes to us.
func TestStart(t *testing.T) {
	c := config(t)
	var log bytes.Buffer
	c.Log = slog.New(slog.NewTextHandler(&log, nil))
	s, err := embedded.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	socket := strings.TrimPrefix(c.Listen[0], "unix://")
	for path, want := range map[string]os.FileMode{c.Dir: 0o700 | os.ModeDir, filepath.Dir(socket): 0o700 | os.ModeDir, socket: 0o600 | os.ModeSocket} {
		if st, err := os.Stat(path); err != nil || st.Mode() != want {
			t.Errorf("%s: %v, %v, want %v", path, st.Mode(), err, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := errors.Join(s.Run(ctx), s.Close()); err != nil {
		t.Error(err)
	}
	if !strings.Contains(log.String(), "starting an etcd server") || !strings.Contains(log.String(), "quota") {
		t.Errorf("logged %s", log.String())
	}
	if _, err := os.Stat(socket); err == nil {
		t.Error("its socket is left")
	}
}

// What a server must not share, a second one does not take, and the first goes on.
func TestSecond(t *testing.T) {
	first := config(t)
	s, err := embedded.Start(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	sameDir, sameSocket, noSocket := config(t), config(t), config(t)
	sameDir.Dir = first.Dir
	sameSocket.Listen = first.Listen
	if err := os.MkdirAll(filepath.Join(filepath.Dir(noSocket.Dir), "run", "etcd.sock"), 0o700); err != nil {
		t.Fatal(err)
	}
	for want, c := range map[string]embedded.Config{"another server has it": sameDir, "somebody answers there": sameSocket, "no socket": noSocket} {
		if other, err := embedded.Start(t.Context(), c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v is no error that says %q", err, want)
			if err == nil {
				_ = other.Close()
			}
		}
	}
	conn, err := net.Dial("unix", strings.TrimPrefix(first.Listen[0], "unix://"))
	if err != nil {
		t.Fatalf("the first is gone: %v", err)
	}
	if err := errors.Join(conn.Close(), s.Close()); err != nil {
		t.Error(err)
	}
}

// A socket that a killed server left is in nobody's way; data that is none ends the
// start with an error.
func TestLeftBehind(t *testing.T) {
	c := config(t)
	socket := strings.TrimPrefix(c.Listen[0], "unix://")
	if err := os.MkdirAll(filepath.Dir(socket), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := embedded.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestValidate(t *testing.T) {
	pem := filepath.Join(t.TempDir(), "pem")
	if err := os.WriteFile(pem, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	with := func(change func(*embedded.Config)) embedded.Config {
		c := config(t)
		change(&c)
		return c
	}
	listen := func(at ...string) embedded.Config { return with(func(c *embedded.Config) { c.Listen = at }) }
	tests := map[string]struct {
		c    embedded.Config
		want string // part of the error; empty for none
	}{
		"as it is": {config(t), ""},
		"loopback": {listen("http://127.0.0.1:2379", "http://[::1]:2379"), ""},
		"TLS": {with(func(c *embedded.Config) {
			c.Listen, c.CertFile, c.KeyFile, c.ClientCAFile = []string{"https://[fd00::1]:2379", "https://10.0.0.1:2379"}, pem, pem, pem
		}), ""},
		"open to all":       {listen("http://0.0.0.0:2379"), "without TLS"},
		"open to all, IPv6": {listen("http://[fd00::1]:2379"), "without TLS"},
		"TLS for anybody": {with(func(c *embedded.Config) {
			c.Listen, c.CertFile, c.KeyFile = []string{"https://10.0.0.1:2379"}, pem, pem
		}), "authorities of clients"},
		"a name":               {listen("http://localhost:2379"), "names are not resolved"},
		"no scheme":            {listen("/run/etcd.sock"), "want unix:///PATH"},
		"a relative socket":    {listen("unix://etcd.sock"), "three slashes"},
		"a long socket":        {listen("unix:///" + strings.Repeat("a", 200)), "at most 107 bytes"},
		"nowhere":              {listen(), "nothing to listen at"},
		"a relative folder":    {with(func(c *embedded.Config) { c.Dir = "data" }), "want a whole path"},
		"no name":              {with(func(c *embedded.Config) { c.Name = "a=b" }), "name is"},
		"no room":              {with(func(c *embedded.Config) { c.Quota = 1 }), "quota is 1 MiB"},
		"no past":              {with(func(c *embedded.Config) { c.Keep = time.Second }), "a minute at least"},
		"half a certificate":   {with(func(c *embedded.Config) { c.CertFile = pem }), "both or none"},
		"a file that is none":  {with(func(c *embedded.Config) { c.ClientCAFile = pem + ".none" }), "read PEM"},
		"several at a time":    {with(func(c *embedded.Config) { c.Quota, c.Keep = 0, 0 }), "quota"},
		"several, the second":  {with(func(c *embedded.Config) { c.Quota, c.Keep = 0, 0 }), "changes are kept"},
		"a path behind a port": {listen("http://127.0.0.1:1/x"), "want unix:///PATH"},
	}
	for name, tt := range tests {
		switch err := tt.c.Validate(); {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: %v does not say %q", name, err, tt.want)
		}
	}
}
