package stage

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// CPU is the time that all threads of a process, or those of its tids given,
// have been on a CPU.
func CPU(pid int, tids ...int) (time.Duration, error) {
	pattern := fmt.Sprintf("/proc/%d/task/*/schedstat", pid)
	files, err := filepath.Glob(pattern)
	if len(tids) > 0 {
		files = nil
		for _, tid := range tids {
			files = append(files, fmt.Sprintf("/proc/%d/task/%d/schedstat", pid, tid))
		}
	}
	if err != nil || len(files) == 0 {
		return 0, fmt.Errorf("read CPU time of process %d: it is gone", pid)
	}
	var sum time.Duration
	for _, f := range files {
		b, err := os.ReadFile(f)
		if errors.Is(err, os.ErrNotExist) {
			continue // a thread that has just ended
		}
		word, _, _ := strings.Cut(string(b), " ")
		ns, perr := strconv.ParseInt(word, 10, 64)
		if err = errors.Join(err, perr); err != nil {
			return 0, fmt.Errorf("read CPU time of process %d: %w", pid, err)
		}
		sum += time.Duration(ns)
	}
	return sum, nil
}

// ticksPerSecond is the unit of /proc/stat, the same on every Linux that Go runs on.
const ticksPerSecond = 100

// Busy is the CPU time that all processes of the machine have taken, and the
// hypervisor from it; interrupts are left out.
func Busy() (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, fmt.Errorf("read the machine's CPU time: %w", err)
	}
	return busy(b)
}

func busy(stat []byte) (time.Duration, error) { return machineTime(stat, 1, 2, 3, 8) }

// Others is the share of the machine that others took in a while, of whose CPU
// time (Busy) that of one's own is known.
func Others(busy, own, while time.Duration) float64 {
	return max(0, busy-own).Seconds() / (while.Seconds() * float64(runtime.NumCPU()))
}

// Programs is the CPU time that all programs of the machine have taken for
// themselves, and the hypervisor from it; what the kernel did for them is left out.
func Programs() (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, fmt.Errorf("read the machine's CPU time: %w", err)
	}
	return machineTime(b, 1, 2, 8)
}

// machineTime adds up fields of the first line of /proc/stat.
func machineTime(stat []byte, fields ...int) (time.Duration, error) {
	line, _, _ := bytes.Cut(stat, []byte("\n"))
	f := strings.Fields(string(line)) // cpu user nice system idle iowait irq softirq steal ...
	if len(f) < 9 {
		return 0, fmt.Errorf("read the machine's CPU time: %q has %d fields, want at least 9", line, len(f))
	}
	var ticks int64
	for _, i := range fields {
		n, err := strconv.ParseInt(f[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read the machine's CPU time: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / ticksPerSecond, nil
}

// ProgramOf is the part of Programs that one process has taken.
func ProgramOf(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read CPU time of process %d: %w", pid, err)
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])) // its name, before, may hold anything
	if len(f) < 12 {
		return 0, fmt.Errorf("read CPU time of process %d: %q has %d fields behind the name, want at least 12", pid, b, len(f))
	}
	ticks, err := strconv.ParseInt(f[11], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read CPU time of process %d: %w", pid, err)
	}
	return time.Duration(ticks) * time.Second / ticksPerSecond, nil
}

// Memory is what of a process is in memory, in bytes.
type Memory struct {
	Total   int64
	Packets int64 // of that, the arena of packet buffers
}

// MemoryOf reads the memory of a process.
func MemoryOf(pid int) (Memory, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		return Memory{}, fmt.Errorf("read memory of process %d: %w", pid, err)
	}
	return memory(b), nil
}

// memory adds up the Rss lines of an smaps file, by the name of their mapping.
func memory(smaps []byte) (m Memory) {
	packets := false
	for s := bufio.NewScanner(bytes.NewReader(smaps)); s.Scan(); {
		f := strings.Fields(s.Text())
		switch {
		case len(f) >= 2 && f[0] == "Rss:":
			kib, _ := strconv.ParseInt(f[1], 10, 64)
			m.Total += kib << 10
			if packets {
				m.Packets += kib << 10
			}
		case len(f) >= 5 && strings.Contains(f[0], "-"): // address range, rights, offset, device, inode, name
			packets = strings.Contains(s.Text(), "memfd:margay-arena")
		}
	}
	return m
}
