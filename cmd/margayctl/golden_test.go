//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	dataplanev1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/internal/doctor"
)

var update = flag.Bool("update", false, "write the golden files anew")

// result is what a run printed, and how it ended.
type result struct {
	status   int
	out, err string
}

// try runs margayctl with a doctor that sees a node of ours, and with a clock that
// tells two seconds later whenever it is asked.
func try(t *testing.T, socket string, args ...string) result {
	t.Helper()
	var out, errOut bytes.Buffer
	env := func(key string) string { return map[string]string{socketVariable: socket}[key] }
	clock := time.Unix(0, 0)
	now := func() time.Time { clock = clock.Add(2 * time.Second); return clock }
	c := &ctl{out: &out, errOut: &errOut, env: env, diagnose: node, now: now}
	return result{c.run(t.Context(), args), out.String(), errOut.String()}
}

// node is what the doctor finds from outside.
func node(_ context.Context, o doctor.Options) ([]doctor.Finding, error) {
	found := []doctor.Finding{
		{Check: "kernel", Found: "kernel 6.18.0 has all"},
		{Check: "memlock", Severity: doctor.Note, Found: "this process may lock 8 MiB", Advice: "the forwarder's own limit is what counts"},
	}
	devices := o.Devices
	if len(devices) == 0 {
		devices = []doctor.DeviceSpec{{Name: "eth0", Candidate: true}}
	}
	for _, d := range devices {
		found = append(found, doctor.Finding{Check: "lro", Subject: d.Name, Severity: doctor.Warning, Found: "large receive offload is on", Advice: "ethtool -K " + d.Name + " lro off"})
	}
	return found, nil
}

// inside is what the forwarder finds itself.
func inside(worst dataplanev1.Diagnosis_Finding_Severity) *dataplanev1.Diagnosis {
	return &dataplanev1.Diagnosis{Findings: []*dataplanev1.Diagnosis_Finding{
		{Check: "memlock", Found: "no limit on locked memory"},
		{Check: "queues", Subject: "eth1", Severity: worst, Found: "4 queues receive, 2 sockets stand on them", Advice: "ethtool -L eth1 combined 2"},
	}}
}

const faultFound = dataplanev1.Diagnosis_Finding_SEVERITY_FAULT

