//go:build linux

package journal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"margay.dev/margay/internal/hostnet"
	"margay.dev/margay/internal/hostnet/hostnettest"
)

// entry is the i-th of some that differ.
func entry(i int) Entry {
	return Entry{
		ID: uint64(i), Kind: KindSysctl, Class: Class(i % 2), Place: Place{Path: "/run/netns/x", Boot: "b", Identity: hostnet.Identity{Inode: 7, Cookie: 9}},
		Link: "left", LinkIndex: i, Name: fmt.Sprintf("net/ipv4/conf/left%d/rp_filter", i), Before: "0 \"\n", Set: []string{"1", "2"},
	}
}

// image is a journal of n entries, the second of which was put back since.
func image(t testing.TB, n int) []byte {
	t.Helper()
	records := []record{{Op: opHead, Version: journalVersion}}
	for i := 1; i <= n; i++ {
		e := entry(i)
		records = append(records, record{Op: opSet, Entry: &e})
	}
	second := entry(2)
	records = append(records, record{Op: opDone, Entry: &second})
	var out []byte
	for _, r := range records {
		line, err := encodeRecord(r)
		must(t, err)
		out = append(out, line...)
	}
	return out
}

func same(a, b Entry) bool {
	return a.key() == b.key() && a.ID == b.ID && a.Class == b.Class && a.Place == b.Place && a.Link == b.Link &&
		a.Before == b.Before && slices.Equal(a.Set, b.Set)
}

// written tells whether each entry is one that image wrote, whole.
func written(entries []Entry) bool {
	return !slices.ContainsFunc(entries, func(e Entry) bool { return !same(e, entry(int(e.ID))) })
}

func TestReadLog(t *testing.T) {
	whole := image(t, 4)
	lines := bytes.SplitAfter(whole, []byte("\n")) // header, four entries, one done, ""
	bend := func(line int) []byte {
		b := slices.Concat(lines...)
		at := len(slices.Concat(lines[:line]...)) + 20
		b[at] ^= 1
		return b
	}
	version9, err := encodeRecord(record{Op: opHead, Version: 9})
	must(t, err)
	tests := map[string]struct {
		image  []byte
		want   []int // ids
		size   int   // -1 is all of it
		damage string
		err    string
	}{
		"whole":                         {whole, []int{1, 3, 4}, -1, "", ""},
		"empty":                         {nil, nil, -1, "", ""},
		"torn in the last record":       {whole[:len(whole)-5], []int{1, 2, 3, 4}, len(whole) - len(lines[5]), "", ""},
		"torn before the last's end":    {whole[:len(whole)-1], []int{1, 2, 3, 4}, len(whole) - len(lines[5]), "", ""},
		"torn in the header":            {whole[:10], nil, 0, "", "no record of a journal"},
		"torn with blank blocks behind": {append(slices.Clone(whole), make([]byte, 4096)...), []int{1, 3, 4}, len(whole), "", ""},
		"bent in the middle":            {bend(3), []int{1, 4}, -1, "line 4 is damaged", ""},
		"bent at the end":               {bend(5), []int{1, 2, 3, 4}, -1, "line 6 is damaged", ""},
		"bent header":                   {bend(0), []int{1, 3, 4}, -1, "line 1 is damaged", ""},
		"bent twice":                    {append(bend(1), bend(4)...), []int{1, 3, 4}, -1, "line 2 is damaged", ""},
		"another version":               {append(version9, whole...), nil, -1, "", "version is 9, this build reads 1"},
		"not a journal":                 {[]byte("hello\nworld\n"), nil, -1, "", "no record of a journal"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			log, err := readLog(tt.image)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error is %v, want %q", err, tt.err)
				}
				return
			}
			must(t, err)
			var ids []int
			for _, e := range log.entries {
				ids = append(ids, int(e.ID))
			}
			if !slices.Equal(ids, tt.want) || !written(log.entries) {
				t.Errorf("read %v, want entries %v", log.entries, tt.want)
			}
			if tt.size < 0 {
				tt.size = len(tt.image)
			}
			if log.size != int64(tt.size) {
				t.Errorf("size of whole records is %d, want %d of %d", log.size, tt.size, len(tt.image))
			}
			if (log.damage == nil) != (tt.damage == "") || log.damage != nil && !strings.Contains(log.damage.Error(), tt.damage) {
				t.Errorf("damage is %v, want %q", log.damage, tt.damage)
			}
		})
	}
}

