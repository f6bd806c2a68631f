//go:build linux

package doctor

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"margay.dev/margay/internal/hostnet"
)

// program is the forwarder's executable.
const program = "margay-forwarder"

func (l look) kernel(own *hostnet.Namespace) Kernel {
	var k Kernel
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		k.Release = unix.ByteSliceToString(u.Release[:])
	}
	k.Major, k.Minor = parseRelease(k.Release)
	k.AFXDP = tryAFXDP()
	k.Memfd = tryMemfd()
	k.Tun, k.USO = tryTun(l.path("dev/net/tun"))
	k.BTF = Answer{State: Yes}
	if _, err := os.Stat(l.path("sys/kernel/btf/vmlinux")); err != nil {
		k.BTF = Answer{No, err.Error()}
	}
	k.JIT = l.jit(own)
	return k
}

// parseRelease reads the first two numbers of a kernel release; zeros if there
// are none.
func parseRelease(release string) (major, minor int) {
	if n, _ := fmt.Sscanf(release, "%d.%d", &major, &minor); n != 2 {
		return 0, 0
	}
	return major, minor
}

// jit is bpf_jit_enable, which only the first network namespace shows.
func (l look) jit(own *hostnet.Namespace) string {
	const key = "net.core.bpf_jit_enable"
	if v, err := own.Sysctl(key); err == nil {
		return v
	}
	first, err := hostnet.OpenNamespace(l.path("proc/1/ns/net"))
	if err != nil {
		return ""
	}
	defer first.Close()
	v, _ := first.Sysctl(key)
	return v
}

// answer turns the error of a trial into an Answer: what we may not try is unknown.
func answer(err error) Answer {
	switch {
	case err == nil:
		return Answer{State: Yes}
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return Answer{Unknown, err.Error()}
	}
	return Answer{No, err.Error()}
}

func tryAFXDP() Answer {
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		unix.Close(fd)
	}
	return answer(err)
}

func tryMemfd() Answer {
	fd, err := unix.MemfdCreate("margay-doctor", unix.MFD_CLOEXEC)
	if err == nil {
		unix.Close(fd)
	}
	return answer(err)
}

// tryTun makes a TUN as the forwarder would, in a network namespace that ends
// with the thread it is tried on, so that nobody on the node sees it come and go.
func tryTun(device string) (tun, uso Answer) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread and its namespace end here
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			tun = answer(fmt.Errorf("make a namespace to try it in: %w", err))
			uso = tun
			return
		}
		tun, uso = tryTunHere(device)
	}()
	<-done
	return tun, uso
}

func tryTunHere(device string) (tun, uso Answer) {
	fd, err := unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		a := answer(fmt.Errorf("open %s: %w", device, err))
		return a, a
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("margay-try%d")
	if err != nil {
		return answer(err), answer(err)
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_MULTI_QUEUE)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		return answer(err), answer(err)
	}
	const offloads = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6
	tun = answer(unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloads))
	return tun, answer(unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloads|unix.TUN_F_USO4|unix.TUN_F_USO6))
}

// process reads what this process may do, and who else is here.
func (l look) process() Process {
	p := Process{GoThreads: runtime.GOMAXPROCS(0), Memlock: math.MaxUint64}
	p.Capabilities = l.capabilities()
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit) == nil {
		p.Memlock = limit.Cur
	}
	var cpus unix.CPUSet
	if unix.SchedGetaffinity(0, &cpus) == nil {
		p.CPUs = cpus.Count()
	}
	p.Forwarders = l.forwarders()
	return p
}

// capabilities is the effective set of this process.
func (l look) capabilities() uint64 {
	status, _ := os.ReadFile(l.path("proc/self/status"))
	for line := range strings.Lines(string(status)) {
		if set, ok := strings.CutPrefix(line, "CapEff:"); ok {
			n, _ := strconv.ParseUint(strings.TrimSpace(set), 16, 64)
			return n
		}
	}
	return 0
}

// forwarders are the processes in our network namespace that run the forwarder.
func (l look) forwarders() []int {
	own := inode(l.path("proc/self/ns/net"))
	executables, _ := filepath.Glob(l.path("proc/[0-9]*/exe"))
	var pids []int
	for _, exe := range executables {
		target, err := os.Readlink(exe)
		name := strings.TrimSuffix(filepath.Base(target), " (deleted)")
		folder := filepath.Dir(exe)
		if err != nil || name != program || inode(filepath.Join(folder, "ns/net")) != own {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(folder)); err == nil {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids
}

// inode tells namespaces apart; 0 if it cannot be read.
func inode(path string) uint64 {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return 0
	}
	return st.Ino
}
