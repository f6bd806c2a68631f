package harness

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"margay.dev/margay/internal/version"
)

// Score is how fast the machine was just then, so that figures of two machines,
// or of two hours, can be set against each other.
type Score struct {
	CPU     float64 `json:"cpu"`     // millions of steps a second of a chain of multiplications
	Memmove float64 `json:"memmove"` // GB/s of copying 32 MiB to and fro
}

// ThisMachine describes where it runs, and takes its score in about 0.2 s.
func ThisMachine(ctx context.Context) Machine {
	return Machine{Commit: version.Commit(), Kernel: kernel(), CPU: cpu(), Score: score(ctx)}
}

func kernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

func cpu() string {
	model := runtime.GOARCH
	b, _ := os.ReadFile("/proc/cpuinfo") // without it there is no better name
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
			model = strings.TrimSpace(v)
			break
		}
	}
	return fmt.Sprintf("%s x%d", model, runtime.NumCPU())
}

// score is the best of many short goes: what the machine can, not what it was let.
func score(ctx context.Context) (s Score) {
	const steps = 1 << 17
	a, b := make([]byte, 32<<20), make([]byte, 32<<20)
	copy(a, b) // so that every page of a is there
	copy(b, a)
	x := uint64(1)
	for end := time.Now().Add(200 * time.Millisecond); time.Now().Before(end) && ctx.Err() == nil; {
		start := time.Now()
		for range steps {
			x = (x ^ x>>29) * 0xff51afd7ed558ccd
		}
		s.CPU = max(s.CPU, steps/time.Since(start).Seconds()/1e6)
		start = time.Now()
		copy(a, b)
		s.Memmove = max(s.Memmove, float64(len(a))/time.Since(start).Seconds()/1e9)
		a, b = b, a
	}
	if x == 0 { // never, but the compiler cannot know and must keep the chain
		return Score{}
	}
	return s
}
