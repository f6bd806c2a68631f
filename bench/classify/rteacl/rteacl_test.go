package rteacl

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"margay.dev/margay/bench/classbench"
	"margay.dev/margay/classifier"
)

// build returns the driver, or skips where DPDK is not installed.
func build(t *testing.T) string {
	t.Helper()
	if err := exec.Command("pkg-config", "--exists", "libdpdk").Run(); err != nil {
		t.Skip("needs libdpdk: hack/deps.sh libdpdk-dev pkg-config")
	}
	program, err := Build(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return program
}

func shipped(t *testing.T) ([]classifier.Rule, []classbench.Header) {
	t.Helper()
	f, err := os.Open("../../testdata/ipc1_1k.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	list, err := classbench.ReadRules(f)
	if err != nil {
		t.Fatal(err)
	}
	return list, classbench.MakeTrace(list, 1300, 1)
}

func TestEveryMethodIsRight(t *testing.T) {
	program := build(t)
	list, trace := shipped(t)
	trace[7].Answer++ // one answer that is not true must be found
	p, err := Start(t.Context(), time.Minute, program, list, trace, 512)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if p.Built <= 0 || p.Bytes <= 0 || len(p.Methods) == 0 || p.Methods[0] != "scalar" {
		t.Fatalf("built in %v, %d bytes, methods %q", p.Built, p.Bytes, p.Methods)
	}
	for _, m := range p.Methods {
		for _, burst := range []int{1, 32, 256} {
			took := make([]float64, 3)
			wrong, err := p.Pass(m, burst, took)
			if err != nil || wrong != 1 || took[0] <= 0 || took[2] <= 0 {
				t.Errorf("%s in bursts of %d: %d wrong, %v, %v", m, burst, wrong, took, err)
			}
		}
	}
	if _, err := p.Pass("none", 1, make([]float64, 3)); err == nil || !strings.Contains(err.Error(), "method none is not there") {
		t.Errorf("a method that is not there: %v", err)
	}
	if _, err := p.Pass("scalar", 1, make([]float64, 3)); err == nil {
		t.Error("a driver that has ended goes on")
	}
}

func TestFaultsAreTold(t *testing.T) {
	list, trace := shipped(t)
	fake := func(script string) string {
		path := filepath.Join(t.TempDir(), "driver")
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, tt := range map[string]struct {
		program, want string
		patience      time.Duration
	}{
		"no program":        {"/does/not/exist", "start librte_acl", time.Minute},
		"it says why":       {fake("echo usage; echo error no memory; cat >/dev/null"), "no memory", time.Minute},
		"it dies":           {fake("echo out of luck >&2; exit 3"), "out of luck", time.Minute},
		"it takes too long": {fake("exec sleep 60"), "it had not built its tables after 100ms", time.Second / 10},
		"its words are odd": {fake("echo built much; cat >/dev/null"), "want what its tables took", time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := Start(t.Context(), tt.patience, tt.program, list, trace, 512)
			if err == nil {
				p.Close()
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q in it", err, tt.want)
			}
		})
	}
	// One that answers a pass with too little.
	short, err := Start(t.Context(), time.Minute, fake("echo built 5 6; echo methods scalar; echo 0 1; cat >/dev/null"), list, trace, 512)
	if err != nil {
		t.Fatal(err)
	}
	defer short.Close()
	if short.Built != 5*time.Nanosecond || short.Bytes != 6 {
		t.Errorf("%v, %d bytes", short.Built, short.Bytes)
	}
	if _, err := short.Pass("scalar", 1, make([]float64, 3)); err == nil || !strings.Contains(err.Error(), "1 chunks, want 3") {
		t.Errorf("a pass cut short: %v", err)
	}
}
