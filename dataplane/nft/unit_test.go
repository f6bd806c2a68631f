package nft

import (
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"margay.dev/margay/classifier"
)

func TestInterval(t *testing.T) {
	for prefix, want := range map[string][]string{
		"10.0.0.0/8":      {"0a000000", "0b000000"},
		"10.1.2.3/32":     {"0a010203", "0a010204"},
		"10.0.255.255/32": {"0a00ffff", "0a010000"},
		"0.0.0.0/0":       {"00000000"},
		"255.0.0.0/8":     {"ff000000"},
		"128.0.0.0/1":     {"80000000"},
		"::/0":            {strings.Repeat("00", 16)},
		"ffff::/16":       {"ffff" + strings.Repeat("00", 14)},
		"2001:db8::/32":   {"20010db8" + strings.Repeat("00", 12), "20010db9" + strings.Repeat("00", 12)},
	} {
		var got []string
		for i, e := range interval(netip.MustParsePrefix(prefix)) {
			got = append(got, hex.EncodeToString(e.key))
			if e.end != (i == 1) {
				t.Errorf("%s: element %d is an end: %v", prefix, i, e.end)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s is %v, want %v", prefix, got, want)
		}
	}
}

// FuzzSet holds what the kernel would have, by what joins and leaves its set, against
// the members: no two overlap, and they have the same addresses. Changes that are taken
// back leave nothing.
func FuzzSet(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 200, 201, 202, 17, 30, 40})
	f.Add([]byte("a long enough text to let members join, cover each other, and leave"))
	f.Fuzz(func(t *testing.T, ops []byte) {
		s, members, kernel := newSet(""), map[netip.Prefix]bool{}, map[netip.Prefix]bool{}
		for len(ops) >= 3 {
			var c SetChange
			for range min(3, len(ops)/2) {
				p := somePrefix(ops[0], ops[1])
				if ops[0]&1 == 0 {
					c.Joined = append(c.Joined, p)
				} else {
					c.Left = append(c.Left, p)
				}
				ops = ops[2:]
			}
			before := s.Clone()
			var undo []memberUndo
			newBatch("").changeSet(func(int) string { return "" }, s, &c, &undo)
			takeBack(undo)
			if !reflect.DeepEqual(s.Set, before) {
				t.Fatalf("%+v, taken back, leaves %v of %v", c, s, before)
			}
			net := map[netip.Prefix]int{}
			for _, p := range c.Left {
				s.Leave(p, net)
				delete(members, p)
			}
			for _, p := range c.Joined {
				s.Join(p, net)
				members[p] = true
			}
			for p, n := range net {
				if n < -1 || n > 1 || n == 1 && kernel[p] || n == -1 && !kernel[p] {
					t.Fatalf("%v joins the kernel's set %d times, which has it: %v", p, n, kernel[p])
				}
				if n == 1 {
					kernel[p] = true
				} else if n == -1 {
					delete(kernel, p)
				}
			}
			checkCover(t, members, kernel)
		}
	})
}

// somePrefix is one of few, which often cover each other.
func somePrefix(a, b byte) netip.Prefix {
	if a&2 == 0 {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{b & 0xc0, b << 4 & 0xc0}), int(a>>2)%13).Masked()
	}
	return netip.PrefixFrom(netip.AddrFrom16([16]byte{b & 0xc0, b << 4 & 0xc0}), int(a>>2)%13).Masked()
}

func checkCover(t *testing.T, members, kernel map[netip.Prefix]bool) {
	t.Helper()
	for p := range kernel {
		if !members[p] {
			t.Fatalf("the kernel has %v, which is no member of %v", p, members)
		}
		for q := range kernel {
			if p != q && p.Overlaps(q) {
				t.Fatalf("the kernel has %v and %v, which overlap", p, q)
			}
		}
	}
	for p := range members {
		covered := false
		for q := range kernel {
			covered = covered || q.Bits() <= p.Bits() && q.Contains(p.Addr())
		}
		if !covered {
			t.Fatalf("the kernel has nothing for %v: %v", p, kernel)
		}
	}
}

