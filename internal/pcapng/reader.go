package pcapng

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
)

// The link types that are only read.
const (
	LinkIPv4 LinkType = 228 // an IPv4 header
	LinkIPv6 LinkType = 229 // an IPv6 header
)

// Record is one packet of a file as it was found there.
type Record struct {
	Link   LinkType
	Nanos  int64  // when it was captured, nanoseconds since 1970; 0 where the file does not say
	Data   []byte // what was captured of it, at most MaxPacket bytes; good until the next Read
	Length int    // bytes it had; less than len(Data) if the file contradicts itself
}

// Reader reads the packets of a pcap or pcapng file from its beginning to its
// end. It takes nothing in the file for granted, and whatever the file says
// keeps at most half a MiB of it. Options other than those that time stamps
// need are skipped.
type Reader struct {
	r      *bufio.Reader
	order  binary.ByteOrder
	buf    []byte
	end    [4]byte // the second length of a block
	next   func(*Record) error
	link   LinkType // pcap: of all packets
	clock  clock    // pcap: of all packets
	ifaces []iface  // pcapng: of this section
	count  int      // packets read
}

// iface is what one interface of a pcapng section says of its packets.
type iface struct {
	link  LinkType
	snap  uint32
	clock clock
}

// maxInterfaces is the most interfaces of a section that are kept.
const maxInterfaces = 1 << 12

// The blocks that are only read.
const (
	blockObsolete = 2 // packet block
	blockSimple   = 3 // simple packet block
)

const (
	magicMicros = 0xa1b2c3d4
	magicNanos  = 0xa1b23c4d
	magicGzip   = 0x1f8b

	optOffset  = 14       // of an interface
	maxOptions = 64 << 10 // bytes of an interface's description
)

// errCut is a file that ends where it should not.
var errCut = errors.New("the file is cut off there")

// NewReader begins to read a file. It fails where there is none of either kind.
func NewReader(r io.Reader) (*Reader, error) {
	f := &Reader{r: bufio.NewReaderSize(r, 128<<10), order: binary.LittleEndian, buf: make([]byte, 2048)}
	if err := f.header(); err != nil {
		return nil, fmt.Errorf("open capture file: %w", err)
	}
	return f, nil
}

// Read reads the next packet. It says io.EOF, not wrapped, at the file's proper
// end; after any other error the file cannot be read on, but what came before
// was good.
func (f *Reader) Read(rec *Record) error {
	switch err := f.next(rec); {
	case err == io.EOF:
		return err
	case err != nil:
		return fmt.Errorf("read capture file after %d packets: %w", f.count, err)
	}
	f.count++
	return nil
}

// header finds out what file it is.
func (f *Reader) header() error {
	start, err := f.r.Peek(4)
	switch {
	case len(start) == 0 && errors.Is(err, io.EOF):
		return errors.New("it is empty")
	case len(start) < 4:
		return cut(err)
	case binary.LittleEndian.Uint32(start) == blockSection:
		f.next = f.nextBlock
		return f.block(nil) // the section header
	case binary.BigEndian.Uint16(start) == magicGzip:
		return errors.New("it is compressed: unpack it first")
	}
	f.next = f.nextPcap
	return f.pcapHeader(start)
}

// pcapHeader reads the header of the older format, which begins with start.
func (f *Reader) pcapHeader(start []byte) error {
	if magic := binary.BigEndian.Uint32(start); magic == magicMicros || magic == magicNanos {
		f.order = binary.BigEndian
	}
	switch magic := f.order.Uint32(start); magic {
	case magicMicros:
		f.clock = clock{exponent: 6}
	case magicNanos:
		f.clock = clock{exponent: 9}
	default:
		return fmt.Errorf("it begins with %#x, which neither pcap nor pcapng files do", magic)
	}
	h, err := f.take(24)
	if err != nil {
		return cut(err)
	}
	if major := f.order.Uint16(h[4:]); major != 2 {
		return fmt.Errorf("it is of version %d of the pcap format, want 2", major)
	}
	f.link = LinkType(f.order.Uint32(h[20:])) // above are 16 bits about frame check sequences
	return nil
}

