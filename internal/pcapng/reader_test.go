package pcapng

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
)

// read reads all of a file: what was found before its end or its first fault.
func read(file []byte) (got []Record, err error) {
	r, err := NewReader(bytes.NewReader(file))
	for err == nil {
		var rec Record
		if err = r.Read(&rec); err == nil {
			rec.Data = bytes.Clone(rec.Data)
			got = append(got, rec)
		}
	}
	return got, err
}

func TestReaderReadsWhatTheWriterWrote(t *testing.T) {
	for _, link := range []LinkType{LinkRaw, LinkEthernet} {
		got, err := read(written(t, link, packets()...))
		if err != io.EOF || len(got) != len(packets()) {
			t.Fatalf("%d packets, then %v", len(got), err)
		}
		for i, p := range packets() {
			want := Record{link, p.Time.UnixNano(), p.Data, max(p.Length, len(p.Data))}
			if fmt.Sprint(got[i]) != fmt.Sprint(want) {
				t.Errorf("packet %d is %v, want %v", i, got[i], want)
			}
		}
	}
}

// older is a file of the pcap format, in either byte order.
func older(order binary.AppendByteOrder, magic uint32, link LinkType, ps ...Packet) []byte {
	f := order.AppendUint32(nil, magic)
	f = order.AppendUint16(f, 2)
	f = order.AppendUint16(f, 4)
	for _, v := range []uint32{0, 0, 65535, uint32(link)} {
		f = order.AppendUint32(f, v)
	}
	for _, p := range ps {
		part := uint32(p.Time.Nanosecond())
		if magic == magicMicros {
			part /= 1000
		}
		for _, v := range []uint32{uint32(p.Time.Unix()), part, uint32(len(p.Data)), uint32(max(p.Length, len(p.Data)))} {
			f = order.AppendUint32(f, v)
		}
		f = append(f, p.Data...)
	}
	return f
}

func TestReaderReadsPcapInBothOrdersAndBothClocks(t *testing.T) {
	for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
		for magic, unit := range map[uint32]time.Duration{magicMicros: time.Microsecond, magicNanos: 1} {
			got, err := read(older(order, magic, LinkIPv6, packets()...))
			if err != io.EOF || len(got) != len(packets()) {
				t.Fatalf("%v, %v: %d packets, then %v", order, unit, len(got), err)
			}
			for i, p := range packets() {
				want := Record{LinkIPv6, p.Time.Truncate(unit).UnixNano(), p.Data, max(p.Length, len(p.Data))}
				if fmt.Sprint(got[i]) != fmt.Sprint(want) {
					t.Errorf("%v, %v: packet %d is %v, want %v", order, unit, i, got[i], want)
				}
			}
		}
	}
}

// block is a block of a pcapng file, of any kind and with any body.
func block(order binary.AppendByteOrder, kind uint32, body ...byte) []byte {
	for len(body)%4 != 0 {
		body = append(body, 0)
	}
	n := uint32(len(body) + 12)
	return order.AppendUint32(append(order.AppendUint32(order.AppendUint32(nil, kind), n), body...), n)
}

// words are numbers of four bytes each.
func words(order binary.AppendByteOrder, ns ...uint32) (b []byte) {
	for _, n := range ns {
		b = order.AppendUint32(b, n)
	}
	return b
}

// section is a section header, and if link is not 0 an interface with options.
func section(order binary.AppendByteOrder, link LinkType, options ...byte) []byte {
	f := block(order, blockSection, order.AppendUint16(order.AppendUint16(words(order, byteOrder), 1), 0)...)
	f = block(order, blockSection, append(f[8:16:16], words(order, math.MaxUint32, math.MaxUint32)...)...)
	if link == 0 {
		return f
	}
	head := append(order.AppendUint16(order.AppendUint16(nil, uint16(link)), 0), words(order, 6)...) // snap 6
	return append(f, block(order, blockInterface, append(head, options...)...)...)
}

func TestReaderReadsEveryKindOfPacketInEitherOrder(t *testing.T) {
	for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
		other := binary.AppendByteOrder(binary.BigEndian)
		if order == other {
			other = binary.LittleEndian
		}
		file := bytes.Join([][]byte{
			section(order, LinkRaw),
			block(order, 0x0bad, 1, 2, 3), // nobody knows it
			block(order, blockSimple, append(words(order, 9), 1, 2, 3, 4, 5, 6)...),
			block(order, blockObsolete, append(words(order, 0, 0, 7, 2, 2), 7, 8)...),
			block(order, blockPacket, append(words(order, 0, 0, 8, 0, 60), 0, 1, 0, 0)...), // nothing captured, and an option
			section(other, LinkEthernet, 9, 0, 1, 0, 0, 0, 0, 0),                           // the option is wrong in one order, and then cut short
		}, nil)
		got, _ := read(file)
		want := []Record{{LinkRaw, 0, []byte{1, 2, 3, 4, 5, 6}, 9}, {LinkRaw, 7000, []byte{7, 8}, 2}, {LinkRaw, 8000, nil, 60}}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%v: got %v, want %v", order, got, want)
		}
		second, err := read(append(section(order, LinkRaw),
			append(section(other, LinkIPv4), block(other, blockPacket, append(words(other, 0, 0, 1, 1, 1), 5)...)...)...))
		if err != io.EOF || fmt.Sprint(second) != fmt.Sprint([]Record{{LinkIPv4, 1000, []byte{5}, 1}}) {
			t.Errorf("%v: the second section has %v, then %v", order, second, err)
		}
	}
}

