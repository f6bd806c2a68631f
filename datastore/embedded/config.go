package embedded

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"margay.dev/margay/datastore/etcd"
)

// Config says where a server keeps its data and who reaches it.
type Config struct {
	// Name is the member's name in its own data and log.
	Name string
	// Dir holds the data; it is made 0700 where there is none. One server has it at a
	// time.
	Dir string
	// Listen are where clients reach it: unix:///PATH for those of this machine,
	// whose folder is made 0700 where there is none and whose socket is 0600;
	// https://IP:PORT for others; http://IP:PORT on loopback addresses alone.
	Listen []string

	// CertFile and KeyFile are who the server is, in PEM, for https.
	CertFile, KeyFile string
	// ClientCAFile holds the authorities of the certificates that clients must have,
	// for https: who reaches a store of policy writes policy.
	ClientCAFile string

	// Quota is how much data it takes before it refuses to be written to, in MiB.
	Quota int
	// Keep is for how long it knows what changed: a watch that was away for longer
	// lists anew.
	Keep time.Duration
	// NoSync leaves it to the kernel when data comes to the disk: for tests, and
	// data that may be lost.
	NoSync bool
	// Log takes what etcd has to say; none is silence.
	Log *slog.Logger
}

// Default is a server for the agents of one machine.
func Default() Config {
	return Config{
		Name: "margay", Dir: "/var/lib/margay/etcd", Listen: []string{"unix://" + etcd.DefaultSocket},
		Quota: 2048, Keep: 10 * time.Minute,
	}
}

// longestSocket is how long a path the kernel takes for a Unix socket.
const longestSocket = 107

// Validate reports every fault.
func (c Config) Validate() error {
	var faults []error
	bad := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if c.Name == "" || strings.ContainsAny(c.Name, "=,") {
		bad("name is %q, want one without commas and equals signs", c.Name)
	}
	if !filepath.IsAbs(c.Dir) {
		bad("data folder is %q, want a whole path", c.Dir)
	}
	if c.Quota < 16 || c.Quota > 1<<20 {
		bad("quota is %d MiB, want 16 to %d", c.Quota, 1<<20)
	}
	if c.Keep < time.Minute {
		bad("changes are kept for %v, want a minute at least", c.Keep)
	}
	if len(c.Listen) == 0 {
		bad("nothing to listen at, want an address at least, as unix://%s", etcd.DefaultSocket)
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		bad("the certificate is %q and its key %q, want both or none", c.CertFile, c.KeyFile)
	}
	for _, file := range []string{c.CertFile, c.KeyFile, c.ClientCAFile} {
		if file == "" {
			continue
		}
		if _, err := os.ReadFile(file); err != nil {
			bad("read PEM: %w", err)
		}
	}
	for _, l := range c.Listen {
		if err := c.listens(l); err != nil {
			bad("listen at %s: %w", l, err)
		}
	}
	return errors.Join(faults...)
}

// listens says what is wrong with an address to listen at.
func (c Config) listens(at string) error {
	u, err := url.Parse(at)
	if err != nil {
		return err
	}
	if u.Scheme == "unix" {
		if u.Host != "" || !strings.HasPrefix(u.Path, "/") || len(u.Path) > longestSocket {
			return fmt.Errorf("want three slashes and a whole path of at most %d bytes", longestSocket)
		}
		return nil
	}
	addr, err := netip.ParseAddrPort(u.Host)
	switch {
	case u.Scheme != "http" && u.Scheme != "https", strings.Trim(u.Path, "/") != "":
		return errors.New("want unix:///PATH, https://IP:PORT or http://IP:PORT")
	case err != nil:
		return fmt.Errorf("want an address and a port, names are not resolved: %w", err)
	case u.Scheme == "https" && (c.CertFile == "" || c.ClientCAFile == ""):
		return errors.New("it needs a certificate with key, and the authorities of clients' certificates")
	case u.Scheme == "http" && !addr.Addr().IsLoopback():
		return errors.New("without TLS whoever reaches it writes policy: use https, or a loopback address")
	}
	return nil
}