// FuzzEdit holds an edited list against its rules: pieces have them in order, each
// under a name of its own, and those at both ends that did not change are the same.
func FuzzEdit(f *testing.F) {
	f.Add(uint64(1), uint8(3))
	f.Add(uint64(2), uint8(40))
	f.Fuzz(func(t *testing.T, seed uint64, steps uint8) {
		w := rand.New(rand.NewPCG(seed, 1))
		v := &view{}
		var rules []classifier.Rule
		for range 1 + w.IntN(200) {
			rules = append(rules, classifier.Rule{ID: w.Uint32N(5), Action: classifier.Allow})
		}
		l := &list{rules: rules, index: v.nextPiece(), pieces: cut(rules, v.nextPiece)}
		for range steps % 16 {
			next := slices.Clone(l.rules)
			at := w.IntN(len(next))
			switch w.IntN(3) {
			case 0:
				next = slices.Insert(next, at, make([]classifier.Rule, w.IntN(70))...)
			case 1:
				next = slices.Delete(next, at, min(len(next), at+w.IntN(70)))
			default:
				next[at].ID += 100
			}
			if len(next) == 0 {
				return
			}
			old := l
			l = old.edited(next, v.nextPiece)
			var got []classifier.Rule
			names := map[string]bool{}
			for _, p := range l.pieces {
				got = append(got, p.rules...)
				if names[p.name] || len(p.rules) == 0 {
					t.Fatalf("piece %q is there twice, or empty", p.name)
				}
				names[p.name] = true
			}
			if !reflect.DeepEqual(got, next) {
				t.Fatalf("the pieces have %d rules that are not the %d of the list", len(got), len(next))
			}
			if at >= len(old.pieces[0].rules) && &old.pieces[0].rules[0] != &l.pieces[0].rules[0] {
				t.Fatalf("a change at %d takes the first piece away", at)
			}
		}
	})
}

func TestRefusals(t *testing.T) {
	j := func(tiers ...Tier) *Judgement { return &Judgement{Tiers: tiers, End: classifier.Deny} }
	one := func(r classifier.Rule) *Desired {
		return onEth0(j(Tier{Name: "t", V4: []classifier.Rule{r}, End: classifier.Deny}), nil)
	}
	p4, p6 := netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")
	set := func(s Settings) *Desired { return &Desired{Settings: s} }
	tests := map[string]struct {
		change Change
		want   string
	}{
		"no desired state":        {Change{}, "begins with a change"},
		"an empty interface":      {Change{Desired: &Desired{Endpoints: []Endpoint{{Name: "x"}}}}, `interface ""`},
		"a long interface":        {Change{Desired: &Desired{Endpoints: []Endpoint{{Interface: "abcdefghijklmnop"}}}}, "1 to 15 bytes"},
		"a path":                  {Change{Desired: &Desired{Endpoints: []Endpoint{{Interface: "a/b"}}}}, "1 to 15 bytes"},
		"an interface twice":      {Change{Desired: &Desired{Endpoints: []Endpoint{{Name: "x", Interface: "a"}, {Name: "y", Interface: "a"}}}}, "x and y are both"},
		"one bit of a mark":       {Change{Desired: set(Settings{Mark: 4})}, "at least two bits"},
		"a failsafe of ICMP":      {Change{Desired: set(Settings{Failsafe: [2][]Failsafe{{{Protocol: 1}}}})}, "have no ports"},
		"a star in a name":        {Change{Desired: set(Settings{Workloads: []string{"a*b*"}})}, ""},
		"a tunnel of no host":     {Change{Desired: set(Settings{Tunnels: Tunnels{Hosts: []netip.Addr{{}}}})}, "tunnel of host"},
		"a rule without action":   {Change{Desired: one(classifier.Rule{})}, "not what a rule can do"},
		"a rule of a set unknown": {Change{Desired: one(classifier.Rule{Action: classifier.Allow, Source: classifier.Side{Sets: []classifier.SetID{4}}})}, "set 4, which was not given"},
		"IPv6 in the list of IPv4": {
			Change{Desired: one(classifier.Rule{Action: classifier.Allow, Source: classifier.Side{Nets: []netip.Prefix{p6}}})}, "in the list of IPv4",
		},
		"a tier that allows":          {Change{Desired: onEth0(j(Tier{End: classifier.Allow}), nil)}, "want deny or pass"},
		"a judgement without an end":  {Change{Desired: onEth0(&Judgement{}, nil)}, "a judgement ends with"},
		"allow before tracking":       {Change{Desired: &Desired{Endpoints: []Endpoint{{Interface: "a", PreDNAT: &Judgement{End: classifier.Allow}}}}}, "a judgement ends with"},
		"a set without number":        {Change{Desired: &Desired{}, Sets: []SetChange{{Joined: []netip.Prefix{p4}}}}, "set 0x0"},
		"an anonymous set":            {Change{Desired: &Desired{}, Sets: []SetChange{{ID: classifier.AnonymousSet}}}, "set 0x80000000"},
		"a member that is none":       {Change{Desired: &Desired{}, Sets: []SetChange{{ID: 1, Joined: []netip.Prefix{{}}}}}, "want a prefix"},
		"a member of IPv4 as of IPv6": {Change{Desired: &Desired{}, Sets: []SetChange{{ID: 1, Joined: []netip.Prefix{netip.MustParsePrefix("::ffff:10.0.0.1/128")}}}}, "want a prefix"},
	}
	h := newHost(t, Options{})
	for name, tt := range tests {
		err := h.table.Apply(tt.change)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s gives %v, want %q", name, err, tt.want)
		}
		if tt.want == "" {
			if err := h.table.Remove(); err != nil {
				t.Fatal(err)
			}
		}
	}
	// What is refused leaves what is in force, and what follows goes on from there.
	rule := allow(1, 6, 80)
	rule.Source.Sets = []classifier.SetID{1}
	members := []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("2001:db8:1::/48")}
	apply(t, h, Change{Desired: onEth0(only(classifier.Deny, rule), nil), Sets: []SetChange{{ID: 1, Joined: members}}})
	for name, tt := range tests {
		if tt.want != "" && name != "no desired state" {
			c := tt.change
			c.Sets = append([]SetChange{{ID: 1, Left: members}, {ID: 2, Joined: members}}, c.Sets...)
			if err := h.table.Apply(c); err == nil {
				t.Errorf("%s is taken as a change", name)
			}
			if err := h.table.Try(c, 1e9); err == nil {
				t.Errorf("%s is tried", name)
			}
		}
	}
	// The kernel refuses a set to go that a rule names.
	err := h.table.Apply(Change{Gone: []classifier.SetID{1}})
	if err == nil || !strings.Contains(err.Error(), `deleting set "v`) {
		t.Errorf("a set in use that goes gives %v", err)
	}
	in80 := both(toPort80, 1, ownNetwork)
	h.wantThrough("after refusals", in80, true)
	apply(t, h, Change{Sets: []SetChange{{ID: 1, Left: members[:1]}}})
	h.wantThrough("IPv4 has left", in80[:1], false)
	h.wantThrough("IPv6 has not", in80[1:], true)
	if s := h.table.Stats(); s.Refused == 0 || s.Transactions < 3 {
		t.Errorf("stats are %+v", s)
	}
}

