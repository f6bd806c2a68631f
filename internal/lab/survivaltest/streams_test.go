package survivaltest

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	v1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/control/dataplane"
	"margay.dev/margay/internal/lab/load"
)

// A vandal is a client that means no good. Its stream takes raw bytes.
type vandal struct {
	w    *world
	conn *grpc.ClientConn
	rpc  grpc.ClientStream
}

// rawBytes is a codec that sends what it is given, and receives into a *[]byte.
type rawBytes struct{}

func (rawBytes) Marshal(v any) ([]byte, error) { return v.([]byte), nil }
func (rawBytes) Unmarshal(b []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), b...)
	return nil
}
func (rawBytes) Name() string { return "proto" }

// vandal connects to north's forwarder and takes over from whoever was its client.
func (w *world) vandal(ctx context.Context) *vandal {
	w.t.Helper()
	conn, err := dataplane.Connect(w.Socket("north"))
	if err != nil {
		w.t.Fatal(err)
	}
	v := &vandal{w: w, conn: conn}
	desc := &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}
	if v.rpc, err = conn.NewStream(ctx, desc, v1.Dataplane_Connect_FullMethodName, grpc.ForceCodec(rawBytes{})); err != nil {
		w.t.Fatal(err)
	}
	return v
}

// send sends bytes as one message; what becomes of them answer tells.
func (v *vandal) send(b []byte) { _ = v.rpc.SendMsg(b) }

func (v *vandal) sendMessage(m *v1.ClientMessage) {
	v.w.t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		v.w.t.Fatal(err)
	}
	v.send(b)
}

// greet says a proper hello.
func (v *vandal) greet() *vandal {
	v.w.t.Helper()
	v.sendMessage(&v1.ClientMessage{Message: &v1.ClientMessage_Hello{Hello: &v1.Hello{Version: v1.Version, MinVersion: v1.MinVersion, Client: "vandal"}}})
	if m, err := v.answer(); m.GetWelcome() == nil {
		v.w.t.Fatalf("a proper hello is answered by %v, %v", m, err)
	}
	return v
}

// commit closes what was sent before and returns the answer to it.
func (v *vandal) commit(snapshot bool, chunks ...*v1.Chunk) *v1.ServerMessage {
	v.w.t.Helper()
	for _, c := range chunks {
		v.sendMessage(&v1.ClientMessage{Message: &v1.ClientMessage_Chunk{Chunk: c}})
	}
	generation := v.w.status("north").GetGeneration() + 1
	v.sendMessage(&v1.ClientMessage{Message: &v1.ClientMessage_Commit{Commit: &v1.Commit{Generation: generation, Snapshot: snapshot}}})
	for {
		m, err := v.answer()
		if err != nil {
			v.w.t.Fatalf("a commit is answered by %v", err)
		}
		if m.GetCondition() == nil {
			return m
		}
	}
}

func (v *vandal) answer() (*v1.ServerMessage, error) {
	var b []byte
	if err := v.rpc.RecvMsg(&b); err != nil {
		return nil, err
	}
	m := &v1.ServerMessage{}
	return m, proto.Unmarshal(b, m)
}

// ended wants the stream to be ended by the forwarder.
func (v *vandal) ended() {
	v.w.t.Helper()
	for {
		if _, err := v.answer(); err != nil {
			if err == io.EOF {
				v.w.t.Error("the stream ended as if all were well")
			}
			return
		}
	}
}

// state is all that north's forwarder has in force.
func (w *world) state() string {
	w.t.Helper()
	var out strings.Builder
	fmt.Fprintf(&out, "generation %d\n", w.status("north").GetGeneration())
	ports, err := w.inspect("north").ListPorts(w.t.Context(), &v1.ListPortsRequest{})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, p := range ports.GetPorts() {
		fmt.Fprintln(&out, p.GetName(), p.GetIndex(), p.GetKind(), p.GetDevice(), p.GetState(), p.GetQueues(), p.GetMtu(), p.GetMac())
	}
	routes, err := w.inspect("north").ListRoutes(w.t.Context(), &v1.ListRoutesRequest{})
	if err != nil {
		w.t.Fatal(err)
	}
	for {
		m, err := routes.Recv()
		if err == io.EOF {
			return out.String()
		}
		if err != nil {
			w.t.Fatal(err)
		}
		for _, r := range m.GetRoutes() {
			fmt.Fprintln(&out, r.GetPrefix(), r.GetAdjacencies())
		}
	}
}

