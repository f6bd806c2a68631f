package inspect

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/classifier"
	"margay.dev/margay/fastpath/graph/graphtest"
	"margay.dev/margay/forwarder/plane/planetest"
	"margay.dev/margay/internal/hostnet/hostnettest"
)

var (
	annAt = [2]netip.Addr{netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("fd00::2")}
	bobAt = [2]netip.Addr{netip.MustParseAddr("10.1.0.3"), netip.MustParseAddr("fd00::3")}
)

// longText is what a rule says that is as long as may be.
var longText = "allow UDP from role == 'client'" + strings.Repeat(" ", pb.MaxLine-40)

// image is a list as a program.
func image(t *testing.T, id uint32, rules ...classifier.Rule) *pb.ProgramPart {
	t.Helper()
	c, err := classifier.Compile(rules, classifier.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return &pb.ProgramPart{Id: id, Size: uint32(len(c.Image)), Image: c.Image}
}

// shop is pod/ann, who is judged by nobody, and pod/bob, who takes UDP but for port
// 22 from whom set 1 has, and over IPv6 also port 9 from anybody.
func shop(t *testing.T, clients ...netip.Addr) *pb.Chunk {
	udp := []classifier.Range{{First: 17, Last: 17}}
	to := func(port uint16) classifier.Side {
		return classifier.Side{Ports: []classifier.Range{{First: port, Last: port}}}
	}
	ssh := classifier.Rule{ID: 5, Action: classifier.Deny, Protocols: udp, Destination: to(22)}
	known := classifier.Rule{ID: 7, Action: classifier.Allow, Source: classifier.Side{Sets: []classifier.SetID{1}}}
	nine := classifier.Rule{ID: 8, Action: classifier.Allow, Protocols: udp, Destination: to(9)}
	members := &pb.PrefixColumns{}
	for _, a := range clients {
		if a.Is4() {
			members.Addresses4, members.Lengths4 = append(members.Addresses4, a.AsSlice()...), append(members.Lengths4, 32)
		} else {
			members.Addresses6, members.Lengths6 = append(members.Addresses6, a.AsSlice()...), append(members.Lengths6, 128)
		}
	}
	return &pb.Chunk{
		Ports: []*pb.Port{{Name: "a", Device: "a", Kind: &pb.Port_Tun{Tun: &pb.TunPort{}}}, {Name: "b", Device: "b", Kind: &pb.Port_Tun{Tun: &pb.TunPort{}}}},
		Endpoints: []*pb.Endpoint{
			{Id: "pod/ann", Port: "a", Addresses: []string{"10.1.0.2", "fd00::2"}, Policy: pb.Endpoint_POLICY_OFF},
			{
				Id: "pod/bob", Port: "b", Addresses: []string{"10.1.0.3", "fd00::3"}, Policy: pb.Endpoint_POLICY_ENFORCED,
				Egress: []*pb.Stage{{Program4: 4, Program6: 4}},
				Ingress: []*pb.Stage{
					{Program4: 1, Program6: 1, UndecidedPasses: true, Name: "platform"}, {Program4: 2, Program6: 3, Name: "default"},
				},
				StagedIngress: []*pb.Stage{{Program4: 1, Program6: 1, Name: "default"}},
			},
		},
		Sets: []*pb.SetMembers{{Set: 1, Name: "role == 'client'", Joined: members}},
		Programs: []*pb.ProgramPart{
			image(t, 1, ssh), image(t, 2, known), image(t, 3, nine, known),
			image(t, 4, classifier.Rule{ID: 9, Action: classifier.Allow}, classifier.Rule{Action: classifier.Deny}),
		},
		Rules: []*pb.RuleName{
			{Id: 5, Tier: "platform", Policy: "GlobalNetworkPolicy no-ssh", Text: "deny UDP to ports 22"},
			{Id: 7, Tier: "default", Policy: "NetworkPolicy shop/web", Index: 1, Text: longText},
			{Id: 8, Tier: "default", Policy: "NetworkPolicy shop/web", Text: "allow IPv6 UDP to ports 9"},
		},
	}
}

// list reads all chunks of an answer, each of which is to be small.
func list(t *testing.T, client pb.InspectClient, in *pb.ListFlowsRequest) *pb.FlowList {
	t.Helper()
	stream, err := client.ListFlows(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	all := &pb.FlowList{}
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if n := proto.Size(chunk); n > 2<<20 {
			t.Errorf("a chunk has %d bytes", n)
		}
		proto.Merge(all, chunk)
	}
}

// summary is a flow in a line, for tests to compare.
func summary(f *pb.FlowList_Flow) string {
	o := f.GetOriginal()
	return fmt.Sprintf("%d %s:%d %s:%d %s, %s, %s", f.GetProtocol(), o.GetSource(), o.GetSourcePort(), o.GetDestination(), o.GetDestinationPort(),
		f.GetState(), said(f.GetEgress()), said(f.GetIngress()))
}

func said(r *pb.Ruling) string {
	verdict := "denied"
	if r.GetAllowed() {
		verdict = "allowed"
	}
	by := map[pb.Ruling_By]string{
		pb.Ruling_BY_NOBODY: "nobody", pb.Ruling_BY_TIER: "tier " + r.GetTier(), pb.Ruling_BY_END: "end",
		pb.Ruling_BY_RULE: fmt.Sprint(r.GetRule().GetId(), " ", r.GetRule().GetPolicy()),
	}[r.GetBy()]
	return fmt.Sprintf("%s of %s by %s", verdict, r.GetEndpoint(), by)
}

func summaries(l *pb.FlowList) (out []string) {
	for _, f := range l.GetFlows() {
		out = append(out, summary(f))
	}
	slices.Sort(out)
	return out
}

// converse sends packets of ann's by which flows begin, and one of bob's, of a family.
func converse(b *planetest.Bench, v6 int) {
	ann, bob := annAt[v6], bobAt[v6]
	b.Port("a").Inject(0, graphtest.UDPPorts(ann, bob, 5, 1000, 53), graphtest.Echo(ann, bob, 5))
	b.Port("b").Inject(0, graphtest.UDPPorts(bob, ann, 5, 2000, 80))
}

func flowsOf(v6 int) []string {
	ann, bob := annAt[v6], bobAt[v6]
	const ingress = "allowed of pod/ann by nobody, allowed of pod/bob by 7 NetworkPolicy shop/web"
	proto, echo := 1, 8<<8
	if v6 == 1 {
		proto, echo = 58, 128<<8
	}
	return []string{
		fmt.Sprintf("%d %s:5 %s:%d one-way, %s", proto, ann, bob, echo, ingress),
		fmt.Sprintf("17 %s:1000 %s:53 one-way, %s", ann, bob, ingress),
		fmt.Sprintf("17 %s:2000 %s:80 one-way, allowed of pod/bob by 9 , allowed of pod/ann by nobody", bob, ann),
	}
}

func TestFlowsAreTold(t *testing.T) {
	_, b, client := served(t)
	b.Snapshot(shop(t, annAt[0], annAt[1]))
	converse(b, 0)
	converse(b, 1)
	four, six := flowsOf(0), flowsOf(1)
	all := slices.Sorted(slices.Values(slices.Concat(four, six)))
	hostnettest.Eventually(t, "six flows begin", func() bool { return len(list(t, client, &pb.ListFlowsRequest{}).GetFlows()) == 6 })
	udp := []string{four[1], four[2], six[1], six[2]}
	tests := map[string]struct {
		in   *pb.ListFlowsRequest
		want []string
	}{
		"all":                           {&pb.ListFlowsRequest{}, all},
		"of an endpoint":                {&pb.ListFlowsRequest{Endpoint: "pod/ann"}, all},
		"of the end of its id":          {&pb.ListFlowsRequest{Endpoint: "bob"}, all},
		"at an IPv4 address":            {&pb.ListFlowsRequest{Address: "10.1.0.3"}, four},
		"at an IPv6 address":            {&pb.ListFlowsRequest{Address: "fd00::2"}, six},
		"at a mapped address":           {&pb.ListFlowsRequest{Address: "::ffff:10.1.0.3"}, four},
		"in a prefix":                   {&pb.ListFlowsRequest{Address: "fd00::/64"}, six},
		"in a prefix with bits behind":  {&pb.ListFlowsRequest{Address: "10.1.9.9/16"}, four},
		"at an address nobody talks to": {&pb.ListFlowsRequest{Address: "10.1.0.9"}, nil},
		"of a protocol":                 {&pb.ListFlowsRequest{Protocol: 17}, udp},
		"of a family's protocol":        {&pb.ListFlowsRequest{Protocol: 58}, six[:1]},
		"from a port":                   {&pb.ListFlowsRequest{Port: 1000}, []string{four[1], six[1]}},
		"to a port":                     {&pb.ListFlowsRequest{Port: 80, Protocol: 17}, []string{four[2], six[2]}},
		"no port is an identifier":      {&pb.ListFlowsRequest{Port: 5}, nil},
		"allowed":                       {&pb.ListFlowsRequest{Verdict: pb.ListFlowsRequest_VERDICT_ALLOWED}, all},
		"denied":                        {&pb.ListFlowsRequest{Verdict: pb.ListFlowsRequest_VERDICT_DENIED}, nil},
		"as many as there are":          {&pb.ListFlowsRequest{Limit: 6}, all},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := list(t, client, tt.in)
			if want := slices.Sorted(slices.Values(tt.want)); !slices.Equal(summaries(got), want) || got.GetMore() {
				t.Errorf("flows are\n%s\nmore: %v; want\n%s", strings.Join(summaries(got), "\n"), got.GetMore(), strings.Join(want, "\n"))
			}
		})
	}
	if got := list(t, client, &pb.ListFlowsRequest{Protocol: 17, Limit: 3}); len(got.GetFlows()) != 3 || !got.GetMore() {
		t.Errorf("of 4 flows, 3 wanted, %d came, and more: %v", len(got.GetFlows()), got.GetMore())
	}
}