func TestExplain(t *testing.T) {
	for _, errno := range []unix.Errno{unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT, unix.EOPNOTSUPP} {
		if err := explain(errno); !errors.Is(err, ErrUnsupported) || !errors.Is(err, errno) {
			t.Errorf("%v is explained as %v", errno, err)
		}
	}
	if err := explain(unix.EPERM); errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
		t.Errorf("EPERM is explained as %v", err)
	}
}

// FuzzMessages takes apart what a kernel would never send.
func FuzzMessages(f *testing.F) {
	b := newBatch("margay")
	b.newTable()
	b.newChain("c", &hook{1, 2})
	b.finish(1)
	f.Add(b.buf)
	f.Add([]byte{255, 255, 255, 255, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		_ = eachMessage(data, func(h header, body []byte) error {
			_ = h.fault(body)
			eachAttribute(body, func(uint16, []byte) {})
			return nil
		})
		for seq := range uint32(4) {
			_, _ = (&batch{buf: data}).describe(seq)
		}
	})
}

// The kernel gets what differs, not the list, the sets or the endpoints.
func TestWorkFollowsChange(t *testing.T) {
	h := newHost(t, Options{})
	var rules []classifier.Rule
	for i := range uint32(1500) {
		rules = append(rules, allow(i+1, 6, uint16(i)))
	}
	var members []netip.Prefix
	for i := range 3000 {
		members = append(members, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 32))
	}
	rules[7].Source.Sets = []classifier.SetID{1}
	parts := func(c Change) uint64 {
		before := h.table.Stats().Parts
		apply(t, h, c)
		return h.table.Stats().Parts - before
	}
	if n := parts(Change{Desired: onEth0(only(classifier.Deny, rules...), nil), Sets: []SetChange{{ID: 1, Joined: members}}}); n < 3000 {
		t.Errorf("1,500 rules of two families are %d parts", n)
	}
	edited := slices.Clone(rules)
	edited[1100].ID = 9999
	edited = slices.Insert(edited, 700, allow(5000, 17, 53))
	d := onEth0(only(classifier.Deny, edited...), nil)
	if n := parts(Change{Desired: d}); n > 2*((1100-700)+6*pieceLength) {
		t.Errorf("two rules far from each other are %d parts", n)
	}
	one := slices.Clone(edited)
	one[1300].ID = 9998
	if n := parts(Change{Desired: onEth0(only(classifier.Deny, one...), nil)}); n > 5*pieceLength {
		t.Errorf("one rule is %d parts", n)
	}
	if n := parts(Change{Sets: []SetChange{{ID: 1, Left: members[:2], Joined: []netip.Prefix{netip.MustParsePrefix("10.7.0.0/16")}}}}); n > 3 {
		t.Errorf("three members are %d parts", n)
	}
	if n := parts(Change{Desired: onEth0(only(classifier.Deny, one...), closed)}); n > 20 {
		t.Errorf("another judgement is %d parts", n)
	}
}

