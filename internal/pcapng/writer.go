package pcapng

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"time"
	"unicode/utf8"
)

// LinkType is what a packet's bytes begin with, by the number that the registry
// of link types gives it.
type LinkType uint16

// The link types that are written.
const (
	LinkEthernet LinkType = 1   // an Ethernet header
	LinkRaw      LinkType = 101 // an IPv4 or an IPv6 header
)

// Direction is which way a packet went through its interface.
type Direction uint8

// The directions; their values are those of epb_flags.
const (
	None Direction = iota // not known
	In                    // received
	Out                   // transmitted
)

// MaxPacket is the most bytes of a packet that a file holds: what is longer is
// cut. tcpdump refuses files with more.
const MaxPacket = 256 << 10

// Packet is one packet of a capture.
type Packet struct {
	Interface int       // as AddInterface numbered it
	Time      time.Time // from 1970 to 2554; one before, the zero Time among them, is written as 1970
	Data      []byte    // what was captured of it
	Length    int       // bytes it had; what is less than len(Data) means len(Data)
	Direction Direction
	Comment   string // cut at 64 KiB; none if empty
}

// The blocks and options that are written.
const (
	blockSection   = 0x0a0d0d0a
	blockInterface = 1
	blockPacket    = 6 // enhanced packet block

	byteOrder = 0x1a2b3c4d

	optEnd        = 0
	optComment    = 1
	optApp        = 4 // of a section
	optName       = 2 // of an interface
	optResolution = 9 // of an interface
	optFlags      = 2 // of a packet
)

// Writer writes one section of a pcapng file. Its first error stays: what came
// after a block cut short would be read as garbage.
type Writer struct {
	w     *bufio.Writer
	snaps []uint32 // most bytes of a packet, by interface
	block []byte   // the one being made; kept for its room
}

// NewWriter begins a file; app, which may be empty, is the program that is named
// in it. What is written waits in a buffer of 64 KiB until that is full, or for
// Flush: an error may come as late as that.
func NewWriter(w io.Writer, app string) (*Writer, error) {
	pw := &Writer{w: bufio.NewWriterSize(w, 64<<10)}
	pw.begin(blockSection)
	pw.u32(byteOrder)
	pw.u16(1) // version 1.0
	pw.u16(0)
	pw.block = binary.LittleEndian.AppendUint64(pw.block, math.MaxUint64) // the section's length is not known
	if app != "" {
		pw.text(optApp, app)
		pw.u32(optEnd)
	}
	if err := pw.end(); err != nil {
		return nil, fmt.Errorf("begin pcapng file: %w", err)
	}
	return pw, nil
}

// AddInterface adds an interface, at any time before its first packet, and
// returns its number. Packets are cut at snap bytes, and with 0 at MaxPacket.
// Wireshark takes any mix. tcpdump reads a file only if all of its interfaces
// have one snap and one link type; and that must be LinkEthernet if there are
// several, since libpcap to 1.10 mistakes the second LinkRaw for another type.
func (w *Writer) AddInterface(name string, link LinkType, snap uint32) (id int, err error) {
	w.begin(blockInterface)
	w.u16(uint16(link))
	w.u16(0)
	w.u32(snap)
	if name != "" {
		w.text(optName, name)
	}
	w.option(optResolution, 1)
	w.u32(9) // 10^-9 seconds, and padding
	w.u32(optEnd)
	if err := w.end(); err != nil {
		return 0, fmt.Errorf("add interface %s to pcapng file: %w", name, err)
	}
	if snap == 0 || snap > MaxPacket {
		snap = MaxPacket
	}
	w.snaps = append(w.snaps, snap)
	return len(w.snaps) - 1, nil
}

// Write adds a packet. It keeps nothing of p.
func (w *Writer) Write(p *Packet) error {
	if p.Interface < 0 || p.Interface >= len(w.snaps) {
		return fmt.Errorf("write packet: interface %d of %d: add it first", p.Interface, len(w.snaps))
	}
	data := p.Data[:min(len(p.Data), int(w.snaps[p.Interface]))]
	var at uint64
	if p.Time.Unix() >= 0 {
		at = uint64(p.Time.Unix())*1e9 + uint64(p.Time.Nanosecond())
	}
	w.begin(blockPacket)
	w.u32(uint32(p.Interface))
	w.u32(uint32(at >> 32))
	w.u32(uint32(at))
	w.u32(uint32(len(data)))
	w.u32(uint32(min(max(p.Length, len(p.Data)), math.MaxUint32)))
	w.block = append(w.block, data...)
	w.pad()
	if p.Comment != "" {
		w.text(optComment, p.Comment)
	}
	if p.Direction != None {
		w.option(optFlags, 4)
		w.u32(uint32(p.Direction & 3))
	}
	if p.Comment != "" || p.Direction != None {
		w.u32(optEnd)
	}
	if err := w.end(); err != nil {
		return fmt.Errorf("write packet: %w", err)
	}
	return nil
}

// Flush hands what is buffered to the underlying writer: the file is whole then.
func (w *Writer) Flush() error {
	if err := w.w.Flush(); err != nil {
		return fmt.Errorf("flush pcapng file: %w", err)
	}
	return nil
}

// begin starts a block whose length end fills in.
func (w *Writer) begin(kind uint32) {
	w.block = w.block[:0]
	w.u32(kind)
	w.u32(0)
}

// end closes the block and writes it.
func (w *Writer) end() error {
	n := uint32(len(w.block) + 4)
	binary.LittleEndian.PutUint32(w.block[4:], n)
	w.u32(n)
	_, err := w.w.Write(w.block)
	return err
}

func (w *Writer) u16(v uint16) { w.block = binary.LittleEndian.AppendUint16(w.block, v) }
func (w *Writer) u32(v uint32) { w.block = binary.LittleEndian.AppendUint32(w.block, v) }

// option begins an option of size bytes, which the caller pads to four.
func (w *Writer) option(code, size uint16) {
	w.u16(code)
	w.u16(size)
}

// text adds an option, of whole characters where it must be cut.
func (w *Writer) text(code uint16, s string) {
	if len(s) > math.MaxUint16 {
		n := math.MaxUint16
		for n > math.MaxUint16-utf8.UTFMax && !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n]
	}
	w.option(code, uint16(len(s)))
	w.block = append(w.block, s...)
	w.pad()
}

// pad fills the block up to a multiple of four.
func (w *Writer) pad() {
	for len(w.block)%4 != 0 {
		w.block = append(w.block, 0)
	}
}