func TestWhatAFlowHas(t *testing.T) {
	_, b, client := served(t)
	b.Snapshot(shop(t, annAt[0], annAt[1]))
	for v6 := range annAt {
		b.Port("a").Inject(0, graphtest.UDPPorts(annAt[v6], bobAt[v6], 5, 1000, 53))
		hostnettest.Eventually(t, "the flow begins", func() bool { return len(list(t, client, &pb.ListFlowsRequest{}).GetFlows()) == v6+1 })
		b.Port("b").Inject(0, graphtest.UDPPorts(bobAt[v6], annAt[v6], 50, 53, 1000))
		of := &pb.ListFlowsRequest{Address: annAt[v6].String()}
		hostnettest.Eventually(t, "it is answered", func() bool { return list(t, client, of).GetFlows()[0].GetState() == "both-ways" })
		f := list(t, client, of).GetFlows()[0]
		head := uint64([2]int{28, 48}[v6])
		o, r := f.GetOriginal(), f.GetReply()
		if o.GetPackets() != 1 || o.GetBytes() != head+5 || r.GetPackets() != 1 || r.GetBytes() != head+50 {
			t.Errorf("%d packets and %d bytes there, %d and %d back", o.GetPackets(), o.GetBytes(), r.GetPackets(), r.GetBytes())
		}
		if r.GetSource() != bobAt[v6].String() || r.GetDestination() != annAt[v6].String() || r.GetSourcePort() != 53 || r.GetDestinationPort() != 1000 {
			t.Errorf("replies are %v", r)
		}
		if o.GetAdjacencies()[0].GetPort() != "b" || r.GetAdjacencies()[0].GetPort() != "a" {
			t.Errorf("there by %v, back by %v", o.GetAdjacencies(), r.GetAdjacencies())
		}
		rule := f.GetIngress().GetRule()
		if rule.GetText() != longText || rule.GetTier() != "default" || rule.GetIndex() != 1 || f.GetIngress().GetTier() != "default" {
			t.Errorf("decided by %v of tier %s", rule, f.GetIngress().GetTier())
		}
		if f.GetAgeMs() > 60_000 || f.GetIdleMs() > f.GetAgeMs() {
			t.Errorf("%d ms old, idle for %d ms", f.GetAgeMs(), f.GetIdleMs())
		}
	}
}