func TestEveryTruncationAndEveryBentOctetIsSurvived(t *testing.T) {
	whole := image(t, 4)
	head := bytes.IndexByte(whole, '\n') + 1
	for n := head; n < len(whole); n++ {
		log, err := readLog(whole[:n])
		if err != nil || log.damage != nil || !written(log.entries) {
			t.Fatalf("cut at %d: %v, %v, damage %v", n, log.entries, err, log.damage)
		}
	}
	for n := range whole {
		for _, bit := range []byte{0x01, 0x20, 0x80, 0xff} {
			b := slices.Clone(whole)
			b[n] ^= bit
			log, err := readLog(b)
			if err != nil || !written(log.entries) || len(log.entries) < 1 { // a bent line end spoils two records
				t.Fatalf("octet %d bent by %#x: %v, %v", n, bit, log.entries, err)
			}
		}
	}
}

// FuzzReadLog holds the reader against this: whatever is done to a journal,
// only records that were written come out of it.
func FuzzReadLog(f *testing.F) {
	whole := image(f, 3)
	f.Add(uint16(0), []byte{}, uint16(0))
	f.Add(uint16(60), []byte("\n"), uint16(1))
	f.Add(uint16(10), []byte("00000000 {}\n"), uint16(0))
	f.Fuzz(func(t *testing.T, at uint16, put []byte, cut uint16) {
		from := int(at) % len(whole)
		to := min(from+int(cut), len(whole))
		b := slices.Concat(whole[:from], put, whole[to:])
		log, err := readLog(b)
		if err != nil && (!strings.Contains(err.Error(), "no record of a journal") || len(log.entries) > 0) {
			t.Fatalf("a record that was never written was read: %v", err)
		}
		if !written(log.entries) || log.size > int64(len(b)) {
			t.Errorf("%v from\n%s", log.entries, b)
		}
	})
}

func TestDamagedFileIsUsedAsFarAsItGoes(t *testing.T) {
	h := node(t)
	ns, path := h.Namespace(), place(t)
	j := open(t, path)
	for _, v := range []string{"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding", "net.ipv4.conf.left.rp_filter"} {
		must(t, j.SetSysctl(ns, v, "1"))
	}
	must(t, j.Close())
	b, err := os.ReadFile(path)
	must(t, err)
	lines := bytes.SplitAfter(b, []byte("\n"))
	lines[2][30] ^= 4                                          // the second setting
	b = append(slices.Concat(lines...), "deadbeef {\"op\""...) // and a torn record behind the last
	must(t, os.WriteFile(path, b, 0o600))

	j = open(t, path)
	if d := j.Damage(); d == nil || !strings.Contains(d.Error(), "line 3") {
		t.Errorf("damage is %v, want line 3 told", d)
	}
	must(t, j.SetPromiscuous(ns, "left", true), j.Close()) // goes behind what is whole
	j = open(t, path)
	if r := restore(t, j); len(r.Restored) != 3 {
		t.Errorf("%v, want the two whole settings and the later one", r)
	}
	must(t, j.Close())
	j = open(t, path)
	if j.Damage() != nil || len(j.Entries()) != 0 {
		t.Errorf("after Restore wrote it anew: %v, %v", j.Damage(), j.Entries())
	}
}

