package xsk

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestChangesAreInForceAtOnce(t *testing.T) {
	s := steerFamilies(t)
	b := newBench(t, s, false, true)
	for _, f := range families {
		toHost := frame(f.whole(f.peer, f.host, unix.IPPROTO_TCP, tcp(1, 8080)))
		host := netip.PrefixFrom(f.host, f.host.BitLen())
		steps := []struct {
			name   string
			change func() error
			want   verdict
		}{
			{"at first", func() error { return nil }, theirs},
			{"prefix whole", func() error { return s.SetPrefix(host, Whole) }, ours},
			{"prefix local", func() error { return s.SetPrefix(host, Local) }, theirs},
			{"service", func() error { return s.SetService(unix.IPPROTO_TCP, 8000, 8100) }, ours},
			{"overlapping service", func() error { return s.SetService(unix.IPPROTO_TCP, 8080, 8080) }, ours},
			{"the wider service deleted", func() error { return s.DeleteService(unix.IPPROTO_TCP, 8000, 8100) }, ours},
			{"both deleted", func() error { return s.DeleteService(unix.IPPROTO_TCP, 8080, 8080) }, theirs},
			{"prefix deleted", func() error { return s.DeletePrefix(host) }, theirs},
		}
		for _, step := range steps {
			if err := step.change(); err != nil {
				t.Fatalf("%s: %v", step.name, err)
			}
			if got := b.judge(toHost); got != step.want {
				t.Errorf("%s, %s: %s, want %s", f.name, step.name, got, step.want)
			}
		}
	}
}

func TestSteeringTellsWhatIsSet(t *testing.T) {
	newNamespace(t)
	s := steerFamilies(t)
	want := []OwnedPrefix{
		{netip.MustParsePrefix("10.1.0.0/16"), Whole}, {netip.MustParsePrefix("10.1.0.5/32"), Local}, {netip.MustParsePrefix("10.9.0.1/32"), Local},
		{netip.MustParsePrefix("fd01::/16"), Whole}, {netip.MustParsePrefix("fd01::5/128"), Local}, {netip.MustParsePrefix("fd09::1/128"), Local},
	}
	if got := s.Prefixes(); !slices.Equal(got, want) {
		t.Errorf("prefixes %v, want %v", got, want)
	}
	services := []Service{{1, 1000, 1999}, {4, 0, 0}, {6, 30000, 32767}, {17, 4789, 4789}, {17, 40000, 65535}, {58, 1000, 1999}, {132, 7000, 7000}}
	if got := s.Services(); !slices.Equal(got, services) {
		t.Errorf("services %v, want %v", got, services)
	}
}

func TestSteeringRefusesWhatCannotBe(t *testing.T) {
	newNamespace(t)
	s := steerFamilies(t)
	tests := map[string]error{
		"host bits":            s.SetPrefix(netip.MustParsePrefix("10.1.2.3/16"), Whole),
		"host bits, IPv6":      s.SetPrefix(netip.MustParsePrefix("fd01::1/64"), Whole),
		"no prefix":            s.SetPrefix(netip.Prefix{}, Whole),
		"mapped prefix":        s.SetPrefix(netip.MustParsePrefix("::ffff:10.0.0.0/104"), Whole),
		"no ownership":         s.SetPrefix(netip.MustParsePrefix("10.4.0.0/16"), 0),
		"range backwards":      s.SetService(unix.IPPROTO_TCP, 2, 1),
		"ports where are none": s.SetService(unix.IPPROTO_GRE, 0, 80),
	}
	for name, err := range tests {
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for name, err := range map[string]error{
		"prefix":            s.DeletePrefix(netip.MustParsePrefix("10.1.0.0/17")),
		"IPv6 prefix":       s.DeletePrefix(netip.MustParsePrefix("fd01::/17")),
		"part of a service": s.DeleteService(unix.IPPROTO_TCP, 30000, 30001),
	} {
		if !errors.Is(err, ErrNotSet) {
			t.Errorf("delete of a %s that was not set: %v, want ErrNotSet", name, err)
		}
	}
}