// A flow that was decided by other tables says so; with its next packet it is
// decided anew, and told as what it is then.
func TestFlowsThatPolicyTurns(t *testing.T) {
	_, b, client := served(t)
	b.Snapshot(shop(t, annAt[0], annAt[1]))
	open := func() {
		for v6 := range annAt {
			b.Port("a").Inject(0, graphtest.UDPPorts(annAt[v6], bobAt[v6], 5, 1000, 53))
		}
	}
	open()
	hostnettest.Eventually(t, "two flows begin", func() bool { return len(list(t, client, &pb.ListFlowsRequest{}).GetFlows()) == 2 })
	b.Snapshot(shop(t))
	for _, f := range list(t, client, &pb.ListFlowsRequest{}).GetFlows() {
		if !f.GetOutdated() || !f.GetIngress().GetAllowed() {
			t.Errorf("before its next packet %s is outdated: %v", summary(f), f.GetOutdated())
		}
	}
	open()
	turned := &pb.ListFlowsRequest{Verdict: pb.ListFlowsRequest_VERDICT_DENIED}
	hostnettest.Eventually(t, "both are denied", func() bool { return len(list(t, client, turned).GetFlows()) == 2 })
	for _, f := range list(t, client, turned).GetFlows() {
		if f.GetOutdated() || said(f.GetIngress()) != "denied of pod/bob by tier default" {
			t.Errorf("after its next packet %s, outdated: %v", summary(f), f.GetOutdated())
		}
	}
	none := shop(t)
	none.Endpoints[1].Ingress, none.Endpoints[1].StagedIngress = nil, nil
	b.Snapshot(none)
	open()
	hostnettest.Eventually(t, "nothing decides", func() bool {
		return !slices.ContainsFunc(list(t, client, turned).GetFlows(), func(f *pb.FlowList_Flow) bool { return f.GetIngress().GetBy() != pb.Ruling_BY_END })
	})
}