func TestBadClients(t *testing.T) {
	w := raise(t, 2, nil)
	w.everybody()
	pings := []*pinging{w.pingPods("ann", "cleo", false), w.pingPods("amy", "ann", true), w.pingPods("dave", "amy", false)}
	before := w.state()
	unchanged := func(t *testing.T) {
		t.Helper()
		if now := w.state(); now != before {
			t.Errorf("the state was\n%s\nand is\n%s", before, now)
		}
	}
	for name, misbehave := range map[string]func(*world, *vandal){
		"says garbage before hello": func(_ *world, v *vandal) { v.send([]byte("\xff\xff\xff\xffgarbage")); v.ended() },
		"says garbage after hello":  func(_ *world, v *vandal) { v.greet().send(text[:1000]); v.ended() },
		"says nothing at all":       func(*world, *vandal) {},
		"says hello and goes":       func(_ *world, v *vandal) { v.greet() },
		"sends an empty message":    func(_ *world, v *vandal) { v.greet().send(nil); v.ended() },
		"sends a message of 3 MiB":  func(_ *world, v *vandal) { v.greet().send(make([]byte, 3<<20)); v.ended() },
		"sends half a snapshot":     halfSnapshot,
		"sends a torn chunk":        tornChunk,
		"contradicts itself":        contradictions,
		"begins with a delta": func(w *world, v *vandal) {
			v.greet().refused(v.commit(false, &v1.Chunk{RemovedPorts: []string{"pod-ann"}}))
		},
		"sends columns that do not fit": wrongColumns,
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{w.Lab, t}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			v := w.vandal(ctx)
			misbehave(w, v)
			time.Sleep(50 * time.Millisecond) // some fifty pings pass meanwhile
			if err := v.conn.Close(); err != nil {
				t.Error(err)
			}
			unchanged(t)
		})
	}
	t.Run("bytes that are no gRPC", func(t *testing.T) { (&world{w.Lab, t}).noise(); unchanged(t) })
	t.Run("a good client converges", func(t *testing.T) {
		w := &world{w.Lab, t}
		w.Disconnect("north") // others have taken over from it
		w.feed("north")
		w.unknownFields()
	})
	for _, p := range pings {
		p.none(t)
	}
	w.everybody()
	w.balanced()
}

// refused wants an answer to be a refusal, and returns its faults.
func (v *vandal) refused(m *v1.ServerMessage) []string {
	v.w.t.Helper()
	if len(m.GetRefusal().GetFaults()) == 0 {
		v.w.t.Errorf("it is answered by %v, want a refusal", m)
	}
	return m.GetRefusal().GetFaults()
}

// halfSnapshot dies before the commit of a state that removes everything.
func halfSnapshot(w *world, v *vandal) {
	v.greet()
	for range 5 {
		v.sendMessage(&v1.ClientMessage{Message: &v1.ClientMessage_Chunk{Chunk: &v1.Chunk{RemovedPorts: []string{"pod-ann", "link-uplink"}, RemovedHostPort: true}}})
	}
}

// tornChunk sends a chunk whose last byte is missing.
func tornChunk(w *world, v *vandal) {
	b, err := proto.Marshal(&v1.ClientMessage{Message: &v1.ClientMessage_Chunk{Chunk: &v1.Chunk{RemovedPorts: []string{"pod-ann"}}}})
	if err != nil {
		w.t.Fatal(err)
	}
	v.greet().send(b[:len(b)-1])
	v.ended()
}

// contradictions sends the node's own state with objects in it that cannot be.
func contradictions(w *world, v *vandal) {
	s, err := w.Desired("north")
	if err != nil {
		w.t.Fatal(err)
	}
	v.greet()
	mine := &v1.Chunk{Ports: s.Ports, NextHops: s.NextHops, Endpoints: s.Endpoints, HostPort: s.HostPort, Steering: s.Steering}
	for _, p := range s.Programs { // that judge the endpoints
		mine.Programs = append(mine.Programs, &v1.ProgramPart{Id: p.ID, Size: uint32(len(p.Image)), Image: p.Image})
	}
	for name, wrong := range map[string]*v1.Chunk{
		"two ports of one name":                        {Ports: []*v1.Port{{Name: "pod-ann", Device: "other", Kind: &v1.Port_Xsk{Xsk: &v1.XskPort{}}}}},
		"an endpoint behind no port":                   {Endpoints: []*v1.Endpoint{{Id: "x", Port: "nowhere", Addresses: []string{"10.78.9.9/32"}}}},
		"an address of two endpoints":                  {Endpoints: []*v1.Endpoint{{Id: "x", Port: "pod-amy", Addresses: []string{"10.78.1.10/32"}}}},
		"a next hop without a kind":                    {NextHops: []*v1.NextHop{{Id: 77}}},
		"a next hop by no port":                        {NextHops: []*v1.NextHop{{Id: 77, Kind: v1.NextHop_KIND_FORWARD, Members: []*v1.NextHop_Member{{Port: "nowhere"}}}}},
		"a route to no next hop":                       {Routes: &v1.RouteColumns{Addresses4: []byte{10, 0, 0, 0}, Lengths4: []byte{8}, NextHops4: []uint32{77}}},
		"set and removed":                              {RemovedPorts: []string{"pod-ann"}, RemovedEndpoints: []string{"pod/ann"}},
		"an address that is none":                      {Addresses: []*v1.Address{{Port: "pod-amy", Prefix: "10.78.1.300/24"}}},
		"two addresses of one family on the host port": {HostPort: &v1.HostPort{Addresses: []string{"10.78.1.1", "10.78.1.2"}}},
	} {
		m := v.commit(true, mine, wrong)
		if m.GetRefusal() == nil || strings.Contains(strings.Join(m.GetRefusal().GetFaults(), "\n"), "program") {
			w.t.Errorf("%s: answered by %v, want a refusal for that alone", name, m)
		}
	}
}

