//go:build linux

package main

import (
	"context"
	_ "embed" // the demo's host endpoint
	"fmt"
	"net"
	"net/netip"
	"time"

	"margay.dev/margay/internal/hostnet"
)

// What protects a node in the demo, and what opens it.
var (
	//go:embed demo/host.yaml
	demoHost string
	//go:embed demo/door.yaml
	demoDoor string
)

const (
	guarded   = "south" // the node that is protected
	visitor   = "north" // and who wants to reach it
	trialTime = 3 * time.Second
	knockTime = 300 * time.Millisecond
)

// host protects a node by a host endpoint, in a way that locks everybody out, waits
// to be let in again, and then does it right.
func (d *demonstration) host(ctx context.Context) error {
	d.step("a host endpoint protects node %s, and its author has forgotten to let himself in; he has asked for it to be undone unless he confirms it within %v",
		guarded, trialTime)
	doors, err := d.openDoors()
	if err != nil {
		return err
	}
	defer doors.close()
	if err := doors.are(ctx, true, true); err != nil {
		return fmt.Errorf("before anything protects node %s: %w", guarded, err)
	}
	fmt.Fprint(d.out, demoHost)
	began := time.Now()
	if err := d.change(ctx, "apply", []string{"--confirm-within", trialTime.String()}, demoHost); err != nil {
		return err
	}
	if err := doors.are(ctx, false, false); err != nil {
		return fmt.Errorf("with a host endpoint and no policy: %w", err)
	}
	fmt.Fprintf(d.out, "nobody gets in: TCP %d and %d of node %s do not answer %s\n", openPort, shutPort, guarded, visitor)
	for doors.are(ctx, true, true) != nil {
		if time.Since(began) > 5*trialTime || ctx.Err() != nil {
			return fmt.Errorf("the change was not undone within %v", time.Since(began))
		}
	}
	fmt.Fprintf(d.out, "nobody has confirmed: after %.1f s both answer again\n", time.Since(began).Seconds())
	return d.protected(ctx, doors)
}

// protected has the node protected for good, with one port open, and takes it back.
func (d *demonstration) protected(ctx context.Context, doors *doors) error {
	d.step("once more with a policy that opens port %d, and confirmed", openPort)
	fmt.Fprint(d.out, demoDoor)
	if err := d.change(ctx, "apply", []string{"--confirm-within", "1m"}, demoDoor, demoHost); err != nil {
		return err
	}
	if err := doors.are(ctx, true, false); err != nil {
		return fmt.Errorf("with a policy for one port: %w", err)
	}
	if err := d.store(ctx, "", "confirm"); err != nil {
		return err
	}
	fmt.Fprintf(d.out, "TCP %d of node %s answers %s, TCP %d does not, and the pods behind it do not notice\n", openPort, guarded, visitor, shutPort)
	if err := d.everybodyReaches(ctx); err != nil {
		return err
	}
	if err := d.change(ctx, "delete", nil, demoHost, demoDoor); err != nil {
		return err
	}
	return doors.are(ctx, true, true)
}

// doors are two ports of a node's own, by which a process of it is reached.
type doors struct {
	from      *hostnet.Namespace
	at        []netip.Addr
	listeners []net.Listener
}

// openDoors has a process of the guarded node listen at its addresses on the uplink.
func (d *demonstration) openDoors() (_ *doors, err error) {
	o := &doors{}
	if o.from, err = d.lab.Namespace(visitor); err != nil {
		return nil, err
	}
	place, err := d.lab.Namespace(guarded)
	if err != nil {
		return nil, err
	}
	for _, k := range d.lab.Topology().Links {
		for _, e := range k.Ends {
			for _, p := range e.Addresses {
				if e.Node == guarded {
					o.at = append(o.at, p.Addr())
				}
			}
		}
	}
	for _, a := range o.at {
		for _, port := range []uint16{openPort, shutPort} {
			err := place.Do(func() error {
				l, err := net.Listen("tcp", netip.AddrPortFrom(a, port).String())
				if err == nil {
					o.listeners = append(o.listeners, l)
					go welcome(l)
				}
				return err
			})
			if err != nil {
				o.close()
				return nil, fmt.Errorf("listen on node %s: %w", guarded, err)
			}
		}
	}
	return o, nil
}

// welcome takes whoever comes until the listener is closed.
func welcome(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_ = c.Close() // that he came is all
	}
}

// are wants both doors open or shut, in both families.
func (o *doors) are(ctx context.Context, first, second bool) error {
	for _, a := range o.at {
		for port, want := range map[uint16]bool{openPort: first, shutPort: second} {
			to := netip.AddrPortFrom(a, port)
			err := o.from.Do(func() error {
				c, err := (&net.Dialer{Timeout: knockTime}).DialContext(ctx, "tcp", to.String())
				if err == nil {
					err = c.Close()
				}
				return err
			})
			switch {
			case want && err != nil:
				return fmt.Errorf("%v does not answer: %w", to, err)
			case !want && err == nil:
				return fmt.Errorf("%v answers", to)
			}
		}
	}
	return nil
}

func (o *doors) close() {
	for _, l := range o.listeners {
		_ = l.Close() // nobody listens any more, whatever it says
	}
}
