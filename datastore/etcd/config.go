package etcd

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// DefaultSocket is where the etcd answers that a Margay of one machine brings
// with it.
const DefaultSocket = "/run/margay/etcd.sock"

// Config says where an etcd is, how it knows us and we know it.
type Config struct {
	// Endpoints are the members' addresses: https://10.0.0.1:2379, http://... without
	// TLS, unix:///run/margay/etcd.sock. All or none have TLS.
	Endpoints []string `json:"endpoints,omitempty"`
	// Prefix is below which our keys are; "/margay" where none is given.
	Prefix string `json:"prefix,omitempty"`

	// CAFile holds the authorities of the members' certificates, in PEM; the system's
	// where none is given. It is read once.
	CAFile string `json:"caFile,omitempty"`
	// CertFile and KeyFile are who we are, in PEM; both or none. They are read anew
	// for each connection, so that they may be renewed.
	CertFile string `json:"certFile,omitempty"`
	KeyFile  string `json:"keyFile,omitempty"`

	// Username, and the file of the password, for an etcd with users.
	Username     string `json:"username,omitempty"`
	PasswordFile string `json:"passwordFile,omitempty"`

	// Timeout is how long a request may take before the store counts as away; 5 s
	// where none is given.
	Timeout metav1.Duration `json:"timeout,omitzero"`
	// Heartbeat is how often a watch asks whether the store is still there, and
	// still the same; 5 s where none is given.
	Heartbeat metav1.Duration `json:"heartbeat,omitzero"`
}

// filled is the configuration with what it leaves out.
func (c Config) filled() Config {
	if len(c.Endpoints) == 0 {
		c.Endpoints = []string{"unix://" + DefaultSocket}
	}
	if c.Prefix == "" {
		c.Prefix = "/margay"
	}
	c.Prefix = path.Clean(c.Prefix)
	if c.Timeout.Duration == 0 {
		c.Timeout.Duration = 5 * time.Second
	}
	if c.Heartbeat.Duration == 0 {
		c.Heartbeat.Duration = 5 * time.Second
	}
	return c
}

// Where is the place in a word or two, for logs and errors.
func (c Config) Where() string { return "etcd at " + strings.Join(c.filled().Endpoints, ", ") }

// Validate reports every fault, also of files that cannot be read.
func (c Config) Validate() error {
	c = c.filled()
	var faults []error
	bad := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	secure := 0
	for i, e := range c.Endpoints {
		u, err := url.Parse(e)
		switch {
		case err != nil:
			bad("endpoints[%d] is %q: %w", i, e, err)
		case u.Scheme == "unix" && (u.Host != "" || !strings.HasPrefix(u.Path, "/")):
			bad("endpoints[%d] is %q, want three slashes and a whole path, as unix://%s", i, e, DefaultSocket)
		case u.Scheme != "unix" && (!slices.Contains([]string{"http", "https"}, u.Scheme) || u.Host == "" || strings.Trim(u.Path, "/") != ""):
			bad("endpoints[%d] is %q, want https://HOST:PORT, http://HOST:PORT or unix:///PATH", i, e)
		case u.Scheme == "https":
			secure++
		}
	}
	if secure != 0 && secure != len(c.Endpoints) {
		bad("endpoints are some with TLS and some without, want all the same: the client speaks one way")
	}
	if !strings.HasPrefix(c.Prefix, "/") || c.Prefix == "/" {
		bad("prefix is %q, want one that begins with a slash and names something", c.Prefix)
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		bad("certFile is %q and keyFile %q, want both or none", c.CertFile, c.KeyFile)
	}
	if secure == 0 && c.CAFile+c.CertFile != "" {
		bad("caFile or certFile is given, want an endpoint that begins with https://")
	}
	if (c.Username == "") != (c.PasswordFile == "") {
		bad("username is %q and passwordFile %q, want both or none", c.Username, c.PasswordFile)
	}
	if c.Timeout.Duration < 0 || c.Heartbeat.Duration < 0 {
		bad("timeout is %v and heartbeat %v, want more than 0", c.Timeout.Duration, c.Heartbeat.Duration)
	}
	if _, err := c.tls(); err != nil {
		faults = append(faults, err)
	}
	if _, err := c.password(); err != nil {
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

// password reads that of the user, without the end of its line.
func (c Config) password() (string, error) {
	if c.PasswordFile == "" {
		return "", nil
	}
	text, err := os.ReadFile(c.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("read passwordFile: %w", err)
	}
	return strings.TrimRight(string(text), "\r\n"), nil
}

// tls is how connections are made secure; nil where no endpoint asks for it.
func (c Config) tls() (*tls.Config, error) {
	if !slices.ContainsFunc(c.Endpoints, func(e string) bool { return strings.HasPrefix(e, "https://") }) {
		return nil, nil
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		text, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read caFile: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("caFile %s holds no certificate in PEM", c.CAFile)
		}
	}
	if c.CertFile == "" {
		return t, nil
	}
	load := func() (*tls.Certificate, error) {
		cert, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("read certFile and keyFile: %w", err)
		}
		return &cert, nil
	}
	if _, err := load(); err != nil {
		return nil, err
	}
	t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	return t, nil
}
