package stage

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestCPUOfAProcessGrowsWithItsWork(t *testing.T) {
	before, err := CPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(50 * time.Millisecond); time.Now().Before(end); {
	}
	after, err := CPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if took := after - before; took <= 0 || took > 30*time.Second {
		t.Errorf("50 ms of work took %v", took)
	}
	one, err := CPU(os.Getpid(), os.Getpid())
	all, errAll := CPU(os.Getpid()) // read later, so that it holds what one does
	if err != nil || errAll != nil || one <= 0 || one > all {
		t.Errorf("the first thread took %v (%v) of %v (%v)", one, err, all, errAll)
	}
	c := exec.Command("true")
	if err := c.Run(); err != nil {
		t.Fatal(err)
	}
	if _, err := CPU(c.Process.Pid); err == nil {
		t.Error("a process that is gone has CPU time")
	}
}

func TestBusyLeavesOutIdleAndInterrupts(t *testing.T) {
	tests := map[string]struct {
		stat string
		want time.Duration // 0: an error
	}{
		"a machine": {"cpu  100 20 300 9999 50 7 8 40 0 0\ncpu0 1 2 3 4\n", 4600 * time.Millisecond},
		"cut short": {"cpu  100 20 300", 0},
		"no number": {"cpu  100 twenty 300 9999 50 7 8 40 0 0", 0},
		"empty":     {"", 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := busy([]byte(tt.stat))
			if got != tt.want || (err != nil) != (tt.want == 0) {
				t.Errorf("got %v, %v; want %v", got, err, tt.want)
			}
		})
	}
	if got, err := Busy(); err != nil || got <= 0 {
		t.Errorf("this machine was busy for %v, %v", got, err)
	}
}

func TestOthersAreWhoIsLeft(t *testing.T) {
	cpus := time.Duration(runtime.NumCPU())
	for name, tt := range map[string]struct {
		busy, own time.Duration
		want      float64
	}{
		"half of the machine":    {cpus * time.Second, cpus * time.Second / 2, 0.5},
		"nobody":                 {time.Second, time.Second, 0},
		"ticks are coarse":       {time.Second, time.Second + 5*time.Millisecond, 0},
		"all of it, by somebody": {cpus * time.Second, 0, 1},
	} {
		if got := Others(tt.busy, tt.own, time.Second); got < tt.want-1e-9 || got > tt.want+1e-9 {
			t.Errorf("%s: others took %v, want %v", name, got, tt.want)
		}
	}
}

func TestWhatProgramsTook(t *testing.T) {
	got, err := machineTime([]byte("cpu  100 20 300 9999 50 7 8 40 0 0\n"), 1, 2, 8)
	if want := 1600 * time.Millisecond; got != want || err != nil {
		t.Errorf("programs took %v, %v; want %v, without the kernel's part", got, err, want)
	}
	before, err := ProgramOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	after := before
	for end := time.Now().Add(time.Minute); err == nil && after <= before && time.Now().Before(end); { // by ticks of 10 ms
		after, err = ProgramOf(os.Getpid())
	}
	all, errAll := Programs() // read later, so that it holds what one did
	if err != nil || errAll != nil || after <= before || after > all {
		t.Errorf("work took it from %v to %v (%v), all programs %v (%v)", before, after, err, all, errAll)
	}
	if _, err := ProgramOf(1 << 22); err == nil {
		t.Error("a process that cannot be has CPU time")
	}
}

const smaps = `7f0000000000-7f0004000000 rw-s 00000000 00:01 1234 /memfd:margay-arena (deleted)
Size:              65536 kB
Rss:                2048 kB
Pss:                2048 kB
00400000-00800000 r-xp 00000000 fe:00 99 /usr/bin/margay-forwarder
Rss:                 512 kB
c000000000-c000400000 rw-p 00000000 00:00 0
Rss:                 256 kB
SwapPss:               0 kB
`

func TestMemoryByWhatItHolds(t *testing.T) {
	if got, want := memory([]byte(smaps)), (Memory{Total: 2816 << 10, Packets: 2048 << 10}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got, err := MemoryOf(os.Getpid()); err != nil || got.Total < 1<<20 || got.Packets != 0 {
		t.Errorf("this test takes %+v, %v", got, err)
	}
}

func TestRaiseSaysWhatIsMissing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: who is not gets told just that")
	}
	_, err := Raise(t.Context(), "none", "", t.TempDir()+"/margay-forwarder")
	if err == nil || !strings.Contains(err.Error(), "make build") {
		t.Errorf("error is %v, want what to do about a forwarder that is not there", err)
	}
}
