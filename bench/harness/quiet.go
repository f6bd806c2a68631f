package harness

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// quiet watches how long the calling thread waits for a CPU: field two of its
// schedstat, nanoseconds on run queues.
type quiet struct {
	file   *os.File
	buf    [64]byte
	waited uint64
	start  time.Time
}

func newQuiet() *quiet {
	f, err := os.Open(fmt.Sprintf("/proc/self/task/%d/schedstat", unix.Gettid()))
	if err != nil {
		return &quiet{} // a kernel without it: every window counts as quiet
	}
	return &quiet{file: f}
}

func (q *quiet) close() {
	if q.file != nil {
		q.file.Close()
	}
}

func (q *quiet) begin() {
	q.waited = q.read()
	q.start = time.Now()
}

// end is the share of the time since begin that the thread waited.
func (q *quiet) end() float64 {
	took := time.Since(q.start)
	return float64(q.read()-q.waited) / float64(max(took, 1))
}

func (q *quiet) read() uint64 {
	if q.file == nil {
		return 0
	}
	n, _ := q.file.ReadAt(q.buf[:], 0)
	return number(q.buf[:n], 1)
}

// number is field i of a line of decimal numbers, 0 if it has none.
func number(line []byte, i int) (v uint64) {
	fields := bytes.Fields(line)
	if i >= len(fields) {
		return 0
	}
	v, _ = strconv.ParseUint(string(fields[i]), 10, 64)
	return v
}

// stolen is a reading of /proc/stat: ticks that all CPUs had, and those that
// the hypervisor gave to others.
type stolen struct{ all, steal uint64 }

func (*quiet) steal() stolen { return readStolen() }

func readStolen() stolen {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return stolen{}
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	var s stolen
	for i := 1; i <= 8; i++ { // user nice system idle iowait irq softirq steal
		s.all += number(line, i)
	}
	s.steal = number(line, 8)
	return s
}

// since is the share of CPU time that was stolen from then to now.
func (s stolen) since() float64 {
	now := readStolen()
	if now.all <= s.all {
		return 0
	}
	return float64(now.steal-s.steal) / float64(now.all-s.all)
}

// load is the machine's load average over one minute.
func load() float64 {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	word, _, _ := bytes.Cut(b, []byte(" "))
	v, _ := strconv.ParseFloat(string(word), 64)
	return v
}
