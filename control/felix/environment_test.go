package felix

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	v3 "margay.dev/margay/api/v3"
	"margay.dev/margay/api/v3/felix"
)

func TestEnvironment(t *testing.T) {
	for name, tt := range map[string]struct {
		variable, want string // what is set, as JSON; or !the fault
	}{
		"a text":                       {"FELIX_LOGPREFIX=%n: x", `{"logPrefix":"%n: x"}`},
		"in small letters":             {"felix_LogPrefix= x ", `{"logPrefix":"x"}`},
		"a word":                       {"FELIX_DEFAULTENDPOINTTOHOSTACTION=ACCEPT", `{"defaultEndpointToHostAction":"ACCEPT"}`},
		"no such word":                 {"FELIX_DEFAULTENDPOINTTOHOSTACTION=Allow", "!Drop, Accept, Return"},
		"a truth":                      {"FELIX_BPFENABLED=Yes", `{"bpfEnabled":true}`},
		"no truth":                     {"FELIX_DISABLECONNTRACKINVALIDCHECK=perhaps", "!true or false"},
		"a number":                     {"FELIX_VXLANPORT=4790", `{"vxlanPort":4790}`},
		"a number out of bounds":       {"FELIX_VXLANPORT=65536", "!0 to 65535"},
		"no number":                    {"FELIX_VXLANPORT=", "!whole number"},
		"bits":                         {"FELIX_IPTABLESMARKMASK=0xf0000", `{"iptablesMarkMask":983040}`},
		"one bit":                      {"FELIX_NFTABLESMARKMASK=0x1", "!two bits"},
		"a duration in seconds":        {"FELIX_ROUTEREFRESHINTERVAL=1.5", `{"routeRefreshInterval":"1.5s"}`},
		"with its unit":                {"FELIX_REPORTINGINTERVALSECS=30", `{"reportingInterval":"30s"}`},
		"in milliseconds":              {"FELIX_IPTABLESLOCKPROBEINTERVALMILLIS=50", `{"iptablesLockProbeInterval":"50ms"}`},
		"as Go writes it":              {"FELIX_NETLINKTIMEOUTSECS=1m30s", `{"netlinkTimeout":"1m30s"}`},
		"a duration below none":        {"FELIX_ROUTEREFRESHINTERVAL=-1", "!0 or more"},
		"a duration that never ends":   {"FELIX_ROUTEREFRESHINTERVAL=NaN", "!number of seconds"},
		"failsafe ports":               {"FELIX_FAILSAFEINBOUNDHOSTPORTS=tcp:22, UDP:10.0.0.0/8:68,tcp:[fd00::/8]:179,80", `{"failsafeInboundHostPorts":[{"protocol":"tcp","port":22},{"protocol":"UDP","port":68,"net":"10.0.0.0/8"},{"protocol":"tcp","port":179,"net":"fd00::/8"},{"port":80}]}`},
		"no failsafe ports":            {"FELIX_FAILSAFEOUTBOUNDHOSTPORTS=none", `{"failsafeOutboundHostPorts":[]}`},
		"a failsafe port of nobody":    {"FELIX_FAILSAFEINBOUNDHOSTPORTS=tcp:22,icmp:1", "!tcp, udp or sctp"},
		"a failsafe port of no net":    {"FELIX_FAILSAFEINBOUNDHOSTPORTS=tcp:home:22", "!CIDR"},
		"a failsafe port too high":     {"FELIX_FAILSAFEINBOUNDHOSTPORTS=tcp:65536", "!no port"},
		"ports":                        {"FELIX_KUBENODEPORTRANGES=30000:32767,80", `{"kubeNodePortRanges":["30000:32767",80]}`},
		"a range":                      {"FELIX_NATPORTRANGE=1:2", `{"natPortRange":"1:2"}`},
		"no range":                     {"FELIX_NATPORTRANGE=2:1", "!range of ports"},
		"tables":                       {"FELIX_ROUTETABLERANGES=1-250,1000-2000", `{"routeTableRanges":[{"min":1,"max":250},{"min":1000,"max":2000}]}`},
		"no tables":                    {"FELIX_ROUTETABLERANGE=1", "!range of tables"},
		"a list":                       {"FELIX_EXTERNALNODESLIST=10.0.0.0/8,fd00::1", `{"externalNodesList":["10.0.0.0/8","fd00::1"]}`},
		"timeouts of parts":            {"FELIX_HEALTHTIMEOUTOVERRIDES=a=5s,b=7", `{"healthTimeoutOverrides":[{"name":"a","timeout":"5s"},{"name":"b","timeout":"7s"}]}`},
		"timeouts of connections":      {"FELIX_BPFCONNTRACKTIMEOUTS=TCPSynSent=20s,udpTimeout=auto", `{"bpfConntrackTimeouts":{"tcpSynSent":"20s","udpTimeout":"auto"}}`},
		"a timeout of none":            {"FELIX_BPFCONNTRACKTIMEOUTS=love=20s", "!timeout of connections"},
		"pairs":                        {"FELIX_BPFLOGFILTERS=all=tcp,eth0=udp port 53", `{"bpfLogFilters":{"all":"tcp","eth0":"udp port 53"}}`},
		"no pairs":                     {"FELIX_BPFLOGFILTERS=all", "!no pair"},
		"a former name":                {"FELIX_IPINIPMTU=1400", `{"ipipMTU":1400}`},
		"for whom settings are":        {"FELIX_NODESELECTOR=all()", "!no setting"},
		"a name of Felix's process":    {"FELIX_FELIXHOSTNAME=n7", "!no setting"},
		"a name of nothing":            {"FELIX_", "!no setting"},
		"a value that is far too long": {"FELIX_VXLANPORT=" + strings.Repeat("ä", 1<<16), "!whole number"},
		"somebody else's":              {"FELIXLOGPREFIX=x", `{}`},
	} {
		t.Run(name, func(t *testing.T) {
			got, faults := OnNode([]string{"PATH=/bin", tt.variable, "odd"}, nil)
			if says, refused := strings.CutPrefix(tt.want, "!"); refused {
				if len(faults) != 1 || !strings.Contains(faults[0].Error(), says) || len(faults[0].Error()) > 600 || !reflect.ValueOf(got.Settings).IsZero() {
					t.Errorf("faults are %v, want one with %q; set is %+v", faults, says, got.Settings)
				}
				return
			}
			b, err := json.Marshal(got.Settings)
			if err != nil || len(faults) > 0 || string(b) != tt.want {
				t.Errorf("set is %s, want %s; faults are %v, %v", b, tt.want, faults, err)
			}
		})
	}
}

