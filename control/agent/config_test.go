package agent

import (
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"margay.dev/margay/api/v3/felix"
	"margay.dev/margay/config"
	"margay.dev/margay/datastore/connect"
	"margay.dev/margay/datastore/etcd"
	"margay.dev/margay/datastore/file"
)

func TestTheDefaultsAreValid(t *testing.T) {
	c, err := LoadConfig("")
	if err == nil {
		c.Node = "n0"
		err = c.Validate()
	}
	if err != nil {
		t.Error(err)
	}
}

// TestEveryKeyIsDocumented wants the example in the documentation to be the defaults.
func TestEveryKeyIsDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/AGENT.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, _ := strings.Cut(string(doc), "```yaml\n")
	example, _, _ = strings.Cut(example, "```")
	var told Config
	if err := ParseConfig([]byte(example), &told); err != nil {
		t.Fatal(err)
	}
	want := DefaultConfig()
	want.Node = "localhost" // that of a machine
	if !reflect.DeepEqual(told, want) {
		t.Errorf("the example says\n%+v, the defaults are\n%+v", told, want)
	}
	for i := range reflect.TypeFor[Config]().NumField() {
		key, _, _ := strings.Cut(reflect.TypeFor[Config]().Field(i).Tag.Get("json"), ",")
		if !strings.Contains(string(doc), "`"+key+"`") && !strings.Contains("\n"+example, "\n"+key+":") {
			t.Errorf("%s is documented nowhere", key)
		}
	}
}

func TestValidateTellsEveryFault(t *testing.T) {
	c := Config{
		Node: "N 1", Store: connect.Config{Etcd: &etcd.Config{Endpoints: []string{"ftp://x"}}, Folder: &file.Config{Dir: "/nowhere"}}, Forwarder: "here", Socket: "/" + strings.Repeat("s", 107),
		StateDir: "there", Metrics: "0.0.0.0:80", HostPort: HostPort{Device: "a/b", MTU: 1, Addresses: []string{"10.0.0.1", "10.0.0.2", "fe80::1%eth0", "nothing"}},
		Uplinks: []Uplink{{Device: "eth0", MTU: 99999}, {Device: "eth0", Queues: 257}, {Device: "", Port: "a b"}},
		Address: Address{IPv4: "fd00::1", IPv6: "10.0.0.1/24", IPv4Method: "by-luck", IPv6Method: "interface=("}, Log: config.Log{Format: "xml", Level: "loud"},
	}
	c.Felix = &felix.Settings{}
	c.Felix.DefaultEndpointToHostAction = "Allow"
	c.Names.Grace.Duration = 25 * time.Hour
	err := c.Validate()
	if err == nil {
		t.Fatal("all of it is wrong, and it is accepted")
	}
	for _, want := range []string{
		`node is "N 1"`, "store: etcd and folder are given", "etcd: endpoints[0]", "folder: dir is", `forwarder is "here"`, "socket is", `stateDir is "there"`, "metrics is",
		`hostPort.device is "a/b"`, "hostPort.mtu is 1", "hostPort.addresses[1]", "hostPort.addresses[2]", "hostPort.addresses[3]", "uplinks[0].mtu is 99999", "uplinks[1].device is", "uplinks[1].queues is 257",
		`uplinks[2].device is ""`, `uplinks[2].port is "a b"`, `address.ipv4 is "fd00::1"`, "address.ipv4Method is", "address.ipv6 is", "address.ipv6Method is", "log.format is", "log.level is", "felix.defaultEndpointToHostAction", "names.grace is",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not told in:\n%v", want, err)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte("node: n1\nuplinks: [{device: eth0}]\naddress: {ipv4: none, ipv6: autodetect}\n"))
	f.Add([]byte("store: {etcd: {endpoints: [\"unix:///s\"]}}\nfelix: {defaultEndpointToHostAction: Accept}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := DefaultConfig()
		c.Store = connect.Config{}
		if ParseConfig(b, &c) != nil || c.Store.Etcd != nil || c.Store.Folder != nil { // those look at files
			return
		}
		if c.Validate() == nil && (c.Node == "" || c.Metrics == "0.0.0.0:80" || len(c.local(nil).Uplinks) != len(c.Uplinks)) {
			t.Errorf("valid, but it is not: %+v", c)
		}
	})
}
