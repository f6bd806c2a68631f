package xsk

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// inNamespace runs fn in the network namespace that fd names, or in the caller's
// when fd is negative.
func inNamespace(fd int, fn func() error) error {
	if fd < 0 {
		return fn()
	}
	return onMovedThread(func() error {
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace of descriptor %d: %w", fd, err)
		}
		return nil
	}, fn)
}

// inNewNamespace runs fn in a network namespace made for it, which lives as long
// as a socket opened there.
func inNewNamespace(fn func() error) error {
	return onMovedThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace (needs CAP_SYS_ADMIN): %w", err)
		}
		return nil
	}, fn)
}

// onMovedThread runs move, then fn, on a thread of their own and takes the thread
// back home. A thread that cannot be taken home ends with its goroutine, so that
// no other goroutine ever runs in the wrong namespace.
func onMovedThread(move, fn func() error) error {
	done := make(chan error, 1)
	go func() { done <- thereAndBack(move, fn) }() // nothing of it is left when the caller goes on
	return <-done
}

func thereAndBack(move, fn func() error) error {
	runtime.LockOSThread()
	home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open own network namespace: %w", err)
	}
	defer unix.Close(home)
	if err = move(); err == nil {
		err = fn()
	}
	if unix.Setns(home, unix.CLONE_NEWNET) == nil {
		runtime.UnlockOSThread()
	}
	return err
}