func wrongColumns(w *world, v *vandal) {
	v.greet()
	for _, c := range []*v1.RouteColumns{
		{Addresses4: make([]byte, 4), Lengths4: []byte{33}, NextHops4: []uint32{1}},
		{Addresses4: make([]byte, 7), Lengths4: []byte{8}, NextHops4: []uint32{1}},
		{Addresses6: make([]byte, 16), Lengths6: []byte{64, 64}, NextHops6: []uint32{1}},
		{Lengths6: []byte{64}},
	} {
		v.refused(v.commit(true, &v1.Chunk{Routes: c}))
	}
}

// noise writes to the socket what is no gRPC, and floods it with connections.
func (w *world) noise() {
	w.t.Helper()
	const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	for _, b := range [][]byte{
		nil, []byte("GET / HTTP/1.1\r\n\r\n"), text[:4096], append([]byte(preface), text[:4096]...),
		[]byte(preface + "\x00\xff\xff\x00\x00\x00\x00\x00\x01"), []byte(preface[:10]),
	} {
		for range 20 {
			c, err := net.Dial("unix", w.Socket("north"))
			if err != nil {
				w.t.Fatal(err)
			}
			_, _ = c.Write(b) // it may hang up on us
			_ = c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
			_, _ = c.Read(make([]byte, 100))
			_ = c.Close()
		}
	}
}

// unknownFields sends a good state, as a newer client does, in which every
// message has a field that this forwarder does not know.
func (w *world) unknownFields() {
	w.t.Helper()
	s, err := w.Desired("north")
	if err != nil {
		w.t.Fatal(err)
	}
	later := protowire.AppendTag(nil, 1999, protowire.BytesType)
	later = protowire.AppendString(later, "from a later version")
	for _, p := range s.Ports {
		p.ProtoReflect().SetUnknown(later)
	}
	for _, e := range s.Endpoints {
		e.ProtoReflect().SetUnknown(later)
	}
	s.HostPort.ProtoReflect().SetUnknown(later)
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	if _, err := w.Stream("north").Apply(ctx, s); err != nil {
		w.t.Errorf("fields of a later version are refused: %v", err)
	}
}

func TestClientComesAndGoesUnderLoad(t *testing.T) {
	w := raise(t, 2, nil)
	// Room for what waits while the machine does other things. The kernel stops
	// the device for a moment to change it: no ping may run yet.
	w.run("ann", "ip", "link", "set", "eth0", "txqueuelen", "5000")
	w.everybody()
	pings := []*pinging{w.pingPods("ann", "dave", true), w.pingPods("amy", "cleo", false)}
	drops := map[string]map[string]uint64{"north": w.counters("north").Drops, "south": w.counters("south").Drops}
	result := make(chan error, 1)
	stop, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { result <- w.perfs(stop) }()
	for i := range 20 {
		node := []string{"north", "south"}[i%2]
		w.Disconnect(node)
		w.eventually("the client is gone", func() bool { return !w.status(node).GetClientConnected() })
		time.Sleep(20 * time.Millisecond)
		w.feed(node)
	}
	cancel()
	if err := <-result; err != nil {
		t.Error(err)
	}
	for _, p := range pings {
		p.none(t)
	}
	w.balanced()
	for node, was := range drops {
		w.only(node, was, "ip-multicast") // of the kernels' own, which nobody forwards
	}
}

// perfs loads ann to cleo at a rate that any machine carries until it is told
// to stop, and finds what was lost.
func (w *world) perfs(stop context.Context) error {
	for first := true; first || stop.Err() == nil; first = false {
		p := load.Perf{UDP: true, Streams: 2, Rate: 10e6, Duration: 500 * time.Millisecond}
		r, err := w.Perf(context.Background(), "ann", "cleo", false, p)
		if err != nil {
			return err
		}
		if r.Received != r.Sent {
			return fmt.Errorf("%d of %d datagrams arrived", r.Received, r.Sent)
		}
	}
	return nil
}
