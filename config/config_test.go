package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

func TestDefaultIsValid(t *testing.T) {
	c, err := Load("")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
}

func TestParse(t *testing.T) {
	tests := map[string]struct {
		yaml string
		want string // part of the error; empty for none
	}{
		"an empty file is the defaults":   {"", ""},
		"fields over the defaults":        {"workers: 3\nspin: 50us\nlog: {level: debug}\n", ""},
		"a misspelt key":                  {"worker: 3\n", `unknown field "worker"`},
		"a misspelt key below":            {"log: {lvl: debug}\n", `unknown field "lvl"`},
		"a key twice":                     {"workers: 3\nworkers: 4\n", "already set"},
		"a number where there is none":    {"workers: many\n", "workers"},
		"a duration without a unit":       {"spin: 50\n", "duration is 50"},
		"a duration that is none":         {"spin: soon\n", "duration is"},
		"no YAML at all":                  {"\tworkers: [", "yaml"},
		"a list where a map should stand": {"log: [json]\n", "log"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "forwarder.yaml")
			if err := os.WriteFile(path, []byte(tt.yaml), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Load(path)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("load says %v, want %q", err, tt.want)
			}
		})
	}
}

func TestParseKeepsWhatIsNotSaid(t *testing.T) {
	c := Default()
	if err := Parse([]byte("spin: 50us\nlog: {level: debug}"), &c); err != nil {
		t.Fatal(err)
	}
	if time.Duration(c.Spin) != 50*time.Microsecond || c.Log.Level != "debug" || c.Log.Format != "text" || c.Frames != 16384 {
		t.Errorf("parsed to %+v", c)
	}
}

func TestValidateTellsEveryFault(t *testing.T) {
	c := Forwarder{
		Workers: 0, CPUs: []int{1, 1}, BusyPoll: "sometimes", Spin: Duration(-1), Burst: 257, Frames: 1, Supers: -1, Flows: 1, Established: "forever", FlowsFile: "flows",
		Socket: "here", StateDir: "there", Metrics: "0.0.0.0:80", Log: PacketLog{Log: Log{Format: "xml", Level: "loud"}, RuleBurst: 0, RuleEvery: -1},
	}
	err := c.Validate()
	if err == nil {
		t.Fatal("all of it is wrong, and it is accepted")
	}
	for _, want := range []string{
		"workers is 0, want 1 to 256", "cpus is [1 1], want one for each of 0 workers", "cpus[1] is 1", `busyPoll is "sometimes"`,
		"spin is -1ns", "burst is 257", "frames is 1", "supers is -1", "flows is 1", "flowsFile is", `established is "forever"`, "node is", "socket is", "stateDir is", "metrics is",
		"log.format is", "log.level is", "log.ruleBurst is 0, want 1 to 10000", "log.ruleEvery is -1ns, want 0s to 1h0m0s",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not told in:\n%v", want, err)
		}
	}
}

// Both sockets have names that the kernel takes: 107 bytes for the longer one.
func TestSocketLeavesRoomForTheOneOfHandOvers(t *testing.T) {
	c := Default()
	for n, ok := range map[int]bool{98: true, 99: false} {
		c.Socket = "/" + strings.Repeat("s", n-1)
		if err := c.Validate(); (err == nil) != ok {
			t.Errorf("a socket's path of %d bytes: %v", n, err)
		}
	}
}

// TestEveryKeyIsDocumented wants the example to be the defaults, with every key.
func TestEveryKeyIsDocumented(t *testing.T) {
	doc, err := os.ReadFile("../docs/CONFIG.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, _ := strings.Cut(string(doc), "```yaml\n")
	example, _, _ = strings.Cut(example, "```")
	var told Forwarder
	if err := Parse([]byte(example), &told); err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Node, want.Workers, want.CPUs = "localhost", 1, []int{} // those of a machine
	if !reflect.DeepEqual(told, want) {
		t.Errorf("the example says\n%+v, the defaults are\n%+v", told, want)
	}
	var keys, all map[string]any
	b, err := yaml.Marshal(want)
	if err := errors.Join(err, yaml.Unmarshal([]byte(example), &keys), yaml.Unmarshal(b, &all)); err != nil {
		t.Fatal(err)
	}
	all["spin"] = keys["spin"] // Go writes 30µs
	if !reflect.DeepEqual(keys, all) {
		t.Errorf("the example has\n%v, want\n%v", keys, all)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("workers: 2\ncpus: [0, 1]\nlog: {format: json}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := Default()
		if Parse(b, &c) == nil && c.Validate() == nil && (c.Workers < 1 || c.Frames < 64 || c.Metrics == "0.0.0.0:80") {
			t.Errorf("valid, but it is not: %+v", c)
		}
	})
}
