package pcapng

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
)

// at is a time with nanoseconds that a microsecond clock would lose.
func at(ns int) time.Time { return time.Unix(1_700_000_000, int64(ns)).UTC() }

// packets are of both families, for raw interfaces.
func packets() []Packet {
	v4 := []byte{0x45, 0, 0, 28, 0, 1, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 7, 0, 9, 0, 8, 0, 0}
	v6 := append(append([]byte{0x60, 0, 0, 0, 0, 8, 17, 64}, make([]byte, 32)...), 0, 7, 0, 9, 0, 8, 0, 0)
	v6[23], v6[39] = 1, 2
	return []Packet{
		{Data: v4, Time: at(1), Direction: In, Comment: "rx"},
		{Data: v6, Time: at(123_456_789), Direction: Out, Comment: "drop: no-route, näher besehen"},
		{Interface: 1, Data: v4[:21], Length: 28, Time: at(999_999_999)},
		{Interface: 1, Data: v6, Direction: Out, Time: at(1_000_000_000)},
	}
}

// names are those of the interfaces that packets need.
func names(ps []Packet) []string {
	for _, p := range ps {
		if p.Interface > 0 {
			return []string{"pod-a", "eth0.7"}
		}
	}
	return []string{"pod-a"}
}

// written is a file with the given packets and the interfaces that they need.
func written(t testing.TB, link LinkType, ps ...Packet) []byte {
	t.Helper()
	var file bytes.Buffer
	w, err := NewWriter(&file, "margay")
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range names(ps) {
		if id, err := w.AddInterface(name, link, 0); id != i || err != nil {
			t.Fatalf("interface %d is numbered %d: %v", i, id, err)
		}
	}
	for i := range ps {
		if err := w.Write(&ps[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

// options are those of a packet's block that begins file: pcapgo leaves them out.
func options(t testing.TB, block []byte) (d Direction, comment string) {
	t.Helper()
	le := binary.LittleEndian
	end := le.Uint32(block[4:]) - 4
	if again := le.Uint32(block[end:]); again != end+4 {
		t.Fatalf("the block's lengths are %d and %d", end+4, again)
	}
	rest := block[28+(le.Uint32(block[20:])+3)&^3 : end]
	for len(rest) > 0 {
		code, n := le.Uint16(rest), int(le.Uint16(rest[2:]))
		value := rest[4 : 4+n]
		switch rest = rest[4+(n+3)&^3:]; code {
		case optComment:
			comment = string(value)
		case optFlags:
			d = Direction(le.Uint32(value))
		case optEnd:
			if len(rest) > 0 || n > 0 {
				t.Fatalf("%d bytes follow the end of the options", len(rest))
			}
		}
	}
	return d, comment
}

// readBack holds what other people's reader and our own look at the options find
// in file against what was written.
func readBack(t testing.TB, file []byte, link LinkType, want []Packet) {
	t.Helper()
	r, err := pcapgo.NewNgReader(bytes.NewReader(file), pcapgo.NgReaderOptions{WantMixedLinkType: true})
	if err != nil {
		t.Fatal(err)
	}
	if app := r.SectionInfo().Application; app != "margay" {
		t.Errorf("written by %q", app)
	}
	for i, p := range want {
		data, ci, err := r.ReadPacketData()
		if err != nil {
			t.Fatalf("packet %d: %v", i, err)
		}
		if !bytes.Equal(data, p.Data) || ci.Length != max(p.Length, len(p.Data)) || !ci.Timestamp.Equal(p.Time) || ci.InterfaceIndex != p.Interface {
			t.Errorf("packet %d is %x, %+v, want %+v", i, data, ci, p)
		}
	}
	if _, _, err := r.ReadPacketData(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last packet: %v", err)
	}
	for i, name := range names(want) {
		if f, err := r.Interface(i); err != nil || f.Name != name || f.LinkType != layers.LinkType(link) || f.TimestampResolution != 9 {
			t.Errorf("interface %d is %+v: %v", i, f, err)
		}
	}
	i := 0
	for len(file) > 0 {
		if binary.LittleEndian.Uint32(file) == blockPacket {
			if d, c := options(t, file); d != want[i].Direction || c != want[i].Comment {
				t.Errorf("packet %d went %d with comment %q, want %d and %q", i, d, c, want[i].Direction, want[i].Comment)
			}
			i++
		}
		file = file[binary.LittleEndian.Uint32(file[4:]):]
	}
}

func TestWhatIsWrittenIsReadBack(t *testing.T) {
	readBack(t, written(t, LinkRaw, packets()...), LinkRaw, packets())
}

func TestTcpdumpReadsIt(t *testing.T) {
	ether := packets()
	for i := range ether {
		kind := []byte{8, 0}
		if ether[i].Data[0]>>4 == 6 {
			kind = []byte{0x86, 0xdd}
		}
		ether[i].Data = append(append(make([]byte, 12), kind...), ether[i].Data...)
		if ether[i].Length > 0 {
			ether[i].Length += 14
		}
	}
	raw := packets()
	for i := range raw {
		raw[i].Interface = 0
	}
	for link, ps := range map[LinkType][]Packet{LinkRaw: raw, LinkEthernet: ether} {
		file := filepath.Join(t.TempDir(), "file.pcapng")
		if err := os.WriteFile(file, written(t, link, ps...), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("tcpdump", "-nn", "-tt", "--time-stamp-precision=nano", "-r", file).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for _, want := range []string{
			"1700000000.000000001 IP 10.0.0.1.7 > 10.0.0.2.9: UDP, length 0",
			"1700000000.123456789 IP6 ::1.7 > ::2.9: UDP, length 0",
			"1700000000.999999999 IP",
			"1700000001.000000000 IP6 ::1.7 > ::2.9: UDP, length 0",
		} {
			if !strings.Contains(string(out), want) {
				t.Errorf("link type %d: tcpdump does not say %q:\n%s", link, want, out)
			}
		}
	}
}

func TestWhatDoesNotFitIsCut(t *testing.T) {
	var file bytes.Buffer
	w, err := NewWriter(&file, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, snap := range []uint32{0, 64, 1 << 31} {
		if _, err := w.AddInterface(strings.Repeat("n", 70_000), LinkEthernet, snap); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		err := w.Write(&Packet{Interface: i, Data: make([]byte, MaxPacket+1), Comment: strings.Repeat("é", 40_000) + "x"})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	rest := file.Bytes()
	var got []string
	for len(rest) > 0 {
		n := binary.LittleEndian.Uint32(rest[4:])
		if binary.LittleEndian.Uint32(rest) == blockPacket {
			_, comment := options(t, rest)
			got = append(got, fmt.Sprint(binary.LittleEndian.Uint32(rest[12:]), " ", binary.LittleEndian.Uint32(rest[20:]),
				" of ", binary.LittleEndian.Uint32(rest[24:]), ", ", comment == strings.Repeat("é", 65534/2)))
		}
		rest = rest[n:]
	}
	want := "[0 262144 of 262145, true 0 64 of 262145, true 0 262144 of 262145, true]"
	if fmt.Sprint(got) != want {
		t.Errorf("the file has %v, want %s", got, want)
	}
}

func TestAnErrorIsToldAndStays(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	w, err := NewWriter(full, "margay")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(&Packet{}); err == nil || !strings.Contains(err.Error(), "interface 0 of 0") {
		t.Errorf("a packet of no interface: %v", err)
	}
	if _, err := w.AddInterface("a", LinkRaw, 0); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err == nil || !strings.Contains(err.Error(), "no space left on device") {
		t.Errorf("flush to a full disk: %v", err)
	}
	if err := w.Write(&Packet{}); err == nil {
		t.Error("a packet was written after an error")
	}
	if _, err := w.AddInterface("b", LinkRaw, 0); err == nil {
		t.Error("an interface was added after an error")
	}
	if _, err := NewWriter(full, strings.Repeat("x", 65_000)); err != nil {
		t.Errorf("a section that fits the buffer: %v", err)
	}
}

func TestWritingAllocatesNothing(t *testing.T) {
	w, err := NewWriter(io.Discard, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.AddInterface("a", LinkRaw, 0); err != nil {
		t.Fatal(err)
	}
	p := Packet{Data: make([]byte, 1500), Time: at(5), Direction: Out, Comment: "tx"}
	n := testing.AllocsPerRun(100, func() {
		if err := w.Write(&p); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations per packet, want 0", n)
	}
}

func FuzzWriter(f *testing.F) {
	f.Add([]byte{0x45}, "rx", uint8(1), int64(1), 0)
	f.Add([]byte{}, "", uint8(0), int64(1e18), 9000)
	f.Fuzz(func(t *testing.T, data []byte, comment string, d uint8, ns int64, length int) {
		p := Packet{Data: data[:min(len(data), MaxPacket)], Comment: comment[:min(len(comment), 1<<16-1)], Direction: Direction(d % 3),
			Time: time.Unix(0, max(ns, 0)).UTC(), Length: int(uint32(length)), Interface: int(d & 1)}
		readBack(t, written(t, LinkRaw, p, packets()[0], p), LinkRaw, []Packet{p, packets()[0], p})
	})
}
