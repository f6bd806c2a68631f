package xsk

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Error is a refusal of the kernel, explained: what was tried, where, why it was
// refused and what to do. errors.Is finds the unix.Errno in it.
type Error struct {
	Op     string // what was tried: "bind", "register memory", ...
	Port   string // name of the interface, empty where none is concerned
	Queue  int    // queue of the port, -1 where none is concerned
	Err    error  // as the kernel gave it
	Advice string // why, and what to do; may be empty
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.Queue >= 0 {
		fmt.Fprintf(&b, " queue %d of", e.Queue)
	}
	if e.Port != "" {
		b.WriteString(" " + e.Port)
	}
	fmt.Fprintf(&b, ": %v", e.Err)
	if e.Advice != "" {
		b.WriteString(": " + e.Advice)
	}
	return b.String()
}

// Unwrap returns the kernel's error.
func (e *Error) Unwrap() error { return e.Err }

// Fallback is something that was asked for and not had, and what is in force
// instead. It costs speed, never correctness, and the operator must hear of it.
type Fallback struct {
	Port   string
	Queue  int    // -1 where it concerns the whole port
	Wanted string // "zero-copy mode"
	Got    string // "copy mode"
	Err    error  // why
}

// String tells the fallback in a line.
func (f Fallback) String() string {
	where := f.Port
	if f.Queue >= 0 {
		where = fmt.Sprintf("%s queue %d", f.Port, f.Queue)
	}
	return fmt.Sprintf("%s: %s instead of %s: %v", where, f.Got, f.Wanted, f.Err)
}

// fallback is a Fallback as other processes are told of it.
type fallback struct {
	Port        string
	Queue       int
	Wanted, Got string
	Why         string
}

// MarshalJSON writes the reason as its text.
func (f Fallback) MarshalJSON() ([]byte, error) {
	return json.Marshal(fallback{f.Port, f.Queue, f.Wanted, f.Got, fmt.Sprint(f.Err)})
}

// UnmarshalJSON reads what MarshalJSON wrote; errors.Is finds nothing in the reason.
func (f *Fallback) UnmarshalJSON(b []byte) error {
	var told fallback
	if err := json.Unmarshal(b, &told); err != nil {
		return fmt.Errorf("read fallback: %w", err)
	}
	*f = Fallback{told.Port, told.Queue, told.Wanted, told.Got, errors.New(told.Why)}
	return nil
}

// The operations that explain tells apart.
const (
	opOpen     = "open AF_XDP socket for"
	opFind     = "find"
	opRegister = "register memory"
	opRings    = "make rings for"
	opBind     = "bind"
	opLoad     = "load steering program"
	opAttach   = "attach steering program to"
	opAdopt    = "adopt"
)

// fault makes an Error of err; d says what is known of the port, queue is -1 where
// none is concerned. A nil err stays nil.
func fault(op string, d device, queue int, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Op: op, Port: d.name, Queue: queue, Err: err, Advice: advice(op, d, queue, err)}
}

// advice says why the kernel refused op with err, and what to do about it.
func advice(op string, d device, queue int, err error) string {
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return ""
	}
	switch errno {
	case unix.EPERM, unix.EACCES:
		return "run as root or with CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF and CAP_SYS_ADMIN"
	case unix.ENODEV, unix.ENXIO:
		return "no such interface in this namespace; it may have been deleted or moved to another"
	case unix.ENOMEM, unix.ENOBUFS:
		return "the kernel is out of memory or the process may not lock so much: grant CAP_IPC_LOCK, raise the memlock limit or configure fewer frames"
	case unix.EAFNOSUPPORT:
		return "this kernel is built without CONFIG_XDP_SOCKETS"
	case unix.ENETDOWN:
		return "the interface is down; set it up"
	}
	switch op {
	case opBind:
		return adviceBind(d, queue, errno)
	case opAttach:
		return adviceAttach(d, errno)
	case opRegister:
		if errno == unix.EINVAL {
			return "the area must start at a page and hold whole chunks, and headroom must leave room in a chunk"
		}
	}
	return ""
}

func adviceBind(d device, queue int, errno unix.Errno) string {
	switch {
	case errno == unix.EBUSY:
		return "the queue belongs to another AF_XDP socket, or a ring of a closed one is still mapped; stop the other program, or give it another queue"
	case errno == unix.EINVAL && d.queues > 0 && queue >= d.queues:
		return fmt.Sprintf("the port has %d queues, counted from 0; set the queue to %d at most, or give the port more (ethtool -L %s, or numrxqueues and numtxqueues when a veth pair is made)",
			d.queues, d.queues-1, d.name)
	case errno == unix.EINVAL:
		return "the kernel is older than 6.6 (multi-buffer sockets), or the queue does not exist"
	case errno == unix.EOPNOTSUPP:
		return "the driver of this port has no zero-copy mode, or not for multi-buffer packets; use copy mode"
	case errno == unix.EBADF:
		return "the memory is not bound to any device any more; open the UMEM anew"
	}
	return ""
}

func adviceAttach(d device, errno unix.Errno) string {
	switch errno {
	case unix.EBUSY, unix.EEXIST:
		return fmt.Sprintf("another XDP program is on this port; `ip link show dev %s` names it, `ip link set dev %s xdp off` takes it off unless it is held by a process (bpftool link)", d.name, d.name)
	case unix.EOPNOTSUPP:
		return "the driver has no native XDP; use generic mode"
	case unix.EINVAL, unix.ERANGE:
		return "the driver refuses XDP as the port is set up: look at MTU, LRO (ethtool -K " + d.name + " lro off) and number of queues"
	}
	return ""
}
