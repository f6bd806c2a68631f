package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrUnsupported is that the kernel has no nftables.
var ErrUnsupported = errors.New("the kernel has no nftables: load the module nf_tables, or build CONFIG_NF_TABLES and CONFIG_NF_TABLES_INET")

// ErrIncomplete is that the kernel's nftables lack something that rules need.
var ErrIncomplete = errors.New("the kernel's nftables lack a part: load the modules nft_ct, nft_fib_inet, nft_limit, nft_log and nft_reject_inet, or build them")

// wire is a netlink socket to nftables of one network namespace.
//
// It is our own because of what a batch of many messages needs: one
// acknowledgement for all, no echo of each rule, and buffers as large as the batch.
type wire struct {
	fd   int
	port uint32 // the address that the kernel knows us by
	seq  uint32
}

// dial opens a socket in the network namespace of the calling thread, a member of
// the given multicast groups.
func dial(groups ...int) (*wire, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket to netfilter: %w", explain(err))
	}
	w := &wire{fd: fd}
	if err := w.set(groups); err != nil {
		w.close()
		return nil, fmt.Errorf("set up a netlink socket to netfilter: %w", explain(err))
	}
	return w, nil
}

func (w *wire) set(groups []int) error {
	if err := unix.Bind(w.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	sa, err := unix.Getsockname(w.fd)
	if err != nil {
		return fmt.Errorf("ask for its address: %w", err)
	}
	if nl, ok := sa.(*unix.SockaddrNetlink); ok {
		w.port = nl.Pid
	}
	// Both make errors better, and are not there in old kernels.
	_ = unix.SetsockoptInt(w.fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	_ = unix.SetsockoptInt(w.fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	for _, g := range groups {
		if err := unix.SetsockoptInt(w.fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, g); err != nil {
			return fmt.Errorf("join group %d: %w", g, err)
		}
	}
	return nil
}

func (w *wire) close() { _ = unix.Close(w.fd) }

// room lets the socket hold so many bytes on their way to or from the kernel.
func (w *wire) room(option, bytes int) error {
	if err := unix.SetsockoptInt(w.fd, unix.SOL_SOCKET, option, bytes); err != nil {
		return fmt.Errorf("make room for %d bytes on a netlink socket: %w", bytes, explain(err))
	}
	return nil
}

// probe asks the kernel for the number of its rules' generation, which fails where
// there is no nftables, or no right to it.
func (w *wire) probe() error {
	b := newBatch("")
	b.message(unix.NFT_MSG_GETGEN, 0, 0, nil)
	if err := unix.Sendto(w.fd, b.buf, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("ask for the generation of nftables: %w", explain(err))
	}
	answered := false
	err := w.answers(func(h header, body []byte) error {
		answered = true
		return h.fault(body)
	})
	if err == nil && !answered {
		err = ErrUnsupported
	}
	if err != nil {
		return fmt.Errorf("ask for the generation of nftables: %w", explain(err))
	}
	return nil
}

// commit sends a batch and waits for what becomes of it: all of it is in force, or
// nothing.
func (w *wire) commit(b *batch) error {
	first := w.seq + 1
	b.finish(first)
	w.seq = first + uint32(b.messages) + 1
	if err := w.room(unix.SO_SNDBUFFORCE, 2*len(b.buf)+1<<16); err != nil {
		return err
	}
	if err := unix.Sendto(w.fd, b.buf, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("send a transaction of %d bytes: %w", len(b.buf), explain(err))
	}
	// The kernel has worked on it before it returned: answers are there.
	done := false
	var refused error
	err := w.answers(func(h header, body []byte) error {
		fault := h.fault(body)
		switch {
		case h.kind != unix.NLMSG_ERROR || h.seq < first || h.seq > w.seq:
		case fault == nil:
			done = true
		case refused == nil:
			what, makes := b.describe(h.seq)
			if makes && errors.Is(fault, unix.ENOENT) { // what it builds on is in the same batch, so it is the kernel's own
				fault = fmt.Errorf("%w (%w)", ErrIncomplete, fault)
			}
			refused = fmt.Errorf("the kernel refuses a transaction of %d parts at %s: %w", b.messages, what, explain(fault))
		}
		return nil
	})
	switch {
	case refused != nil:
		return refused
	case done:
		return nil
	case err != nil:
		return fmt.Errorf("read what became of a transaction: %w", err)
	default:
		return errors.New("the kernel does not say what became of a transaction")
	}
}

// answers calls f for each message that waits, until f fails. It gives ENOBUFS, when it
// has read the others, where there were more than the socket had room for.
func (w *wire) answers(f func(h header, body []byte) error) error {
	buf := make([]byte, 1<<16)
	var lost error
	for {
		n, _, err := unix.Recvfrom(w.fd, buf, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENOBUFS):
			lost = err
			continue
		case errors.Is(err, unix.EAGAIN):
			return lost
		case err != nil:
			return err
		}
		if err := eachMessage(buf[:n], f); err != nil {
			return err
		}
	}
}

// header is the head of a netlink message.
type header struct {
	kind, flags uint16
	seq, port   uint32
}

// eachMessage takes apart what came in one piece.
func eachMessage(buf []byte, f func(h header, body []byte) error) error {
	for len(buf) >= unix.NLMSG_HDRLEN {
		n := int(binary.NativeEndian.Uint32(buf))
		if n < unix.NLMSG_HDRLEN || n > len(buf) {
			return fmt.Errorf("a netlink message says that it has %d bytes, of %d", n, len(buf))
		}
		h := header{
			kind: binary.NativeEndian.Uint16(buf[4:]), flags: binary.NativeEndian.Uint16(buf[6:]),
			seq: binary.NativeEndian.Uint32(buf[8:]), port: binary.NativeEndian.Uint32(buf[12:]),
		}
		if err := f(h, buf[unix.NLMSG_HDRLEN:n]); err != nil {
			return err
		}
		buf = buf[min(align(n), len(buf)):]
	}
	return nil
}

// fault is the error that a message brings, with the kernel's words where it has
// some.
func (h header) fault(body []byte) error {
	if h.kind != unix.NLMSG_ERROR || len(body) < 4 {
		return nil
	}
	code := int32(binary.NativeEndian.Uint32(body))
	if code == 0 {
		return nil
	}
	err := error(unix.Errno(-code))
	const quoted = 4 + unix.NLMSG_HDRLEN // the code, and the head of the message in question
	if h.flags&unix.NLM_F_ACK_TLVS != 0 && len(body) > quoted {
		eachAttribute(body[quoted:], func(kind uint16, value []byte) {
			if kind == unix.NLMSGERR_ATTR_MSG {
				err = fmt.Errorf("%w (%s)", err, text(value))
			}
		})
	}
	return err
}

// explain gives the causes that people meet other words.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("%w (%w)", ErrUnsupported, err)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w: CAP_NET_ADMIN in this network namespace is needed", err)
	}
	return err
}
