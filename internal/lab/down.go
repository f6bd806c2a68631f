package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"margay.dev/margay/internal/hostnet"
	"margay.dev/margay/internal/lab/process"
)

// patience is how long a process may take to end after it was asked to.
const patience = 5 * time.Second

// Down takes the lab called name below base down: forwarders, whatever else runs
// in its namespaces, the namespaces with all devices, and its files. What is
// not there any more is no error, so that it may be called again after a crash
// at any point; ErrNotUp if there is nothing at all.
func Down(base, name string) error {
	unlock, err := lock(base)
	if err != nil {
		return err
	}
	defer unlock()
	return down(filepath.Join(base, name))
}

func down(dir string) error {
	r, err := read(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range r.Processes { // all are asked before any is waited for
		p.Signal(unix.SIGTERM)
	}
	for who, p := range r.Processes {
		if err := p.Stop(patience); err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", who, err))
		}
	}
	for _, name := range r.Namespaces {
		if err := empty(name); err != nil {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("take the lab down: %w (what is left is written down: try again)", err)
	}
	// The state file goes last but for its folder: a crash before leaves it for the next try.
	return errors.Join(os.RemoveAll(r.Topology.memoryDir()), clear(dir), os.Remove(filepath.Join(dir, stateFile)), os.Remove(dir))
}

// empty kills what runs in a namespace and removes it with all devices.
func empty(name string) error {
	path, err := hostnet.NamespacePath(name)
	if err != nil {
		return err
	}
	ns, err := hostnet.OpenNamespace(path)
	if err != nil { // not made, gone, or its file without a namespace
		return hostnet.DeleteNamespace(name)
	}
	defer ns.Close()
	left := -1
	if !process.Gone(patience, func() bool { left, err = kill(ns); return left == 0 || err != nil }) || err != nil {
		return fmt.Errorf("end %d processes in namespace %s: %w", left, name, errors.Join(err, os.ErrDeadlineExceeded))
	}
	return errors.Join(removeLinks(ns), hostnet.DeleteNamespace(name))
}

// kill ends what runs in the namespace and tells how much that was.
func kill(ns *hostnet.Namespace) (int, error) {
	pids, err := process.Inside(ns)
	n := 0
	for _, pid := range pids {
		if process.StartOf(pid) != "" { // a zombie is its parent's affair
			n++
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
	return n, err
}

// removeLinks removes the devices at once; the kernel would take its time after
// the namespace itself.
func removeLinks(ns *hostnet.Namespace) error {
	h, err := hostnet.NewHost(ns)
	if err != nil {
		return err
	}
	defer h.Close()
	links, err := h.Links()
	if err != nil {
		return err
	}
	var errs []error
	for _, l := range links {
		if l.Kind == "veth" || l.Kind == "tun" {
			errs = append(errs, h.DeleteLink(l.Name))
		}
	}
	return errors.Join(errs...)
}

// clear removes every file of a lab but its state file.
func clear(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != stateFile {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
