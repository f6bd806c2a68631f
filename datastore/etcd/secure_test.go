package etcd_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"margay.dev/margay/datastore"
	"margay.dev/margay/datastore/embedded"
	"margay.dev/margay/datastore/etcd"
)

// authority signs certificates.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

// pair makes a certificate that is signed by parent, or by itself, with something
// changed in it, and gives its files.
func pair(t *testing.T, dir, name string, parent *authority, change ...func(*x509.Certificate)) (*authority, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IsCA:        parent == nil, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	for _, alter := range change {
		alter(c)
	}
	signer, by := c, key
	if parent != nil {
		signer, by = parent.cert, parent.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, signer, &key.PublicKey, by)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	files := [2]string{filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")}
	for i, block := range []*pem.Block{{Type: "CERTIFICATE", Bytes: der}, {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(files[i], pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{dir, parsed, key, files[0]}, files[1]
}

// free is a port that nobody listened at a moment ago.
func free(t *testing.T) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// presenting is who shows a certificate to all who connect, and does nothing else.
func presenting(t *testing.T, certFile, keyFile string) (endpoint string) {
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.(*tls.Conn).Handshake() // the other side may not like it
			_ = c.Close()
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return "https://" + l.Addr().String()
}

// Over TLS the store is for those whose certificate it knows, and who knows it; all
// others are told why not.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	expired := func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	}
	ca, _ := pair(t, dir, "ca", nil)
	strangers, _ := pair(t, dir, "strangers", nil)
	server, serverKey := pair(t, dir, "server", ca)
	client, clientKey := pair(t, dir, "client", ca)
	former, formerKey := pair(t, dir, "former", ca, expired)
	stranger, strangerKey := pair(t, dir, "stranger", strangers)
	old, oldKey := pair(t, dir, "old", ca, expired)
	other, otherKey := pair(t, dir, "other", ca, func(c *x509.Certificate) {
		c.IPAddresses, c.DNSNames = []net.IP{net.IPv4(10, 0, 0, 1), net.ParseIP("fd00::1")}, []string{"etcd.example"}
	})
	person, personKey := pair(t, dir, "person", ca, func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[1:] })
	port := free(t)
	cfg := embedded.Default()
	cfg.Dir, cfg.NoSync = filepath.Join(dir, "data"), true
	cfg.Listen = []string{fmt.Sprintf("https://127.0.0.1:%d", port), fmt.Sprintf("https://[::1]:%d", port)}
	cfg.CertFile, cfg.KeyFile, cfg.ClientCAFile = server.file, serverKey, ca.file
	s, err := embedded.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	us := func(endpoints ...string) etcd.Config {
		return etcd.Config{Endpoints: endpoints, CAFile: ca.file, CertFile: client.file, KeyFile: clientKey}
	}
	var all sync.WaitGroup // most of them wait
	for name, tt := range map[string]struct {
		cfg  etcd.Config
		says string // part of the error; "" for none
	}{
		"one of us":                 {us(cfg.Listen[0]), ""},
		"one of us over IPv6":       {us(cfg.Listen[1]), ""},
		"without a certificate":     {etcd.Config{Endpoints: cfg.Listen, CAFile: ca.file}, "certificate required"},
		"a stranger":                {etcd.Config{Endpoints: cfg.Listen, CAFile: ca.file, CertFile: stranger.file, KeyFile: strangerKey}, "tls: "},
		"one of us once":            {etcd.Config{Endpoints: cfg.Listen, CAFile: ca.file, CertFile: former.file, KeyFile: formerKey}, "tls: "},
		"to whom it is a stranger":  {etcd.Config{Endpoints: cfg.Listen, CAFile: strangers.file, CertFile: client.file, KeyFile: clientKey}, "unknown authority"},
		"without TLS":               {etcd.Config{Endpoints: []string{strings.Replace(cfg.Listen[0], "https", "http", 1)}}, "no connection to etcd at http://"},
		"at one that has expired":   {us(presenting(t, old.file, oldKey)), "expired"},
		"at one of another name":    {us(presenting(t, other.file, otherKey)), "10.0.0.1, fd00::1, not 127.0.0.1"},
		"at one that is no server":  {us(presenting(t, person.file, personKey)), "incompatible key usage"},
		"at one of other authority": {us(presenting(t, stranger.file, strangerKey)), "unknown authority"},
	} {
		tt.cfg.Timeout = metav1.Duration{Duration: time.Second}
		if tt.says == "" {
			tt.cfg.Timeout.Duration = 20 * time.Second
		}
		c, err := etcd.Open(tt.cfg)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all.Go(func() {
			_, err := c.List(t.Context(), datastore.Scope{})
			for range 20 { // a handshake may take longer on a busy machine
				if err == nil || strings.Contains(err.Error(), tt.says) {
					break
				}
				_, err = c.List(t.Context(), datastore.Scope{})
			}
			if (tt.says == "") != (err == nil) || err != nil && (!errors.Is(err, datastore.ErrUnavailable) || !strings.Contains(err.Error(), tt.says)) {
				t.Errorf("%s: %v does not say %q", name, err, tt.says)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// An etcd with users keeps out whom it does not know, and shows each what is his.
func TestUsers(t *testing.T) {
	dir := t.TempDir()
	endpoint, _ := serve(t, filepath.Join(dir, "data"), filepath.Join(dir, "etcd.sock"))
	admin := raw(t, endpoint)
	ctx := t.Context()
	var faults []error
	try := func(_ any, err error) { faults = append(faults, err) }
	try(admin.UserAdd(ctx, "root", "r"))
	try(admin.UserGrantRole(ctx, "root", "root"))
	try(admin.RoleAdd(ctx, "reader"))
	try(admin.RoleGrantPermission(ctx, "reader", "/margay/", "/margay0", clientv3.PermissionType(clientv3.PermRead)))
	try(admin.UserAdd(ctx, "reader", "secret"))
	try(admin.UserGrantRole(ctx, "reader", "reader"))
	try(admin.AuthEnable(ctx))
	if err := errors.Join(faults...); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		user, password string
		read, write    error
	}{
		"nobody":           {"", "", datastore.ErrDenied, datastore.ErrDenied},
		"a reader":         {"reader", "secret\n", nil, datastore.ErrDenied},
		"a wrong password": {"reader", "guess", datastore.ErrDenied, datastore.ErrDenied},
		"root":             {"root", "r", nil, nil},
	} {
		cfg := etcd.Config{Endpoints: []string{endpoint}, Username: tt.user, Timeout: metav1.Duration{Duration: 20 * time.Second}}
		if tt.user != "" {
			cfg.PasswordFile = filepath.Join(dir, "password")
			if err := os.WriteFile(cfg.PasswordFile, []byte(tt.password), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s, err := etcd.Open(cfg)
		if err != nil {
			if !errors.Is(err, tt.read) {
				t.Errorf("%s: opened: %v", name, err)
			}
			continue
		}
		if _, err := s.List(ctx, datastore.Scope{}); !errors.Is(err, tt.read) {
			t.Errorf("%s: listed: %v", name, err)
		}
		if _, err := s.Create(ctx, set("a", "10.0.0.0/8")); !errors.Is(err, tt.write) {
			t.Errorf("%s: created: %v", name, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A store that is full says so, and what is in it can still be read.
func TestFull(t *testing.T) {
	if testing.Short() {
		t.Skip("fills 16 MiB")
	}
	dir := t.TempDir()
	cfg := embedded.Default()
	cfg.Dir, cfg.Listen, cfg.NoSync, cfg.Quota = filepath.Join(dir, "data"), []string{"unix://" + filepath.Join(dir, "etcd.sock")}, true, 16
	server, err := embedded.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	s, client := open(t, cfg.Listen[0], "/margay"), raw(t, cfg.Listen[0])
	create(t, s, set("a", "10.0.0.0/8"))
	for i := range 64 {
		if _, err := client.Put(t.Context(), fmt.Sprint("/elsewhere/", i), strings.Repeat("x", 1<<20)); err != nil {
			break
		}
	}
	if _, err := s.Create(t.Context(), set("b", "10.0.0.0/8")); !errors.Is(err, datastore.ErrUnavailable) || !strings.Contains(err.Error(), "quota") {
		t.Errorf("created in a full store: %v", err)
	}
	if l, err := s.List(t.Context(), datastore.Scope{}); err != nil || len(l.Objects) != 1 {
		t.Errorf("%+v is listed: %v", l, err)
	}
}
