package agent

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// becomeWithoutNetfilter has this process become the given program, for which the
// kernel answers with an errno when it asks for a netlink socket to netfilter. It comes
// back where it fails.
func becomeWithoutNetfilter(errno string, argv []string) error {
	number, err := strconv.ParseUint(errno, 10, 16)
	if err != nil {
		return fmt.Errorf("read an errno: %w", err)
	}
	runtime.LockOSThread()
	const call, family, protocol = 0, 16, 32 // where the kernel shows the number of a system call, and its first and third argument
	ret := func(k uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k} }
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	unless := func(is uint32, skip uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: is, Jf: skip}
	}
	filter := []unix.SockFilter{
		load(call), unless(unix.SYS_SOCKET, 5),
		load(family), unless(unix.AF_NETLINK, 3),
		load(protocol), unless(unix.NETLINK_NETFILTER, 1),
		ret(unix.SECCOMP_RET_ERRNO | uint32(number)),
		ret(unix.SECCOMP_RET_ALLOW),
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("forgo new privileges: %w", err)
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0); err != nil {
		return fmt.Errorf("filter system calls: %w", err)
	}
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, withoutNetfilter) {
			env = append(env, v)
		}
	}
	return fmt.Errorf("become %q: %w", argv, unix.Exec(argv[0], argv, env))
}