func TestFlowsThatCannotBeAskedFor(t *testing.T) {
	_, b, client := served(t)
	b.Snapshot(shop(t))
	many := shop(t)
	for i := range 100 {
		many.Endpoints = append(many.Endpoints, &pb.Endpoint{Id: fmt.Sprintf("zoo/%03d", i), Port: "a"})
	}
	many.Endpoints = append(many.Endpoints, &pb.Endpoint{Id: "zoo/ann", Port: "a"})
	tests := map[string]struct {
		in   *pb.ListFlowsRequest
		code codes.Code
		says string
	}{
		"a protocol over 255":       {&pb.ListFlowsRequest{Protocol: 256}, codes.InvalidArgument, "protocol is 256, want 1 to 255"},
		"a port over 65535":         {&pb.ListFlowsRequest{Port: 1 << 31}, codes.InvalidArgument, "port is 2147483648, want 1 to 65535"},
		"a port of ICMP":            {&pb.ListFlowsRequest{Port: 5, Protocol: 1}, codes.InvalidArgument, "protocol 1 has no ports"},
		"an unknown verdict":        {&pb.ListFlowsRequest{Verdict: 77}, codes.InvalidArgument, "verdict is 77, want any, allowed or denied"},
		"a negative verdict":        {&pb.ListFlowsRequest{Verdict: -1}, codes.InvalidArgument, "verdict is -1"},
		"no address":                {&pb.ListFlowsRequest{Address: "ann"}, codes.InvalidArgument, `address is "ann", want an address or a prefix`},
		"an address with a zone":    {&pb.ListFlowsRequest{Address: "fe80::1%eth0"}, codes.InvalidArgument, "address is"},
		"a mapped prefix":           {&pb.ListFlowsRequest{Address: "::ffff:10.0.0.0/104"}, codes.InvalidArgument, "address is"},
		"a long address":            {&pb.ListFlowsRequest{Address: strings.Repeat("1", 1<<20)}, codes.InvalidArgument, "address is"},
		"an endpoint there is not":  {&pb.ListFlowsRequest{Endpoint: "eve"}, codes.NotFound, `no endpoint is called "eve"; there are pod/ann, pod/bob, zoo/000`},
		"so many that few are told": {&pb.ListFlowsRequest{Endpoint: "eve"}, codes.NotFound, "zoo/017 and 83 more"},
		"an endpoint of two":        {&pb.ListFlowsRequest{Endpoint: "ann"}, codes.InvalidArgument, `endpoint "ann" may be any of pod/ann, zoo/ann: say more of its id`},
	}
	b.Snapshot(many)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			stream, err := client.ListFlows(t.Context(), tt.in)
			if err == nil {
				_, err = stream.Recv()
			}
			if status.Code(err) != tt.code || !strings.Contains(err.Error(), tt.says) || len(err.Error()) > 1000 {
				t.Errorf("answer is %v, want %v: %q", err, tt.code, tt.says)
			}
		})
	}
	b.Snapshot(&pb.Chunk{})
	stream, err := client.ListFlows(t.Context(), &pb.ListFlowsRequest{Endpoint: "ann"})
	if err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.NotFound || !strings.Contains(err.Error(), "there is none at all") {
		t.Errorf("where there is no endpoint the answer is %v", err)
	}
}

