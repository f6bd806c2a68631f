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

// probe runs a fixed piece of work that wants all of a core. A core whose other
// hardware thread serves a neighbour of this virtual machine, or whose clock went
// down, takes longer over it; nothing else tells of that from inside.
type probe struct {
	cells [2048]uint64 // half of a level 1 cache
	best  time.Duration
	sink  uint64
}

// run is how long the work takes now: the better of two goes, for a preemption
// says nothing of the core.
func (p *probe) run() time.Duration {
	took := min(p.once(), p.once())
	if p.best == 0 || took < p.best {
		p.best = took
	}
	return took
}

func (p *probe) once() time.Duration {
	start := time.Now()
	var a, b, c, d uint64
	for range 16 {
		for i := 0; i+4 <= len(p.cells); i += 4 {
			a += p.cells[i] ^ b
			b += p.cells[i+1] + 1
			c ^= p.cells[i+2] + d
			d += p.cells[i+3] ^ 3
		}
	}
	p.sink += a + b + c + d
	return time.Since(start)
}

// slow is how much longer than at best the work took, as a share of the best.
func (p *probe) slow(took time.Duration) float64 {
	return float64(took-p.best) / float64(max(p.best, 1))
}
