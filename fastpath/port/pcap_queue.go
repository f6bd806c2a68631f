package port

import (
	"sync/atomic"
	"time"

	"margay.dev/margay/fastpath/graph"
	"margay.dev/margay/fastpath/port/tape"
	"margay.dev/margay/fastpath/umem"
	"margay.dev/margay/fastpath/xsk"
	"margay.dev/margay/internal/pcapng"
)

// pcapQueue is the queue of a Pcap port.
type pcapQueue struct {
	mtu      *atomic.Int32
	player   *tape.Player   // nil if nothing is replayed
	recorder *tape.Recorder // nil if nothing is recorded
	both     bool           // record what is replayed as well

	begun bool
	start int64 // when the replay began, on the worker's clock
	wall  int64 // what the worker's clock lacks of the time since 1970
	low   lowering
}

// begin sets the clocks at the first burst: that of a worker begins with it.
func (q *pcapQueue) begin(io *graph.IO) {
	q.begun, q.start, q.wall = true, io.Now, time.Now().UnixNano()-io.Now
}

// RxBurst brings in the packets that are due.
//
//fastpath:hot
func (q *pcapQueue) RxBurst(io *graph.IO, ms []graph.Meta) int {
	if q.player == nil {
		return 0
	}
	if !q.begun {
		q.begin(io)
	}
	n := 0
	for n < len(ms) {
		p, due, ok := q.player.Next()
		if !ok || io.Now-q.start < due || !q.place(io, p, &ms[n]) {
			break
		}
		if q.both && q.recorder != nil {
			if to := q.recorder.Slot(len(p), q.wall+io.Now, pcapng.In); to != nil {
				copy(to, p)
			}
		}
		q.player.Take()
		n++
	}
	if n > 0 {
		q.player.Release()
		q.publish()
	}
	return n
}

// place copies a packet into as many frames as it needs.
//
//fastpath:hot
func (q *pcapQueue) place(io *graph.IO, p []byte, m *graph.Meta) bool {
	*m = graph.Meta{} // field by field: a literal is made elsewhere and copied
	m.Len, m.Head, m.Segments, m.Bufs = uint32(len(p)), uint32(len(p)), 1, 1
	if len(p) > chunkRoom {
		return q.low.chain(io, p, m)
	}
	b, ok := io.Cache.Frame()
	if !ok {
		return false
	}
	m.Buf, m.Off = b, io.Arena.Start(b)+umem.Headroom
	copy(io.Mem[m.Off:m.Off+chunkRoom], p)
	return true
}

// TxBurst records packets, superpackets as their segments, and frees them.
//
//fastpath:hot
func (q *pcapQueue) TxBurst(io *graph.IO, v *graph.Vector) int {
	if !q.begun {
		q.begin(io)
	}
	refused, mtu := 0, int(q.mtu.Load())
	for i := range v.Len() {
		m := v.Meta(i)
		q.low.n = 0
		if r := q.low.lower(io, m, maxCut, mtu); r != graph.NoReason {
			m.Reason = r
			refused++
			continue
		}
		for out := q.low.out[:q.low.n]; len(out) > 0; {
			out = out[q.transmit(io, out):]
		}
	}
	q.publish()
	return refused
}

// transmit records the packet of the first descriptors of d and frees its
// buffers. It says how many they are.
//
//fastpath:hot
func (q *pcapQueue) transmit(io *graph.IO, d []xsk.Desc) (n int) {
	size := 0
	for more := true; more; n++ {
		size += int(d[n].Len)
		more = d[n].Options&xsk.PktContd != 0
	}
	var to []byte
	if q.recorder != nil {
		to = q.recorder.Slot(size, q.wall+io.Now, pcapng.Out)
	}
	for _, part := range d[:n] {
		to = to[copy(to, io.Mem[part.Addr:part.Addr+uint64(part.Len)]):]
		io.Cache.Free(umem.FrameAt(part.Addr))
	}
	return n
}

//fastpath:hot
func (q *pcapQueue) publish() {
	if q.recorder != nil {
		q.recorder.Publish()
	}
}

// Poll says whether there will be something to replay before a worker that
// falls asleep now looks again.
//
//fastpath:hot
func (q *pcapQueue) Poll(io *graph.IO) bool {
	if q.player == nil || q.player.Ended() {
		return false
	}
	_, due, ok := q.player.Next()
	return !ok || due-(io.Now-q.start) < 2*int64(graph.TickInterval)
}

// FD is -1: Poll keeps the worker awake while something is due.
func (q *pcapQueue) FD() int { return -1 }

// InMemory is true: what is due lies in a ring.
func (q *pcapQueue) InMemory() bool { return true }
