package connect_test

import (
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"margay.dev/margay/datastore/connect"
)

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	tests := map[string]struct {
		config string
		where  string
		faults []string // parts of the error
	}{
		"nothing":           {``, "etcd at unix:///run/margay/etcd.sock", nil},
		"an etcd":           {`etcd: {endpoints: ["http://10.0.0.1:2379", "http://[fd00::1]:2379"], timeout: 2s}`, "etcd at http://10.0.0.1:2379, http://[fd00::1]:2379", nil},
		"a folder":          {`folder: {dir: ` + dir + `, rescan: 1m}`, "folder " + dir, nil},
		"both":              {`{etcd: {}, folder: {dir: ` + dir + `}}`, "", []string{"want one of them"}},
		"no folder":         {`folder: {dir: ` + dir + `/none}`, "", []string{"folder: dir is"}},
		"faults everywhere": {`etcd: {endpoints: ["10.0.0.1:2379", "unix://etcd.sock", "https://a:1", "http://b:1"], prefix: x, certFile: a, username: b, timeout: -1s}`, "", []string{"etcd: endpoints[0]", "endpoints[1]", "some with TLS", "prefix is", "certFile is", "username is", "timeout is"}},
		"no authority":      {`etcd: {endpoints: ["https://[fd00::1]:2379"], caFile: ` + dir + `/none}`, "", []string{"read caFile"}},
		"TLS for nobody":    {`etcd: {endpoints: ["http://a:1"], caFile: b}`, "", []string{"begins with https"}},
		"no password":       {`etcd: {username: a, passwordFile: ` + dir + `/none}`, "", []string{"read passwordFile"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var c connect.Config
			if err := yaml.UnmarshalStrict([]byte(tt.config), &c); err != nil {
				t.Fatal(err)
			}
			s, err := connect.Open(c)
			if (err != nil) != (tt.faults != nil) {
				t.Fatalf("opened: %v", err)
			}
			for _, part := range tt.faults {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not say %q", err, part)
				}
			}
			if err != nil {
				return
			}
			if c.Where() != tt.where {
				t.Errorf("it is %s, want %s", c.Where(), tt.where)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