// Variables come before the file, and that before the store; a variable that cannot
// be used brings the built-in value, whatever they say.
func TestVariablesComeFirst(t *testing.T) {
	said := func(prefix, action string) (s felix.Settings) {
		s.LogPrefix, s.DefaultEndpointToHostAction = prefix, action
		s.FailsafeInboundHostPorts = []felix.ProtoPort{{Port: 1}}
		return s
	}
	file, all := said("file", "Accept"), &v3.FelixConfiguration{Spec: said("store", "Return")}
	all.Name = v3.Default
	for name, tt := range map[string]struct {
		variables      []string
		prefix, action string
		ports          int // -1: built in
	}{
		"none":         {nil, "file", "Accept", 1},
		"one":          {[]string{"FELIX_LOGPREFIX=variable"}, "variable", "Accept", 1},
		"an empty one": {[]string{"FELIX_FAILSAFEINBOUNDHOSTPORTS="}, "file", "Accept", 0},
		"refused":      {[]string{"FELIX_FAILSAFEINBOUNDHOSTPORTS=x", "FELIX_DEFAULTENDPOINTTOHOSTACTION=x"}, "file", "", -1},
	} {
		t.Run(name, func(t *testing.T) {
			local, _ := OnNode(tt.variables, &file)
			got := Settings("n0", nil, local, []*v3.FelixConfiguration{all})
			ports := len(got.FailsafeInboundHostPorts)
			if got.FailsafeInboundHostPorts == nil {
				ports = -1
			}
			if got.LogPrefix != tt.prefix || got.DefaultEndpointToHostAction != tt.action || ports != tt.ports {
				t.Errorf("got %q, %q and %d ports, want %+v", got.LogPrefix, got.DefaultEndpointToHostAction, ports, tt)
			}
		})
	}
}

// Every field has a variable whose value it can take: no type is without a notation.
func TestEveryFieldHasAVariable(t *testing.T) {
	known := variables()
	for name, v := range known {
		if v.field == "" {
			t.Errorf("%s is of no field", name)
		}
	}
	each(reflect.TypeFor[felix.Settings](), nil, func(field string, index []int, kind reflect.Type) {
		if _, ok := known[strings.ToUpper(field)]; !ok && field != "nodeSelector" {
			t.Errorf("%s has no variable", field)
		}
		if err := parse(reflect.New(kind).Elem(), "?", "s"); err != nil && strings.Contains(err.Error(), "nobody has said") {
			t.Errorf("%s: %v", field, err)
		}
	})
}

func FuzzEnvironment(f *testing.F) {
	names := slices.Sorted(maps.Keys(variables()))
	f.Add(uint16(3), "tcp:[fd00::/8]:22,a=b")
	f.Add(uint16(9), "1e999")
	f.Fuzz(func(t *testing.T, which uint16, value string) {
		l, faults := OnNode([]string{EnvironmentPrefix + names[int(which)%len(names)] + "=" + value}, nil)
		if bad := l.Settings.Validate(nil); len(bad) > 0 || len(faults) > 1 || (len(faults) == 1) != (len(l.Refused) == 1) {
			t.Errorf("%q: faults %v, refused %v, and what is set has %v", value, faults, l.Refused, bad)
		}
	})
}

// The page of settings has each field once, and calls those honoured that the agent
// reads.
func TestThePageTellsOfEveryField(t *testing.T) {
	page, err := os.ReadFile("../../docs/FELIX.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "\n## Honoured\n")
	honoured, without, ok := strings.Cut(rest, "\n## Without effect\n")
	if !ok {
		t.Fatal("the page has no two tables")
	}
	told := map[string]int{}
	for effect, table := range []string{without, honoured} {
		for row := range strings.Lines(table) {
			cells := strings.Split(row, "|")
			if len(cells) != 4 {
				continue
			}
			for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[1], -1) {
				if told[m[1]] > 0 {
					t.Errorf("%s is told of twice", m[1])
				}
				told[m[1]] = 1 + effect
			}
		}
	}
	read := fieldsRead(t, "../../control")
	each(reflect.TypeFor[felix.Settings](), nil, func(field string, index []int, _ reflect.Type) {
		name := reflect.TypeFor[felix.Settings]().FieldByIndex(index).Name
		switch is := told[field]; {
		case is == 0:
			t.Errorf("%s is told of nowhere", field)
		case (is == 2) != read[name]:
			t.Errorf("the page calls %s honoured: %v; the agent reads %s: %v", field, is == 2, name, read[name])
		}
		delete(told, field)
	})
	for name := range told {
		t.Errorf("%s is no field", name)
	}
}

// fieldsRead are the names that code below a folder selects of something.
func fieldsRead(t *testing.T, dir string) map[string]bool {
	out := map[string]bool{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok {
				if of, named := s.X.(*ast.Ident); !named || of.Name != "felix" { // that is a type
					out[s.Sel.Name] = true
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
