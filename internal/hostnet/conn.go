//go:build linux

package hostnet

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	socketBuffer = 1 << 20 // octets of replies a dump may run ahead by
	replyTimeout = 30      // seconds until an unanswered request is given up
	dumpTries    = 10      // dumps that changes ran through are begun again, so often
)

// conn is one netlink socket per protocol, shared by the callers of a Host
// (nl locks each socket for the length of a request).
type conn struct{ sockets map[int]*nl.SocketHandle }

// openConn opens the sockets in the namespace of the calling thread.
func openConn() (*conn, error) {
	c := &conn{sockets: map[int]*nl.SocketHandle{}}
	for _, proto := range []int{unix.NETLINK_ROUTE, unix.NETLINK_GENERIC} {
		s, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), proto)
		if err != nil {
			c.close()
			return nil, fmt.Errorf("open netlink socket: %w", err)
		}
		c.sockets[proto] = &nl.SocketHandle{Socket: s}
		timeout := unix.Timeval{Sec: replyTimeout}
		err = errors.Join(s.SetExtAck(true), s.SetSendTimeout(&timeout), s.SetReceiveTimeout(&timeout),
			setReceiveBuffer(s, socketBuffer))
		if err != nil {
			c.close()
			return nil, fmt.Errorf("prepare netlink socket: %w", err)
		}
	}
	return c, nil
}

// setReceiveBuffer goes past rmem_max where we may, and stays under it where we may not.
func setReceiveBuffer(s *nl.NetlinkSocket, octets int) error {
	if s.SetReceiveBufferSize(octets, true) == nil {
		return nil
	}
	return s.SetReceiveBufferSize(octets, false)
}

func (c *conn) close() {
	for _, s := range c.sockets {
		s.Close()
	}
}

// change sends one request that alters something and waits for the kernel's answer.
func (c *conn) change(msg uint16, flags int, parts ...nl.NetlinkRequestData) error {
	_, err := c.request(unix.NETLINK_ROUTE, msg, flags|unix.NLM_F_ACK, 0, parts)
	return err
}

// dump returns every message of one dump, begun again if changes ran through it.
func (c *conn) dump(msg, reply uint16, head raw) ([][]byte, error) {
	for range dumpTries {
		out, err := c.request(unix.NETLINK_ROUTE, msg, unix.NLM_F_DUMP, reply, []nl.NetlinkRequestData{head})
		if !errors.Is(err, nl.ErrDumpInterrupted) {
			return out, err
		}
	}
	return nil, fmt.Errorf("dump was overtaken by changes %d times: %w", dumpTries, nl.ErrDumpInterrupted)
}

// request sends one message. reply filters the answers by type; 0 takes all.
func (c *conn) request(proto int, msg uint16, flags int, reply uint16, parts []nl.NetlinkRequestData) ([][]byte, error) {
	req := nl.NewNetlinkRequest(int(msg), flags)
	req.Sockets = c.sockets
	for _, p := range parts {
		req.AddData(p)
	}
	out, err := req.Execute(proto, reply)
	if errors.Is(err, unix.EPERM) {
		err = fmt.Errorf("%w (this needs CAP_NET_ADMIN in the namespace)", err)
	}
	return out, err
}