func BenchmarkWhole(b *testing.B) {
	h := newHost(b, Options{})
	var rules []classifier.Rule
	for i := range uint32(6250) {
		rules = append(rules, allow(i+1, 6, uint16(i)))
	}
	d := onEth0(only(classifier.Deny, rules...), nil) // 12,500 with both families
	for b.Loop() {
		if err := h.table.Apply(Change{Whole: true, Desired: d}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOneRule(b *testing.B) {
	h := newHost(b, Options{})
	var rules []classifier.Rule
	for i := range uint32(6250) {
		rules = append(rules, allow(i+1, 6, uint16(i)))
	}
	other := slices.Clone(rules)
	other[3000].ID = 9999
	states := []*Desired{onEth0(only(classifier.Deny, rules...), nil), onEth0(only(classifier.Deny, other...), nil)}
	n := 0
	for b.Loop() {
		if err := h.table.Apply(Change{Desired: states[n%2]}); err != nil {
			b.Fatal(err)
		}
		n++
	}
}

func BenchmarkMember(b *testing.B) {
	h := newHost(b, Options{})
	var members []netip.Prefix
	for i := range 100_000 {
		members = append(members, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32))
	}
	if err := h.table.Apply(Change{Desired: &Desired{}, Sets: []SetChange{{ID: 1, Joined: members}}}); err != nil {
		b.Fatal(err)
	}
	c, d := SetChange{ID: 1, Left: members[:1]}, SetChange{ID: 1, Joined: members[:1]}
	for b.Loop() {
		for _, change := range []SetChange{c, d} {
			if err := h.table.Apply(Change{Sets: []SetChange{change}}); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// A part that the kernel has not is told as that, and not as a file that is missing.
func TestAKernelWithoutAPartOfNftables(t *testing.T) {
	h := newHost(t, Options{})
	b := newBatch("margay")
	b.newTable()
	b.newChain("c", nil)
	b.message(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, inet, func() {
		b.text(unix.NFTA_RULE_TABLE, b.table)
		b.text(unix.NFTA_RULE_CHAIN, "c")
		b.nest(unix.NFTA_RULE_EXPRESSIONS, func() {
			b.nest(unix.NFTA_LIST_ELEM, func() { b.text(unix.NFTA_EXPR_NAME, "nosuchpart") })
		})
	})
	err := h.table.commit(b)
	if !errors.Is(err, ErrIncomplete) || !strings.Contains(err.Error(), `a rule of chain "c"`) || errors.Is(err, ErrUnsupported) {
		t.Errorf("a rule that the kernel does not know: %v", err)
	}
	b = newBatch("margay")
	b.newTable()
	b.deleteSet("nosuchset")
	if err := h.table.commit(b); !errors.Is(err, unix.ENOENT) || errors.Is(err, ErrIncomplete) {
		t.Errorf("a set that is not there: %v", err)
	}
}

func TestNamesOfWorkloads(t *testing.T) {
	for name, want := range map[string]bool{
		"eth0": true, "cali*": true, "*": true, "fifteen-letters": true, "fifteen-letters*": true,
		"": false, "sixteen-letters-": false, "sixteen-letters-*": false, "a b*": false, "a/*": false,
	} {
		if err := (&Settings{Workloads: []string{name}}).check(); (err == nil) != want {
			t.Errorf("%q: %v", name, err)
		}
	}
}
