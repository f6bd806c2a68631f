package port

import (
	"fmt"

	"margay.dev/margay/fastpath/port/tundev"
	"margay.dev/margay/fastpath/umem"
)

// A port goes to another process in two steps, while its device stays as it is.
// First Handover tells what the other process adopts, beside the descriptors,
// without touching a packet; then, when no worker drives it here any more,
// Flight tells where it stands, and Land goes on from there. After that one of
// the two forsakes it. On success an Adopt function owns the descriptors that it
// was given, on failure the caller still does.

// TUNState is what another process must know of a TUN port beside its queues.
type TUNState struct {
	Name      string
	MTU       int // bytes from the IP header on
	Fallbacks []string
}

// Handover tells what AdoptTUN needs. The port keeps owning the descriptors.
func (t *TUN) Handover() (TUNState, []int) {
	fds := make([]int, len(t.queues))
	for i, q := range t.queues {
		fds[i] = q.fd
	}
	return TUNState{t.name, t.MTU(), t.fallbacks}, fds
}

// AdoptTUN takes up the queues of a TUN port of another process; the device and
// its offloads stay as they are. The error of a device that has been deleted is
// tundev.ErrGone.
func AdoptTUN(st TUNState, fds []int) (*TUN, error) {
	err := TUNConfig{Name: st.Name, Queues: len(fds), MTU: st.MTU}.validate()
	t := &TUN{name: st.Name, fallbacks: st.Fallbacks}
	t.mtu.Store(int32(st.MTU))
	for i, fd := range fds {
		if err == nil {
			err = tundev.Check(fd, st.Name, vnetSize)
		}
		if err != nil {
			return nil, fmt.Errorf("adopt queue %d of TUN %s: descriptor %d: %w", i, st.Name, fd, err)
		}
		t.queues = append(t.queues, newTunQueue(fd))
	}
	if err != nil {
		return nil, fmt.Errorf("adopt TUN: %w", err)
	}
	return t, nil
}

// Settle gives the buffers that the queues keep ready to c, so that the port
// holds none. No worker may drive it; one that does later takes new ones.
func (t *TUN) Settle(c *umem.Cache) {
	for _, q := range t.queues {
		if q.spare != umem.None {
			c.Free(q.spare)
			q.spare = umem.None
		}
	}
}

// TUNFlight is where a TUN port stands: what its queues have counted.
type TUNFlight struct{ Queues []TUNQueueFlight }

// TUNQueueFlight are the counters of a queue.
type TUNQueueFlight struct{ Trains, Segments, BadSums, Vanished uint64 }

// Flight tells where the port stands. Settle it first.
func (t *TUN) Flight() TUNFlight {
	f := TUNFlight{make([]TUNQueueFlight, len(t.queues))}
	for i, q := range t.queues {
		f.Queues[i] = TUNQueueFlight{q.trains.Load(), q.segments.Load(), q.badSums.Load(), q.vanished.Load()}
	}
	return f
}

// Land goes on from where a flight of this port was told.
func (t *TUN) Land(f TUNFlight) error {
	if len(f.Queues) != len(t.queues) {
		return fmt.Errorf("go on with TUN %s: it is told of %d queues, has %d", t.name, len(f.Queues), len(t.queues))
	}
	for i, q := range t.queues {
		one := &f.Queues[i]
		q.trains.Store(one.Trains)
		q.segments.Store(one.Segments)
		q.badSums.Store(one.BadSums)
		q.vanished.Store(one.Vanished)
	}
	return nil
}

// Forsake closes the descriptors of a port that another process has: the device
// stays. Settle it first. Close does nothing afterwards.
func (t *TUN) Forsake() error { return t.closeAll() }
