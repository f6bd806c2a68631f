package agent

import (
	"net/netip"
	"slices"
	"testing"

	"margay.dev/margay/dataplane/nft"
	"margay.dev/margay/datastore/connect"
	"margay.dev/margay/datastore/etcd"
	"margay.dev/margay/datastore/file"
)

func TestStoreDoors(t *testing.T) {
	door := func(port uint16, net string) nft.Failsafe {
		f := nft.Failsafe{Protocol: 6, Port: port}
		if net != "" {
			f.Net = netip.MustParsePrefix(net)
		}
		return f
	}
	for name, tt := range map[string]struct {
		store connect.Config
		want  []nft.Failsafe
	}{
		"the etcd of this machine": {},
		"a folder":                 {store: connect.Config{Folder: &file.Config{Dir: "/"}}},
		"its default":              {store: connect.Config{Etcd: &etcd.Config{}}},
		"a socket":                 {store: connect.Config{Etcd: &etcd.Config{Endpoints: []string{"unix:///run/s"}}}},
		"addresses of both families": {
			connect.Config{Etcd: &etcd.Config{Endpoints: []string{"https://10.0.0.1:12379", "https://[fd00::1]:2379", "https://[::ffff:10.0.0.2]:1"}}},
			[]nft.Failsafe{door(12379, "10.0.0.1/32"), door(2379, "fd00::1/128"), door(1, "10.0.0.2/32")},
		},
		"a name": {connect.Config{Etcd: &etcd.Config{Endpoints: []string{"http://store.example:4001/"}}}, []nft.Failsafe{door(4001, "")}},
		"none":   {store: connect.Config{Etcd: &etcd.Config{Endpoints: []string{"http://store.example", "http://a:99999", "://"}}}},
	} {
		if got := storeDoors(tt.store); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}