// nextPcap reads one record of the older format.
func (f *Reader) nextPcap(rec *Record) error {
	h, err := f.take(16)
	if err != nil {
		return err
	}
	n, length := f.order.Uint32(h[8:]), f.order.Uint32(h[12:])
	sec, part := uint64(f.order.Uint32(h)), uint64(f.order.Uint32(h[4:]))
	rec.Nanos = int64(sec*1e9) + f.clock.nanos(part)
	return f.packet(rec, f.link, n, length)
}

// packet reads a packet's n bytes.
func (f *Reader) packet(rec *Record, link LinkType, n, length uint32) (err error) {
	if n > MaxPacket {
		return fmt.Errorf("the next has %d bytes, want at most %d", n, MaxPacket)
	}
	rec.Link, rec.Length = link, int(length)
	rec.Data, err = f.take(int(n))
	return cut(err)
}

// nextBlock reads blocks up to one with a packet.
func (f *Reader) nextBlock(rec *Record) error {
	rec.Data = nil
	for rec.Data == nil {
		if err := f.block(rec); err != nil {
			return err
		}
	}
	return nil
}

// block reads one block. A packet goes to rec; where that is nil, the block must
// be a section header.
func (f *Reader) block(rec *Record) error {
	h, err := f.take(8)
	if err != nil {
		return err
	}
	kind := f.order.Uint32(h)
	if kind == blockSection {
		return f.section([4]byte(h[4:]))
	}
	size := f.order.Uint32(h[4:])
	if size < 12 || size%4 != 0 {
		return fmt.Errorf("a block has %d bytes, want a multiple of 4 from 12", size)
	}
	left, err := f.body(rec, kind, size-12)
	if err != nil {
		return cut(err)
	}
	return cut(f.finish(left, size))
}

// finish skips what is left of a block, and holds its second length against the
// first. A packet's Data stays good.
func (f *Reader) finish(left, size uint32) error {
	if _, err := f.r.Discard(int(left)); err != nil {
		return err
	}
	if _, err := io.ReadFull(f.r, f.end[:]); err != nil {
		return err
	}
	if again := f.order.Uint32(f.end[:]); again != size {
		return fmt.Errorf("a block's lengths are %d in front and %d behind", size, again)
	}
	return nil
}

// section begins a section: another byte order, other interfaces.
func (f *Reader) section(size [4]byte) error {
	h, err := f.take(8)
	if err != nil {
		return cut(err)
	}
	switch {
	case binary.LittleEndian.Uint32(h) == byteOrder:
		f.order = binary.LittleEndian
	case binary.BigEndian.Uint32(h) == byteOrder:
		f.order = binary.BigEndian
	default:
		return fmt.Errorf("a section's byte order is marked %x", h[:4])
	}
	if major := f.order.Uint16(h[4:]); major != 1 {
		return fmt.Errorf("a section is of version %d of the pcapng format, want 1", major)
	}
	n := f.order.Uint32(size[:])
	if n < 28 || n%4 != 0 {
		return fmt.Errorf("a section header has %d bytes, want a multiple of 4 from 28", n)
	}
	f.ifaces = f.ifaces[:0]
	return cut(f.finish(n-20, n))
}

// body reads what we want of a block's body, and returns how much of it is left.
func (f *Reader) body(rec *Record, kind, size uint32) (left uint32, err error) {
	switch kind {
	case blockInterface:
		return 0, f.describe(size)
	case blockPacket, blockObsolete:
		return f.enhanced(rec, kind, size)
	case blockSimple:
		return f.simple(rec, size)
	}
	return size, nil
}

// describe reads the description of an interface.
func (f *Reader) describe(size uint32) error {
	if size < 8 || size > maxOptions || len(f.ifaces) == maxInterfaces {
		return fmt.Errorf("the description of interface %d has %d bytes: want 8 to %d, and at most %d interfaces",
			len(f.ifaces), size, maxOptions, maxInterfaces)
	}
	h, err := f.take(int(size))
	if err != nil {
		return err
	}
	i := iface{link: LinkType(f.order.Uint16(h)), snap: f.order.Uint32(h[4:]), clock: clock{exponent: 6}}
	for rest := h[8:]; len(rest) >= 4; {
		code, n := f.order.Uint16(rest), int(f.order.Uint16(rest[2:]))
		if code == optEnd {
			break
		}
		if n > len(rest)-4 {
			return fmt.Errorf("an option of interface %d has %d bytes where %d are left", len(f.ifaces), n, len(rest)-4)
		}
		value := rest[4 : 4+n]
		switch {
		case code == optResolution && n == 1:
			i.clock.exponent, i.clock.binary = value[0]&0x7f, value[0]&0x80 != 0
		case code == optOffset && n == 8:
			i.clock.offset = int64(f.order.Uint64(value))
		}
		rest = rest[min(len(rest), 4+(n+3)&^3):]
	}
	f.ifaces = append(f.ifaces, i)
	return nil
}