func TestOutput(t *testing.T) {
	socket := serve(t, &forwarder{diagnosis: inside(faultFound)})
	lost := balanced()
	lost.Account.Tx--
	unnamed := balanced()
	unnamed.Drops[1].Packets--
	upset := serve(t, &forwarder{drops: lost, diagnosis: inside(dataplanev1.Diagnosis_Finding_SEVERITY_WARNING), status: &dataplanev1.Status{
		Version: "v0.1.0", Contract: 1, BootId: "77aa", Generation: 7, Restored: true, UptimeSeconds: 61, Frames: 64,
		Fallbacks:  []string{"pages of 4 KiB instead of huge ones"},
		Conditions: []*dataplanev1.Condition{{Object: "port/pod-a", Reason: "device-missing", Message: "no link eth0 in the namespace; make it, or remove the port"}},
	}})
	halfNamed := serve(t, &forwarder{drops: unnamed})
	quiet := serve(t, &forwarder{drops: &dataplanev1.DropList{Account: &dataplanev1.Account{}}})
	untold := serve(t, &fresh{})
	rolls := serve(t, &rolling{})
	tests := map[string]struct {
		socket string
		args   string
		status int
	}{
		"fresh-status":     {untold, "show status", 0},
		"fresh-ports":      {untold, "show ports", 0},
		"fresh-fib":        {untold, "show fib", 0},
		"fresh-neighbors":  {untold, "show neighbors", 0},
		"status":           {socket, "show status", 0},
		"status-restored":  {upset, "show status", 0},
		"nodes":            {socket, "show nodes", 0},
		"ports":            {socket, "show ports", 0},
		"ports-named":      {socket, "show ports pod-a uplink", 0},
		"ports-rate":       {rolls, "show ports --rate 1ms", 0},
		"ports-rate-named": {rolls, "show ports pod-a uplink new --rate 1ms", 0},
		"fib":              {socket, "show fib", 0},
		"fib-address4":     {socket, "show fib 10.1.0.2", 0},
		"fib-address6":     {socket, "show fib 2001:db8::1", 0},
		"fib-mapped":       {socket, "show fib ::ffff:10.1.0.2", 0},
		"fib-none":         {socket, "show fib 2001:dead::1", 0},
		"neighbors":        {socket, "show neighbors", 0},
		"drops":            {socket, "show drops", 0},
		"drops-all":        {socket, "show drops --all", 0},
		"drops-lost":       {upset, "show drops", 0},
		"drops-unnamed":    {halfNamed, "show drops", 0},
		"drops-none":       {quiet, "show drops", 0},
		"workers":          {socket, "show workers", 0},
		"trace":            {socket, "trace -f udp -n 4", 0},
		"why":              {socket, "why ann bob 81", 0},
		"why-allowed":      {socket, "why 10.1.0.2 10.1.0.3 80/tcp --source-port 4711", 0},
		"why-remote":       {socket, "why ann far icmp", 0},
		"why-no-route":     {socket, "why ann 10.9.9.9 53/udp", 0},
		"flows":            {socket, "flows", 0},
		"flows-filtered":   {socket, "flows --endpoint ann --host fd00::/64 --port 443 --proto TCP --denied --limit 1", 0},
		"flows-none":       {socket, "flows --proto 47", 0},
		"flows-summary":    {socket, "flows --summary", 0},
		"flows-untold":     {untold, "flows", 0},
		"summary-untold":   {untold, "flows --summary", 0},
		"policy-list":      {socket, "policy list", 0},
		"policy-untold":    {untold, "policy list", 0},
		"policy-show":      {socket, "policy show bob", 0},
		"policy-off":       {socket, "policy show pod/ann", 0},
		"policy-closed":    {socket, "policy show eve", 0},
		"doctor":           {socket, "doctor", 1},
		"doctor-device":    {socket, "doctor eth0 eth7", 1},
		"doctor-no-fault":  {upset, "doctor --brief", 0},
		"doctor-alone":     {"/nonexistent/margay.sock", "doctor", 0},
		"doctor-no-answer": {serve(t, &dataplanev1.UnimplementedInspectServer{}), "doctor", 1},
	}
	for name, tt := range tests {
		for _, format := range []string{"table", "json", "yaml"} {
			t.Run(name+"/"+format, func(t *testing.T) {
				got := try(t, tt.socket, append(strings.Fields(tt.args), "-o", format)...)
				if got.status != tt.status {
					t.Errorf("ended with %d, want %d\n%s", got.status, tt.status, got.err)
				}
				golden(t, name+"."+format, got.out)
				oneDocument(t, format, got.out)
			})
		}
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v (go test -update writes it)", err)
	}
	if got != string(want) {
		t.Errorf("not as in %s:\n%s\nwant\n%s", file, got, want)
	}
}

// oneDocument makes sure that programs can read what is for them.
func oneDocument(t *testing.T, format, out string) {
	t.Helper()
	var doc map[string]any
	var err error
	switch format {
	case "json":
		err = json.Unmarshal([]byte(out), &doc)
	case "yaml":
		err = yaml.UnmarshalStrict([]byte(out), &doc)
	default:
		return
	}
	if err != nil || len(doc) == 0 {
		t.Errorf("no document: %v\n%s", err, out)
	}
}

// Whatever the format, a run says the same: JSON and YAML are one document.
func TestJSONAndYAMLAgree(t *testing.T) {
	socket := serve(t, &forwarder{diagnosis: inside(faultFound)})
	for _, args := range []string{"show status", "show nodes", "show ports", "show fib", "show neighbors", "show drops", "show workers", "flows", "flows --summary", "policy list", "policy show bob", "trace", "why ann bob 81", "doctor", "version"} {
		t.Run(args, func(t *testing.T) {
			fromJSON := try(t, socket, append(strings.Fields(args), "-o", "json")...).out
			fromYAML, err := yaml.YAMLToJSON([]byte(try(t, socket, append(strings.Fields(args), "-o", "yaml")...).out))
			if err != nil {
				t.Fatal(err)
			}
			var a, b any
			if err := json.Unmarshal([]byte(fromJSON), &a); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(fromYAML, &b); err != nil {
				t.Fatal(err)
			}
			x, _ := json.Marshal(a)
			y, _ := json.Marshal(b)
			if !bytes.Equal(x, y) {
				t.Errorf("JSON says\n%s\nYAML says\n%s", x, y)
			}
		})
	}
}

// Wide tables are for people alone: they have no document of their own.
func TestWideTable(t *testing.T) {
	got := try(t, serve(t, &forwarder{}), "flows", "-o", "wide")
	if got.status != 0 {
		t.Errorf("ended with %d: %s", got.status, got.err)
	}
	golden(t, "flows.wide", got.out)
}
