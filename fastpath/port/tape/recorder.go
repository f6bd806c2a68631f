package tape

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"margay.dev/margay/internal/pcapng"
)

// RecorderConfig says where a Recorder writes to.
type RecorderConfig struct {
	File string // pcapng; made for its owner alone, or cut to nothing
	Name string // of the interface in it
	Raw  bool   // packets begin at the IP header; else they are Ethernet frames
}

// Recorded is what a Recorder counted. Any goroutine may read it.
type Recorded struct {
	Packets atomic.Uint64 // written
	Lost    atomic.Uint64 // not written because the file was written too slowly
	Failed  atomic.Uint64 // not written because the file could not be written
}

// Recorder writes a capture file behind a worker. The worker calls Slot and
// Publish; any goroutine may call Close once the worker does not.
type Recorder struct {
	Recorded Recorded

	cfg   RecorderConfig
	file  *os.File
	w     *pcapng.Writer
	ring  *ring
	stop  chan struct{}
	done  chan struct{}
	fault error // the first; for Close, after done
}

// OpenRecorder makes the file and begins to write.
func OpenRecorder(cfg RecorderConfig) (*Recorder, error) {
	// A pipe that nobody reads is refused; open would wait for a reader.
	file, err := os.OpenFile(cfg.File, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	link := pcapng.LinkEthernet
	if cfg.Raw {
		link = pcapng.LinkRaw
	}
	w, err := pcapng.NewWriter(file, "margay")
	if err == nil {
		_, err = w.AddInterface(cfg.Name, link, 0)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("record to %s: %w", cfg.File, err), file.Close())
	}
	r := &Recorder{cfg: cfg, file: file, w: w, ring: newRing(), stop: make(chan struct{}), done: make(chan struct{})}
	go r.run()
	return r, nil
}

// Slot gives room for the n bytes of a packet that passed at so many ns after
// 1970, which the worker fills before Publish. It gives nil, and counts the
// packet as lost, where there is no room or n is above MaxPacket.
//
//fastpath:hot
func (r *Recorder) Slot(n int, at int64, d pcapng.Direction) []byte {
	if n <= MaxPacket {
		if to := r.ring.reserve(n, at, uint8(d)); to != nil {
			return to
		}
	}
	r.Recorded.Lost.Add(1)
	return nil
}

// Publish lets the packets be written. It is due once per burst.
//
//fastpath:hot
func (r *Recorder) Publish() {
	r.ring.publish()
	r.ring.rouse()
}

// batch is the most packets between two flushes.
const batch = 4096

// run writes what there is, flushes, and sleeps when that was all.
func (r *Recorder) run() {
	defer close(r.done)
	waiting := func() bool { return !r.ring.empty() }
	for r.ring.sleep(r.stop, waiting) {
		n := r.drain()
		r.check(r.w.Flush())
		if r.fault == nil {
			r.Recorded.Packets.Add(n)
		} else { // some of them may have been written: more are told of than are missing
			r.Recorded.Failed.Add(n)
		}
	}
}

// drain writes up to batch packets, gives their room back as it goes, and says
// how many they were.
func (r *Recorder) drain() (n uint64) {
	for ; n < batch; n++ {
		s, ok := r.ring.next()
		if !ok {
			break
		}
		if r.fault == nil {
			p := pcapng.Packet{Time: time.Unix(0, s.at), Data: s.data, Direction: pcapng.Direction(s.mark)}
			r.check(r.w.Write(&p))
		}
		r.ring.drop(s)
		r.ring.release()
	}
	return n
}

// check keeps the first error. After it nothing more is written, since it would
// follow a packet cut short.
func (r *Recorder) check(err error) {
	if r.fault == nil && err != nil {
		r.fault = fmt.Errorf("record to %s: %w", r.cfg.File, err)
	}
}

// lastWords is how long Close waits for the reader of a pipe.
const lastWords = 5 * time.Second

// Close writes what is left, and tells what is missing in the file, if anything
// is. It must be called once.
func (r *Recorder) Close() error {
	_ = r.file.SetWriteDeadline(time.Now().Add(lastWords)) // only pipes and their like have one
	close(r.stop)
	<-r.done
	r.check(r.w.Flush()) // of a file without packets
	r.check(r.file.Close())
	missing := r.Recorded.Lost.Load() + r.Recorded.Failed.Load()
	if missing == 0 {
		return r.fault
	}
	return errors.Join(r.fault, fmt.Errorf("record to %s: %d packets of %d are missing, %d because the file was written too slowly",
		r.cfg.File, missing, missing+r.Recorded.Packets.Load(), r.Recorded.Lost.Load()))
}