func TestClockAgreesWithArithmeticOfAnyLength(t *testing.T) {
	for _, offset := range []int64{0, -5, 1_700_000_000, math.MaxInt64, math.MinInt64} {
		for exponent := range uint8(128) {
			for _, binary := range []bool{false, true} {
				for _, stamp := range []uint64{0, 1, 999_999_999, 1_700_000_000_123_456, 1 << 60, math.MaxUint64} {
					base := big.NewInt(10)
					if binary {
						base.SetInt64(2)
					}
					want := new(big.Int).Mul(new(big.Int).SetUint64(stamp), big.NewInt(1e9))
					want.Div(want, base.Exp(base, big.NewInt(int64(exponent)), nil))
					most := big.NewInt(math.MaxInt64)
					if want.Cmp(most) > 0 {
						want.Set(most)
					}
					seconds := max(-(math.MaxInt64 / int64(1e9)), min(offset, math.MaxInt64/int64(1e9)))
					want.Add(want, new(big.Int).Mul(big.NewInt(seconds), big.NewInt(1e9)))
					if want.Cmp(most) > 0 {
						want.Set(most)
					}
					if got := (clock{offset, exponent, binary}).nanos(stamp); got != want.Int64() {
						t.Fatalf("%d units of 2 %v, exponent %d, offset %d: %d, want %v", stamp, binary, exponent, offset, got, want)
					}
				}
			}
		}
	}
}

func TestReaderTellsWhatIsWrongWithAFile(t *testing.T) {
	le := binary.LittleEndian
	ng, old := written(t, LinkRaw, packets()...), older(le, magicMicros, LinkRaw, packets()...)
	with := func(file []byte, at int, v uint32) []byte {
		file = bytes.Clone(file)
		le.PutUint32(file[at:], v)
		return file
	}
	raw := section(le, LinkRaw)
	then := func(b []byte) []byte { return append(bytes.Clone(raw), b...) }
	tests := map[string]struct {
		file []byte
		want string
		good int // packets before that
	}{
		"empty":                             {nil, "it is empty", 0},
		"three bytes":                       {old[:3], "cut off", 0},
		"text":                              {[]byte("GET / HTTP/1.1\r\nHost: example\r\n"), "neither pcap nor pcapng", 0},
		"compressed":                        {[]byte{0x1f, 0x8b, 8, 0, 0}, "compressed: unpack it first", 0},
		"pcap, half a header":               {old[:23], "cut off", 0},
		"pcap, version 3":                   {with(old, 4, 3), "version 3", 0},
		"pcap, cut in a header":             {old[:24+15], "cut off", 0},
		"pcap, cut in a packet":             {old[:len(old)-1], "cut off", 3},
		"pcap, absurd length":               {with(old, 24+8, 1<<31), "after 0 packets: the next has 2147483648 bytes, want at most 262144", 0},
		"pcap, just too long":               {with(old, 24+8, MaxPacket+1), "has 262145 bytes", 0},
		"pcapng, half a header":             {ng[:9], "cut off", 0},
		"pcapng, no byte order":             {with(ng, 8, 0), "byte order is marked 00000000", 0},
		"pcapng, version 2":                 {with(ng, 12, 2), "version 2", 0},
		"pcapng, short section header":      {with(ng, 4, 24), "section header has 24 bytes", 0},
		"pcapng, lengths differ":            {with(ng, len(ng)-4, 99), "and 99 behind", 3},
		"pcapng, cut in a packet":           {ng[:len(ng)-5], "cut off", 3},
		"pcapng, cut in a block's length":   {ng[:len(ng)-1], "cut off", 3},
		"pcapng, a block of 8 bytes":        {then(words(le, 77, 8)), "a block has 8 bytes", 0},
		"pcapng, a block of 13 bytes":       {then(words(le, 77, 13)), "a block has 13 bytes", 0},
		"pcapng, a block of 4 GiB":          {then(words(le, 77, math.MaxUint32-3, 1)), "cut off", 0},
		"pcapng, packet of no interface":    {append(section(le, 0), block(le, blockPacket, words(le, 0, 0, 0, 0, 0)...)...), "interface 0 of 0", 0},
		"pcapng, simple, of no interface":   {append(section(le, 0), block(le, blockSimple, words(le, 0)...)...), "there are 0 interfaces", 0},
		"pcapng, of another interface":      {then(block(le, blockPacket, words(le, math.MaxUint32, 0, 0, 0, 0)...)), "interface 4294967295 of 1", 0},
		"pcapng, packet longer than block":  {then(block(le, blockPacket, words(le, 0, 0, 0, 5, 5, 0)...)), "5 bytes in a block with room for 4", 0},
		"pcapng, packet of 1 MiB":           {then(block(le, blockPacket, append(words(le, 0, 0, 0, 1<<20, 1<<20), make([]byte, 1<<20)...)...)), "want at most", 0},
		"pcapng, packet in a tiny block":    {then(block(le, blockPacket, 1)), "has 16 bytes, want at least 32", 0},
		"pcapng, simple in a tiny block":    {then(block(le, blockSimple)), "has 12 bytes", 0},
		"pcapng, interface in a tiny block": {then(block(le, blockInterface, 1)), "interface 1 has 4 bytes", 0},
		"pcapng, interface of 1 MiB":        {then(block(le, blockInterface, make([]byte, 1<<20)...)), "interface 1 has 1048576 bytes", 0},
		"pcapng, option beyond its block":   {section(le, LinkRaw, 9, 0, 200, 0, 6), "an option of interface 0 has 200 bytes where 4 are left", 0},
		"pcapng, interfaces without end":    {then(bytes.Repeat(block(le, blockInterface, make([]byte, 8)...), maxInterfaces)), "at most 4096 interfaces", 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := read(tt.file)
			if err == nil || err == io.EOF || !strings.Contains(err.Error(), tt.want) || len(got) != tt.good {
				t.Errorf("%d packets, then %v, want %d and %q", len(got), err, tt.good, tt.want)
			}
		})
	}
}

