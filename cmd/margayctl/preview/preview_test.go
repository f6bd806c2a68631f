package preview_test

import (
	"bytes"
	"flag"
	"net/netip"
	"os"
	"strings"
	"testing"

	dataplanev1 "margay.dev/margay/api/dataplane/v1"
	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/cmd/margayctl/preview"
	"margay.dev/margay/internal/render"
)

var update = flag.Bool("update", false, "write the golden file anew")

// world is the objects of a manifest, as a store would hold them.
func world(t *testing.T, manifest string) []v3.Object {
	t.Helper()
	objects, err := v3.DecodeAll([]byte(manifest))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		o.Default(v3.ByLength)
		if faults := o.Validate(); len(faults) > 0 {
			t.Fatal(faults)
		}
	}
	return objects
}

const pods = `
- {apiVersion: projectcalico.org/v3, kind: Profile, metadata: {name: kns.shop}, spec: {ingress: [{action: Allow}], egress: [{action: Allow}]}}
- {apiVersion: projectcalico.org/v3, kind: WorkloadEndpoint, metadata: {name: ann, namespace: shop, labels: {app: web}}, spec: {ipNetworks: [10.1.0.2/32, "fd01::2/128"], profiles: [kns.shop]}}
- {apiVersion: projectcalico.org/v3, kind: WorkloadEndpoint, metadata: {name: bob, namespace: shop, labels: {app: db}}, spec: {ipNetworks: [10.1.0.3/32, "fd01::3/128"], profiles: [projectcalico-default-allow]}}
`

// guard has databases taken by webs alone, at port 5432.
const guard = `
- {apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: db, namespace: shop}, spec: {selector: app == 'db', ingress: [{action: Allow, protocol: TCP, source: {selector: app == 'web'}, destination: {ports: [5432]}}]}}
`

// leave has webs send nothing but TCP.
const leave = `
- {apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: tcp-only}, spec: {selector: app == 'web', egress: [{action: Deny, notProtocol: TCP}, {action: Allow}]}}
`

func flow(protocol uint32, source string, sourcePort uint32, destination string, port uint32) *dataplanev1.FlowList_Flow {
	return &dataplanev1.FlowList_Flow{Protocol: protocol, Original: &dataplanev1.FlowList_Direction{Source: source, SourcePort: sourcePort, Destination: destination, DestinationPort: port}}
}

// flows are of both families: from web to database by its port, by another, by UDP
// and by a ping, from a stranger, and to one.
func flows() (all []*dataplanev1.FlowList_Flow) {
	for _, net := range []string{"10.1.0.", "fd01::"} {
		ping := uint32(8 << 8)
		icmp := uint32(1)
		if net != "10.1.0." {
			ping, icmp = 128<<8, 58
		}
		all = append(all,
			flow(6, net+"2", 40000, net+"3", 5432), flow(6, net+"2", 40001, net+"3", 22), flow(17, net+"2", 40002, net+"3", 53),
			flow(icmp, net+"2", 77, net+"3", ping), flow(6, net+"9", 40000, net+"3", 5432), flow(6, net+"3", 40000, net+"9", 80), flow(6, net+"8", 1, net+"9", 2))
	}
	return all
}

func TestCompare(t *testing.T) {
	tests := map[string]struct {
		before, after string
		want          []string // of the flows of each family: place, verdict then, who decides
	}{
		"nothing changes":       {pods + guard, pods + guard, nil},
		"databases are guarded": {pods, pods + guard, []string{"1 deny ingress the end of tier default", "2 deny ingress the end of tier default", "3 deny ingress the end of tier default", "4 deny ingress the end of tier default"}},
		"databases are opened":  {pods + guard, pods, []string{"1 allow ingress Profile projectcalico-default-allow rule 0", "2 allow ingress Profile projectcalico-default-allow rule 0", "3 allow ingress Profile projectcalico-default-allow rule 0", "4 allow ingress Profile projectcalico-default-allow rule 0"}},
		"egress decides":        {pods, pods + leave, []string{"2 deny egress GlobalNetworkPolicy tcp-only rule 0", "3 deny egress GlobalNetworkPolicy tcp-only rule 0"}},
		"both sides must agree": {pods + guard, pods + guard + leave, nil},
		"the later object counts": {pods + guard, pods + guard + strings.ReplaceAll(guard, "5432", "22"),
			[]string{"0 deny ingress the end of tier default", "1 allow ingress NetworkPolicy shop/db rule 0"}},
		"a profile goes": {pods, strings.ReplaceAll(pods, "name: kns.shop}", "name: other}"), []string{"0 deny egress the missing profile kns.shop", "1 deny egress the missing profile kns.shop", "2 deny egress the missing profile kns.shop", "3 deny egress the missing profile kns.shop"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			asked := flows()
			turns, err := preview.Compare(preview.NewWorld(world(t, tt.before), preview.Names{}), preview.NewWorld(world(t, tt.after), preview.Names{}), asked)
			if err != nil {
				t.Fatal(err)
			}
			if len(turns) != 2*len(tt.want) {
				t.Fatalf("%d turns, want %d: %+v", len(turns), 2*len(tt.want), turns)
			}
			for i, turn := range turns {
				place, rest, _ := strings.Cut(tt.want[i%len(tt.want)], " ")
				half := len(asked) / 2
				got := "deny "
				if turn.Allowed {
					got = "allow "
				}
				if turn.Ingress {
					got += "ingress " + turn.By
				} else {
					got += "egress " + turn.By
				}
				if want := asked[i/len(tt.want)*half+int(place[0]-'0')]; turn.Flow != want || got != rest {
					t.Errorf("turn %d is %v: %s\nwant %v: %s", i, turn.Flow, got, want, rest)
				}
			}
		})
	}
}