// enhanced reads a packet with a time stamp, of the older or the newer kind.
func (f *Reader) enhanced(rec *Record, kind, size uint32) (left uint32, err error) {
	if size < 20 {
		return 0, fmt.Errorf("the next packet's block has %d bytes, want at least 32", size+12)
	}
	h, err := f.take(20)
	if err != nil {
		return 0, err
	}
	id := f.order.Uint32(h)
	if kind == blockObsolete {
		id = uint32(f.order.Uint16(h))
	}
	if id >= uint32(len(f.ifaces)) {
		return 0, fmt.Errorf("the next is of interface %d of %d", id, len(f.ifaces))
	}
	i := &f.ifaces[id]
	rec.Nanos = i.clock.nanos(uint64(f.order.Uint32(h[4:]))<<32 | uint64(f.order.Uint32(h[8:])))
	n, length := f.order.Uint32(h[12:]), f.order.Uint32(h[16:])
	if n > size-20 {
		return 0, fmt.Errorf("the next has %d bytes in a block with room for %d", n, size-20)
	}
	return size - 20 - n, f.packet(rec, i.link, n, length)
}

// simple reads a packet of which the file tells nothing but its length.
func (f *Reader) simple(rec *Record, size uint32) (left uint32, err error) {
	if size < 4 || len(f.ifaces) == 0 {
		return 0, fmt.Errorf("the next packet's block has %d bytes, and there are %d interfaces: want at least 16, and 1", size+12, len(f.ifaces))
	}
	h, err := f.take(4)
	if err != nil {
		return 0, err
	}
	i := &f.ifaces[0]
	length := f.order.Uint32(h)
	n := min(length, size-4)
	if i.snap > 0 {
		n = min(n, i.snap)
	}
	rec.Nanos = 0
	return size - 4 - n, f.packet(rec, i.link, n, length)
}

// take reads n bytes, at most MaxPacket, good until the next take. It says
// io.EOF where the file ends before the first of them.
func (f *Reader) take(n int) ([]byte, error) {
	if n > len(f.buf) {
		f.buf = make([]byte, MaxPacket)
	}
	if _, err := io.ReadFull(f.r, f.buf[:n]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = errCut
		}
		return nil, err
	}
	return f.buf[:n], nil
}

// cut is err, where an end of the file is no proper one.
func cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errCut
	}
	return err
}

// clock is how an interface tells the time: in units of 10^-exponent seconds, or
// of 2^-exponent, from offset seconds after 1970.
type clock struct {
	offset   int64
	exponent uint8 // up to 127
	binary   bool
}

// nanos turns a time stamp into nanoseconds since 1970. What an int64 does not
// hold becomes its largest or smallest value.
func (c clock) nanos(stamp uint64) int64 {
	hi, lo := bits.Mul64(stamp, 1e9)
	switch {
	case c.binary && c.exponent >= 64:
		hi, lo = 0, hi>>(c.exponent-64)
	case c.binary:
		hi, lo = hi>>c.exponent, hi<<(64-c.exponent)|lo>>c.exponent
	default:
		for range c.exponent { // 128 bits divided by 10, digit by digit
			var rest uint64
			hi, rest = hi/10, hi%10
			lo, _ = bits.Div64(rest, lo, 10)
		}
	}
	at := int64(min(lo, math.MaxInt64))
	if hi > 0 {
		at = math.MaxInt64
	}
	return plus(at, c.offset)
}

// plus is at nanoseconds and so many seconds.
func plus(at, seconds int64) int64 {
	const most = math.MaxInt64 / int64(1e9)
	ns := max(-most, min(seconds, most)) * 1e9
	if ns > 0 && at > math.MaxInt64-ns {
		return math.MaxInt64
	}
	return at + ns
}
