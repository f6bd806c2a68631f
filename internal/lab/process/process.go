// Package process is the processes of a lab: begun in a namespace, found again by a
// later run, and ended for sure.
package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"margay.dev/margay/internal/hostnet"
)

// Process is one that a lab started. The start time tells it from a later one of the
// same id.
type Process struct {
	PID     int    `json:"pid"`
	Started string `json:"started"` // clock ticks since boot

	ended chan struct{} // closed at its end; nil where an earlier run started it
	err   error         // how it ended; read after that
}

// Start runs a program inside a namespace, in a session of its own so that it
// outlives who started it, with its output appended to a log file.
func Start(ns *hostnet.Namespace, log string, argv ...string) (*Process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := ns.Do(cmd.Start); err != nil {
		return nil, fmt.Errorf("start %s: %w", filepath.Base(argv[0]), err)
	}
	p := &Process{PID: cmd.Process.Pid, ended: make(chan struct{})}
	p.Started = StartOf(p.PID)
	go func() { // ends with the process, and leaves no zombie of it
		defer close(p.ended)
		p.err = cmd.Wait()
	}()
	return p, nil
}

// Outcome waits for the end of a process, which is dead or about to be, and tells
// how it ended; nil for status 0, and for one that an earlier run started.
func (p *Process) Outcome() error {
	if p.ended == nil {
		return nil
	}
	<-p.ended
	return p.err
}

// Alive tells whether the process is still there and is the same.
func (p *Process) Alive() bool {
	return p != nil && p.Started != "" && StartOf(p.PID) == p.Started
}

// Signal sends to the process if it is still the same.
func (p *Process) Signal(sig unix.Signal) {
	if p.Alive() {
		_ = unix.Kill(p.PID, sig)
	}
}

// Stop asks the process to end, and kills it when it has not after patience.
func (p *Process) Stop(patience time.Duration) error {
	p.Signal(unix.SIGTERM)
	if Gone(patience, func() bool { return !p.Alive() }) {
		return nil
	}
	p.Signal(unix.SIGKILL)
	if Gone(patience, func() bool { return !p.Alive() }) {
		return nil
	}
	return fmt.Errorf("process %d does not end, even when killed", p.PID)
}

// Gone waits until something is done, and reports whether that was before patience ended.
func Gone(patience time.Duration, done func() bool) bool {
	for end := time.Now().Add(patience); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// StartOf reads when a process started, in clock ticks since boot; empty for one
// that is gone or dead. A killed one is not dead before its last thread is: until
// then its files are open and locked, though its first thread is a zombie.
func StartOf(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// The name, in parentheses, may hold anything; fields count from behind it.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 20 || fields[0] == "X" || fields[0] == "Z" && !threaded(pid) {
		return ""
	}
	return fields[19]
}

// threaded tells whether a process has threads beside its first.
func threaded(pid int) bool {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	return err == nil && len(tasks) > 1
}

// Inside lists the processes, other than ourselves, that live in a namespace.
func Inside(ns *hostnet.Namespace) ([]int, error) {
	id, err := ns.Identity()
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var out []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		var st unix.Stat_t
		if unix.Stat(fmt.Sprintf("/proc/%d/ns/net", pid), &st) == nil && st.Ino == id.Inode {
			out = append(out, pid)
		}
	}
	return out, nil
}

// Tail is the end of a log file, for errors.
func Tail(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	if len(lines) == 1 && lines[0] == "" {
		return "it logged nothing"
	}
	return strings.Join(lines[max(0, len(lines)-8):], "\n\t")
}

// ErrEnded says that a process has ended that was needed.
var ErrEnded = errors.New("it has ended")