// A client that does not read what it asked for holds up neither a change of the
// state, nor packets, nor others who ask.
func TestWhoDoesNotReadHoldsNobodyUp(t *testing.T) {
	_, b, client := served(t)
	b.Snapshot(shop(t, annAt[0], annAt[1]))
	const flows = 1500
	for i := 0; i < flows; i += 50 {
		for j := i; j < i+50; j++ {
			b.Port("a").Inject(0, graphtest.UDPPorts(annAt[j%2], bobAt[j%2], 5, uint16(1000+j), 53))
		}
		hostnettest.Eventually(t, "flows begin", func() bool {
			s, err := client.SummarizeFlows(t.Context(), &pb.SummarizeFlowsRequest{})
			return err == nil && s.GetFlows() == uint64(i+50)
		})
	}
	idle, err := client.ListFlows(t.Context(), &pb.ListFlowsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond) // until it is stuck in its stream
	b.Snapshot(shop(t, annAt[0]))
	if got := len(list(t, client, &pb.ListFlowsRequest{}).GetFlows()); got != flows {
		t.Errorf("who reads is told of %d flows, want %d", got, flows)
	}
	read := 0
	for {
		chunk, err := idle.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		read += len(chunk.GetFlows())
	}
	if read != flows {
		t.Errorf("who reads late is told of %d flows, want %d", read, flows)
	}
}

func TestSummaryOfFlows(t *testing.T) {
	_, b, client := served(t)
	b.Snapshot(shop(t, annAt[0], annAt[1]))
	converse(b, 0)
	converse(b, 1)
	b.Port("a").Inject(0, graphtest.TCP(annAt[0], bobAt[0], 5), graphtest.TCP(annAt[1], bobAt[1], 5)) // of no connection
	var s *pb.FlowSummary
	hostnettest.Eventually(t, "six flows begin and two packets are refused", func() (done bool) {
		var err error
		s, err = client.SummarizeFlows(t.Context(), &pb.SummarizeFlowsRequest{})
		return err == nil && s.GetFlows() == 6 && s.GetRefused()["mid-flow"] == 2
	})
	if s.GetLimit() < 4000 || s.GetInserted() != 6 || s.GetByState()["one-way"] != 6 || len(s.GetByState()) != 9 || s.GetExpired()+s.GetRetired()+s.GetWaiting()+s.GetPartial() != 0 {
		t.Errorf("summary is %v", s)
	}
	if h := s.GetHolders(); len(h) != 1 || h[0].GetEndpoint() != "pod/bob" || h[0].GetFlows() != 6 {
		t.Errorf("holders are %v", h)
	}
}
