package forwarder

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"margay.dev/margay/config"
	"margay.dev/margay/forwarder/handover"
	"margay.dev/margay/forwarder/plane"
	"margay.dev/margay/forwarder/socket"
)

// doors are where others reach the daemon. They are handed over with it, so
// that nobody is ever refused.
type doors struct {
	clients  net.Listener
	handOver *net.UnixListener
	metrics  net.Listener // nil for none
}

// handOverSocket is where a forwarder hands over that serves clients at path.
func handOverSocket(path string) string { return path + config.HandOverSuffix }

// doorsEstate is the places of the doors' descriptors.
type doorsEstate struct {
	Clients, HandOver, Metrics plane.Place
	MetricsAddress             string
}

// openDoors opens those that were not handed over to us.
func (d *Daemon) openDoors() (err error) {
	if d.doors.clients == nil {
		l, err := socket.Listen("unix", d.cfg.Socket)
		if err != nil {
			return err
		}
		d.doors.clients = socket.Guard(l, d.log)
	}
	if d.doors.handOver == nil {
		if d.doors.handOver, err = handover.Listen(handOverSocket(d.cfg.Socket)); err != nil {
			return errors.Join(err, d.doors.close())
		}
	}
	if d.doors.metrics == nil && d.cfg.Metrics != "" {
		if d.doors.metrics, err = net.Listen("tcp", d.cfg.Metrics); err != nil {
			return errors.Join(fmt.Errorf("listen for metrics: %w", err), d.doors.close())
		}
	}
	return nil
}

func (o *doors) each(do func(net.Listener)) {
	for _, l := range []net.Listener{o.clients, o.metrics} {
		if l != nil {
			do(l)
		}
	}
	if o.handOver != nil {
		do(o.handOver)
	}
}

// close closes them for good: the sockets' names go, too.
func (o *doors) close() error {
	var errs []error
	o.each(func(l net.Listener) {
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	})
	return errors.Join(errs...)
}

// leave keeps the names of the sockets: they are another process's now.
func (o *doors) leave() {
	o.each(func(l net.Listener) {
		if u, ok := l.(interface{ SetUnlinkOnClose(bool) }); ok {
			u.SetUnlinkOnClose(false)
		}
	})
}

// offer adds the doors' descriptors to fds. They stay ours.
func (o *doors) offer(fds *[]int, metricsAddress string) (e doorsEstate, err error) {
	add := func(l net.Listener) plane.Place {
		if l == nil || err != nil {
			return plane.NoPlace
		}
		// Not File: its Fd would have everybody's Accept block.
		raw, rawErr := l.(syscall.Conn).SyscallConn()
		if rawErr == nil {
			rawErr = raw.Control(func(fd uintptr) { *fds = append(*fds, int(fd)) })
		}
		if err = rawErr; err != nil {
			return plane.NoPlace
		}
		return plane.Place(len(*fds) - 1)
	}
	e.MetricsAddress = metricsAddress
	e.Clients, e.HandOver, e.Metrics = add(o.clients), add(o.handOver), add(o.metrics)
	return e, err
}

// inheritDoors takes up the doors that came with an estate. One for metrics at
// another address than ours is closed.
func (d *Daemon) inheritDoors(e doorsEstate, fds []int) error {
	clients, err := listenerOf(fds, e.Clients)
	if err != nil {
		return fmt.Errorf("take up the socket of clients: %w", err)
	}
	handOver, err := listenerOf(fds, e.HandOver)
	if err != nil {
		return fmt.Errorf("take up the socket of hand-overs: %w", err)
	}
	u, ok := clients.(*net.UnixListener)
	h, also := handOver.(*net.UnixListener)
	if !ok || !also {
		return errors.New("take up sockets: they are not of the Unix domain")
	}
	for _, l := range []*net.UnixListener{u, h} {
		l.SetUnlinkOnClose(true) // unlike one that comes as a descriptor
	}
	d.doors.clients, d.doors.handOver = socket.Guard(u, d.log), h
	if e.Metrics == plane.NoPlace {
		return nil
	}
	metrics, err := listenerOf(fds, e.Metrics)
	if err != nil {
		return fmt.Errorf("take up the socket of metrics: %w", err)
	}
	if e.MetricsAddress != d.cfg.Metrics {
		return metrics.Close()
	}
	d.doors.metrics = metrics
	return nil
}

// listenerOf makes a listener of a descriptor, which is used up.
func listenerOf(fds []int, at plane.Place) (net.Listener, error) {
	if at < 0 || int(at) >= len(fds) || fds[at] < 0 {
		return nil, fmt.Errorf("descriptor %d is missing among the %d that came", at, len(fds))
	}
	f := os.NewFile(uintptr(fds[at]), "inherited listener")
	fds[at] = -1
	defer f.Close()
	return net.FileListener(f)
}
