// Package rteacl asks DPDK's librte_acl, by a driver in C that it builds where
// DPDK is installed: another process, so that the bench needs no cgo and a crash
// over there stays there.
package rteacl

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	_ "embed" // of the driver
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"margay.dev/margay/bench/classbench"
	"margay.dev/margay/classifier"
)

//go:embed driver/main.c
var driver []byte // arch:var embedded

// Build compiles the driver, unless that was done before, and returns its path.
// It needs cc, pkg-config and libdpdk-dev, and says which is missing.
func Build(ctx context.Context) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	sum := sha256.Sum256(driver)
	dir := filepath.Join(cache, "margay-bench")
	program := filepath.Join(dir, "rte-acl-"+hex.EncodeToString(sum[:8]))
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("build the driver of librte_acl: %w", err)
	}
	said, err := exec.CommandContext(ctx, "pkg-config", "--cflags", "--libs", "libdpdk").Output()
	if err != nil {
		return "", fmt.Errorf("build the driver of librte_acl: ask pkg-config for libdpdk: %w: install it with hack/deps.sh libdpdk-dev pkg-config", err)
	}
	// Beside its place and then moved, so that nobody starts half of it.
	half := fmt.Sprintf("%s.%d", program, os.Getpid())
	defer os.Remove(half)
	args := append([]string{"-O3", "-x", "c", "-", "-o", half}, strings.Fields(string(said))...)
	cc := exec.CommandContext(ctx, "cc", args...)
	cc.Stdin = bytes.NewReader(driver)
	if out, err := cc.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the driver of librte_acl: %w: %s", err, firstLine(out))
	}
	if err := os.Rename(half, program); err != nil {
		return "", fmt.Errorf("build the driver of librte_acl: %w", err)
	}
	return program, nil
}

func firstLine(b []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	return line
}

// Peer is a driver with a set and a trace in it.
type Peer struct {
	Methods []string // those that this CPU and DPDK have, by their names there
	Built   time.Duration
	Bytes   int // of the tables that it looks up in

	cmd    *exec.Cmd
	cancel context.CancelFunc // ends it at once
	in     io.WriteCloser
	out    *bufio.Reader
	said   *bytes.Buffer // on standard error
}

// memory is what DPDK may take for its tables, in MiB: more than any set of
// 100,000 rules was seen to want.
const memory = "8192"

// Start gives a driver a list, as classbench reads them, and a trace, and waits
// until it has built its tables, which may take it as long as patience lasts. ctx
// ends it at any time. Who starts it closes it.
func Start(ctx context.Context, patience time.Duration, program string, list []classifier.Rule, trace []classbench.Header, chunk int) (*Peer, error) {
	ctx, cancel := context.WithCancel(ctx)
	p, err := start(ctx, program)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("start librte_acl: %w", err)
	}
	p.cancel = cancel
	patient := time.AfterFunc(patience, cancel)
	err = p.load(list, trace, chunk)
	if !patient.Stop() {
		err = fmt.Errorf("it had not built its tables after %v", patience.Round(time.Millisecond))
	}
	if err != nil {
		p.Close()
		return nil, fmt.Errorf("start librte_acl: %w", err)
	}
	return p, nil
}

// start starts a driver that has no rules yet.
func start(ctx context.Context, program string) (*Peer, error) {
	p := &Peer{said: &bytes.Buffer{}}
	p.cmd = exec.CommandContext(ctx, program, "--no-huge", "-m", memory, "--no-pci", "--no-telemetry", "--no-shconf",
		"--log-level=error", "--force-max-simd-bitwidth=512")
	p.cmd.Stderr = p.said
	in, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.in, p.out = in, bufio.NewReader(out)
	return p, p.cmd.Start()
}