func TestReadingKeepsNoMoreThanItSays(t *testing.T) {
	le := binary.LittleEndian
	file := bytes.Join([][]byte{
		section(le, LinkRaw), bytes.Repeat(block(le, blockInterface, make([]byte, 8)...), maxInterfaces-1),
		block(le, blockPacket, append(words(le, 0, 0, 0, MaxPacket, MaxPacket), make([]byte, MaxPacket)...)...),
	}, nil)
	var before, after runtime.MemStats
	var rec Record
	runtime.GC()
	runtime.ReadMemStats(&before)
	r, err := NewReader(bytes.NewReader(file))
	if err == nil {
		err = r.Read(&rec)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if kept := int(after.HeapAlloc) - int(before.HeapAlloc); err != nil || len(rec.Data) != MaxPacket || kept > 1<<19+1<<14 {
		t.Errorf("%d bytes are kept of a packet of %d: %v", kept, len(rec.Data), err)
	}
	runtime.KeepAlive(r)
}

func TestReadingAllocatesNothing(t *testing.T) {
	for name, file := range map[string][]byte{
		"pcapng": written(t, LinkRaw, packets()...), "pcap": older(binary.BigEndian, magicNanos, LinkRaw, packets()...),
	} {
		r, err := NewReader(bytes.NewReader(file))
		if err != nil {
			t.Fatal(err)
		}
		var rec Record
		n := testing.AllocsPerRun(1, func() {
			if err := r.Read(&rec); err != nil {
				t.Fatal(name, err)
			}
		})
		if n != 0 {
			t.Errorf("%s: %v allocations per packet, want 0", name, n)
		}
	}
}

// FuzzReader lets the reader survive any file. Files of the older format in which
// it finds nothing wrong must read the same by pcapgo; pcapgo's reader of the newer
// one cannot be let near, since it divides by zero and allocates what a file says.
func FuzzReader(f *testing.F) {
	f.Add(written(f, LinkRaw, packets()...))
	f.Add(older(binary.BigEndian, magicNanos, LinkEthernet, packets()...))
	f.Add(append(section(binary.BigEndian, LinkIPv4, 0, 9, 0, 1, 0x8a), block(binary.BigEndian, blockSimple, 0, 0, 0, 1, 9)...))
	f.Fuzz(func(t *testing.T, file []byte) {
		got, err := read(file)
		if err == nil {
			t.Fatal("reading did not end")
		}
		if err != io.EOF || binary.LittleEndian.Uint32(file) == blockSection {
			return
		}
		r, err := pcapgo.NewReader(bytes.NewReader(file))
		if err != nil {
			return // another minor version
		}
		r.SetSnaplen(MaxPacket)
		for i, rec := range got {
			data, ci, err := r.ZeroCopyReadPacketData()
			if err != nil {
				return // it refuses records that contradict themselves
			}
			want := gopacket.CaptureInfo{Timestamp: time.Unix(0, rec.Nanos).UTC(), CaptureLength: len(rec.Data), Length: rec.Length}
			if !bytes.Equal(data, rec.Data) || fmt.Sprint(ci) != fmt.Sprint(want) || layers.LinkType(rec.Link) != r.LinkType() {
				t.Fatalf("packet %d is %x, %+v, pcapgo says %x, %+v", i, rec.Data, rec, data, ci)
			}
		}
		if _, _, err := r.ZeroCopyReadPacketData(); !errors.Is(err, io.EOF) {
			t.Fatalf("pcapgo goes on: %v", err)
		}
	})
}
