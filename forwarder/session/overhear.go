package session

import (
	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/fastpath/overhear"
)

// Ears hear what endpoints and servers of names say to each other.
type Ears interface {
	// Overhear gives copies of what endpoints and servers of names say to each other,
	// until stop; who asked before gets none any more.
	Overhear() (heard <-chan overhear.Heard, stop func())
	// AnswersRead lets packets go on that are held, by their ids.
	AnswersRead(ids []uint64)
}

// hear begins or ends to send the client what is overheard.
func (c *stream) hear(on bool) {
	if on == (c.deaf != nil) {
		return
	}
	if !on {
		c.deaf()
		c.deaf = nil
		return
	}
	heard, stop := c.server.ears.Overhear()
	over, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		c.report(heard, over)
	}()
	c.deaf = func() {
		stop()
		close(over)
		<-ended
	}
}

// report sends what is heard until it is over, or the client has gone.
func (c *stream) report(heard <-chan overhear.Heard, over <-chan struct{}) {
	for {
		select {
		case <-over:
			return
		case <-c.over:
			return
		case h := <-heard:
			if c.send(&pb.ServerMessage{Message: &pb.ServerMessage_Overheard{Overheard: overheard(&h)}}) != nil {
				return
			}
		}
	}
}

// overheard is what was heard as the contract tells it.
func overheard(h *overhear.Heard) *pb.Overheard {
	return &pb.Overheard{
		Id: h.ID, Client: h.Client.AsSlice(), ClientPort: uint32(h.ClientPort), Server: h.Server.AsSlice(),
		Query: h.Query, Tcp: h.TCP, Sequence: h.Sequence, Begins: h.Begins, Payload: h.Payload[:h.Size],
	}
}