func (p *Peer) load(list []classifier.Rule, trace []classbench.Header, chunk int) error {
	_, unread := p.in.Write(encode(list, trace, chunk))
	line, err := p.line()
	for err == nil && !strings.HasPrefix(line, "built ") { // DPDK's usage, before an error
		line, err = p.line()
	}
	if err = cmp.Or(err, unread); err != nil {
		return err
	}
	var nanos int64
	if _, err := fmt.Sscanf(line, "built %d %d", &nanos, &p.Bytes); err != nil {
		return fmt.Errorf("it says %q, want what its tables took", line)
	}
	p.Built = time.Duration(nanos)
	line, err = p.line()
	p.Methods = strings.Fields(strings.TrimPrefix(line, "methods"))
	return err
}

// encode writes the records of driver/main.c.
func encode(list []classifier.Rule, trace []classbench.Header, chunk int) []byte {
	ne := binary.NativeEndian
	b := ne.AppendUint32(nil, uint32(len(list)))
	b = ne.AppendUint32(b, uint32(len(trace)))
	b = ne.AppendUint32(b, uint32(chunk))
	for i := range list {
		r := &list[i]
		source, sourceBits := prefix(&r.Source)
		destination, destinationBits := prefix(&r.Destination)
		b = ne.AppendUint32(ne.AppendUint32(b, source), destination)
		b = append(b, sourceBits, destinationBits)
		if len(r.Protocols) == 0 {
			b = append(b, 0, 0)
		} else {
			b = append(b, uint8(r.Protocols[0].First), 0xff)
		}
		for _, s := range []*classifier.Side{&r.Source, &r.Destination} {
			ports := classifier.Range{First: 0, Last: 65535}
			if len(s.Ports) > 0 {
				ports = s.Ports[0]
			}
			b = ne.AppendUint16(ne.AppendUint16(b, ports.First), ports.Last)
		}
	}
	for i := range trace {
		k := trace[i].Key
		b = ne.AppendUint32(ne.AppendUint32(b, k.Source()), k.Destination())
		b = ne.AppendUint16(ne.AppendUint16(b, k.SourcePort()), k.DestinationPort())
		b = ne.AppendUint32(ne.AppendUint32(b, uint32(k.Protocol())), uint32(trace[i].Answer+1))
	}
	return b
}

func prefix(s *classifier.Side) (address uint32, bits uint8) {
	if len(s.Nets) == 0 {
		return 0, 0
	}
	a := s.Nets[0].Addr().As4()
	return binary.BigEndian.Uint32(a[:]), uint8(s.Nets[0].Bits())
}

// Pass walks over the trace once by a method, in bursts of 1 to 256. It puts the
// nanoseconds of each chunk into took, and returns how many answers were wrong.
func (p *Peer) Pass(method string, burst int, took []float64) (wrong int, err error) {
	if _, err := fmt.Fprintf(p.in, "%s %d\n", method, burst); err != nil {
		return 0, fmt.Errorf("ask librte_acl: %w", err)
	}
	line, err := p.line()
	if err != nil {
		return 0, fmt.Errorf("ask librte_acl: %w", err)
	}
	words := strings.Fields(line)
	if len(words) != len(took)+1 {
		return 0, fmt.Errorf("ask librte_acl: it timed %d chunks, want %d", len(words)-1, len(took))
	}
	if wrong, err = strconv.Atoi(words[0]); err != nil {
		return 0, fmt.Errorf("ask librte_acl: %w", err)
	}
	for i, w := range words[1:] {
		if took[i], err = strconv.ParseFloat(w, 64); err != nil {
			return 0, fmt.Errorf("ask librte_acl: %w", err)
		}
	}
	return wrong, nil
}

// line reads one line, or why there is none.
func (p *Peer) line() (string, error) {
	line, err := p.out.ReadString('\n')
	line = strings.TrimSuffix(line, "\n")
	switch told, isError := strings.CutPrefix(line, "error "); {
	case isError:
		return "", errors.New(told)
	case err != nil:
		p.Close() // so that all that it said is there
		return "", fmt.Errorf("it ended: %w: %s", err, firstLine(p.said.Bytes()))
	}
	return line, nil
}

// Close ends the driver, and may be called again.
func (p *Peer) Close() {
	p.in.Close()
	if p.cmd.ProcessState == nil {
		p.cmd.Wait() // an end by a signal is no news to who closes it
	}
	p.cancel()
}