func TestFileIsOursAlone(t *testing.T) {
	path := place(t)
	j := open(t, path)
	for p, want := range map[string]os.FileMode{path: 0o600, path + ".lock": 0o600, filepath.Dir(path): 0o700 | os.ModeDir} {
		st, err := os.Stat(p)
		must(t, err)
		if st.Mode() != want {
			t.Errorf("mode of %s is %v, want %v", filepath.Base(p), st.Mode(), want)
		}
	}
	if _, err := Open(path); err == nil || !strings.Contains(err.Error(), "another process has it open") {
		t.Errorf("opened twice: %v", err)
	}
	must(t, j.Close())
	must(t, open(t, path).Close())

	loose := t.TempDir()
	must(t, os.Chmod(loose, 0o777))
	if _, err := Open(filepath.Join(loose, "j")); err == nil || !strings.Contains(err.Error(), "chmod 0700") {
		t.Errorf("a folder that all may write was taken: %v", err)
	}
	link := filepath.Join(t.TempDir(), "j")
	must(t, os.Symlink(path, link))
	if _, err := Open(link); err == nil {
		t.Error("a symbolic link was followed")
	}
	hosts := filepath.Join(filepath.Dir(path), "hosts")
	must(t, os.WriteFile(hosts, []byte("127.0.0.1 localhost\n"), 0o600))
	if _, err := Open(hosts); err == nil {
		t.Error("a file that is no journal was taken")
	}
	if b, _ := os.ReadFile(hosts); string(b) != "127.0.0.1 localhost\n" {
		t.Errorf("a file that is no journal was changed to %q", b)
	}
	must(t, os.WriteFile(path, append(mustEncode(t, record{Op: opHead, Version: 9}), "x\n"...), 0o600))
	if _, err := Open(path); err == nil || !strings.Contains(err.Error(), "version is 9") {
		t.Errorf("another version was read: %v", err)
	}
}

func mustEncode(t *testing.T, r record) []byte {
	t.Helper()
	b, err := encodeRecord(r)
	must(t, err)
	return b
}

func TestFileStaysSmall(t *testing.T) {
	h := hostnettest.Host(t)
	ns, path := h.Namespace(), place(t)
	j := open(t, path)
	const key = "net.ipv4.conf.lo.rp_filter"
	must(t, j.SetSysctl(ns, "net.ipv4.ip_forward", "1"))
	var largest int64
	for i := range 3000 { // straight to the file, which is what grows
		e := entry(1)
		e.ID, e.Name = j.next, sysctlName(key)
		e.Set = []string{fmt.Sprint(i)}
		j.next++
		must(t, j.commit([]record{{Op: opSet, Entry: &e}}))
		largest = max(largest, j.file.size)
	}
	if largest > 400<<10 || len(j.Entries()) != 2 {
		t.Errorf("file grew to %d octets for %d entries", largest, len(j.Entries()))
	}
	must(t, j.Close())
	j = open(t, path)
	if e := j.Entries(); len(e) != 2 || !slices.Equal(e[1].Set, []string{"2999"}) || e[0].Name != "net/ipv4/ip_forward" {
		t.Errorf("after reopening there is %v, want both with their last values", e)
	}
	if _, err := os.Stat(path + ".new"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file is left behind: %v", err)
	}
}

func sysctlName(key string) string {
	p, _ := hostnet.SysctlPath(key)
	return p
}

func TestCanonicalSysctl(t *testing.T) {
	tests := map[string]struct{ key, value, want string }{
		"words":             {"net/ipv4/ip_local_port_range", " 1\t 2\n", "1 2"},
		"ports sorted":      {reservedPorts, "9,7,8,1", "1,7-9"},
		"ports joined":      {reservedPorts, "10-20,15-30,31", "10-31"},
		"ports to the last": {reservedPorts, "65534-65535,0", "0,65534-65535"},
		"all ports":         {reservedPorts, "0-65535", "0-65535"},
		"no ports":          {reservedPorts, " ", ""},
		"ports misspelt":    {reservedPorts, "1-70000", "1-70000"},
		"another key":       {"net/ipv4/x", "9,7", "9,7"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := canonicalSysctl(tt.key, tt.value); got != tt.want {
				t.Errorf("%q becomes %q, want %q", tt.value, got, tt.want)
			}
		})
	}
}

func TestReservedPortsAreWrittenAsTheKernelTellsThem(t *testing.T) {
	ns := hostnettest.Namespace(t)
	for _, list := range []string{"3,1,2", "30000-32767,32768", "1", "5-5", "65535", "1-3,5-7,4", ""} {
		must(t, ns.SetSysctl("net.ipv4.ip_local_reserved_ports", list))
		got, err := ns.Sysctl("net.ipv4.ip_local_reserved_ports")
		must(t, err)
		if want := canonicalSysctl(reservedPorts, list); got != want {
			t.Errorf("kernel tells %q of %q, we expect %q", got, list, want)
		}
	}
}