// named has databases send to some names alone, and to a service.
const named = `
- {apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: out, namespace: shop}, spec: {selector: app == 'db', egress: [{action: Allow, destination: {selector: role == 'mirror'}}]}}
- {apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: elsewhere, labels: {role: mirror}}, spec: {allowedEgressDomains: [never.example.net]}}
- {apiVersion: projectcalico.org/v3, kind: NetworkSet, metadata: {name: mirrors, namespace: shop, labels: {role: mirror}}, spec: {allowedEgressDomains: ["*.Example.com"]}}
`

// Names have the addresses that an agent has learned: those are allowed, others not.
func TestNames(t *testing.T) {
	learned := preview.Names{Patterns: []string{"*.example.com", "other.example.org"}, Addresses: map[string][]netip.Addr{
		"a.example.com":     {netip.MustParseAddr("10.1.0.9")},
		"b.example.com":     {netip.MustParseAddr("fd01::9")},
		"other.example.org": {netip.MustParseAddr("10.1.0.8")},
	}}
	asked := []*dataplanev1.FlowList_Flow{
		flow(6, "10.1.0.3", 1, "10.1.0.9", 443), flow(6, "fd01::3", 1, "fd01::9", 443),
		flow(6, "10.1.0.3", 1, "10.1.0.8", 443), flow(6, "fd01::3", 1, "fd01::8", 443),
	}
	after := preview.NewWorld(world(t, pods+named), learned)
	turns, err := preview.Compare(preview.NewWorld(world(t, pods), learned), after, asked)
	if err != nil || len(turns) != 2 || turns[0].Flow != asked[2] || turns[1].Flow != asked[3] {
		t.Errorf("turned are %+v, %v; want what goes to addresses of other names", turns, err)
	}
	if got := strings.Join(after.Blind(), " "); got != "elsewhere" {
		t.Errorf("blind for %q, want the set whose name nobody has learned", got)
	}
	turns, err = preview.Compare(preview.NewWorld(world(t, pods), preview.Names{}), preview.NewWorld(world(t, pods+named), preview.Names{}), asked)
	if err != nil || len(turns) != 4 {
		t.Errorf("with no names known %d are turned, %v; want all", len(turns), err)
	}
}

func TestBlind(t *testing.T) {
	const manifest = pods + guard + named + `
- {apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: api, namespace: shop}, spec: {egress: [{action: Allow, destination: {services: {name: api}}}]}}
`
	if got := strings.Join(preview.NewWorld(world(t, manifest), preview.Names{}).Blind(), " "); got != "elsewhere shop/api shop/mirrors" {
		t.Errorf("blind for %q", got)
	}
}

func TestHostileFlows(t *testing.T) {
	w := preview.NewWorld(world(t, pods), preview.Names{})
	for _, f := range []*dataplanev1.FlowList_Flow{{}, flow(6, "x", 1, "10.0.0.1", 1), flow(6, "10.0.0.1", 1, "", 1)} {
		if _, err := preview.Compare(w, w, []*dataplanev1.FlowList_Flow{f}); err == nil {
			t.Errorf("%v was judged", f)
		}
	}
}

func TestReport(t *testing.T) {
	asked := flows()
	turns, err := preview.Compare(preview.NewWorld(world(t, pods+leave), preview.Names{}), preview.NewWorld(world(t, pods+guard), preview.Names{}), asked)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []render.Format{render.Text, render.JSON, render.YAML} {
		var out bytes.Buffer
		for _, r := range []*preview.Report{preview.NewReport(turns, len(asked), []string{"shop/api"}), preview.NewReport(nil, len(asked), nil)} {
			if err := r.Write(&out, f); err != nil {
				t.Fatal(err)
			}
		}
		golden := "testdata/report." + string(f)
		if *update {
			if err := os.WriteFile(golden, out.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if out.String() != string(want) {
			t.Errorf("the %s is\n%s\nwant\n%s", f, out.String(), want)
		}
	}
}
