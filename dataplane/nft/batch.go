package nft

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// batch is a transaction in the making, in the kernel's own form: messages one
// behind the other, of which all come into force or none.
type batch struct {
	table    string
	buf      []byte
	messages int
	last     int // where the last message begins
	sets     uint32
}

func newBatch(table string) *batch { return &batch{table: table} }

func align(n int) int { return (n + 3) &^ 3 }

// head writes the heads of a message, whose length is mended when it has ended.
func (b *batch) head(kind, flags uint16, family uint8, resource uint16) (start int) {
	start = len(b.buf)
	b.buf = append(b.buf, 0, 0, 0, 0)
	b.buf = binary.NativeEndian.AppendUint16(b.buf, kind)
	b.buf = binary.NativeEndian.AppendUint16(b.buf, unix.NLM_F_REQUEST|flags)
	b.buf = append(b.buf, 0, 0, 0, 0, 0, 0, 0, 0, family, unix.NFNETLINK_V0)
	b.buf = binary.BigEndian.AppendUint16(b.buf, resource)
	return start
}

func (b *batch) end(start int) {
	binary.NativeEndian.PutUint32(b.buf[start:], uint32(len(b.buf)-start))
}

// message adds a message of nftables; f writes its attributes.
func (b *batch) message(kind, flags uint16, family uint8, f func()) {
	b.messages++
	b.last = len(b.buf)
	start := b.head(unix.NFNL_SUBSYS_NFTABLES<<8|kind, flags, family, 0)
	if f != nil {
		f()
	}
	b.end(start)
}

// finish puts the messages between the marks of a batch, numbers them, and asks
// for an answer to the last one.
func (b *batch) finish(first uint32) {
	messages := b.buf
	flags := binary.NativeEndian.Uint16(messages[b.last+6:])
	binary.NativeEndian.PutUint16(messages[b.last+6:], flags|unix.NLM_F_ACK)
	b.buf = make([]byte, 0, len(messages)+64)
	b.end(b.head(unix.NFNL_MSG_BATCH_BEGIN, 0, 0, unix.NFNL_SUBSYS_NFTABLES))
	b.buf = append(b.buf, messages...)
	b.end(b.head(unix.NFNL_MSG_BATCH_END, 0, 0, unix.NFNL_SUBSYS_NFTABLES))
	for at, seq := 0, first; at < len(b.buf); seq++ {
		binary.NativeEndian.PutUint32(b.buf[at+8:], seq)
		at += int(binary.NativeEndian.Uint32(b.buf[at:]))
	}
}

// describe says for people what the message of a number is about, and whether it makes
// a table, a chain, a rule or a set.
func (b *batch) describe(seq uint32) (what string, makes bool) {
	what = "its end"
	_ = eachMessage(b.buf, func(h header, body []byte) error {
		if h.seq != seq || h.kind>>8 != unix.NFNL_SUBSYS_NFTABLES || len(body) < 4 {
			return nil
		}
		name := ""
		eachAttribute(body[4:], func(kind uint16, value []byte) {
			if kind <= 2 && name == "" && text(value) != b.table { // chains and sets have the name in the second, or, of elements, the first
				name = text(value)
			}
		})
		kind := h.kind & 0xff
		what = fmt.Sprintf("%s %q", kinds[kind], name)
		makes = kind == unix.NFT_MSG_NEWTABLE || kind == unix.NFT_MSG_NEWCHAIN || kind == unix.NFT_MSG_NEWRULE || kind == unix.NFT_MSG_NEWSET
		return nil
	})
	return what, makes
}

// kinds are the messages that we send, for people.
var kinds = [...]string{
	unix.NFT_MSG_NEWTABLE: "making table", unix.NFT_MSG_DELTABLE: "deleting table",
	unix.NFT_MSG_NEWCHAIN: "making chain", unix.NFT_MSG_DELCHAIN: "deleting chain",
	unix.NFT_MSG_NEWRULE: "a rule of chain", unix.NFT_MSG_DELRULE: "emptying chain",
	unix.NFT_MSG_NEWSET: "making set", unix.NFT_MSG_DELSET: "deleting set",
	unix.NFT_MSG_NEWSETELEM: "members that join set", unix.NFT_MSG_DELSETELEM: "members that leave set",
	unix.NFT_MSG_NEWOBJ: "making counter", unix.NFT_MSG_DELOBJ: "deleting counter",
	unix.NFT_MSG_GETGEN: "",
}

func (b *batch) attr(kind uint16, value []byte) {
	b.buf = appendAttr(b.buf, kind, value)
}

func (b *batch) text(kind uint16, s string) { b.attr(kind, append([]byte(s), 0)) }

func (b *batch) number(kind uint16, n uint32) {
	b.attr(kind, binary.BigEndian.AppendUint32(nil, n))
}

// nest writes an attribute of attributes.
func (b *batch) nest(kind uint16, f func()) {
	start := len(b.buf)
	b.buf = append(b.buf, 0, 0, 0, 0)
	f()
	binary.NativeEndian.PutUint16(b.buf[start:], uint16(len(b.buf)-start))
	binary.NativeEndian.PutUint16(b.buf[start+2:], kind|unix.NLA_F_NESTED)
}

// appendAttr appends one attribute, filled up to the next.
func appendAttr(buf []byte, kind uint16, value []byte) []byte {
	n := 4 + len(value)
	buf = binary.NativeEndian.AppendUint16(buf, uint16(n))
	buf = binary.NativeEndian.AppendUint16(buf, kind)
	buf = append(buf, value...)
	return append(buf, make([]byte, align(n)-n)...)
}

// eachAttribute calls f for each attribute; what is cut off at the end is passed
// over.
func eachAttribute(buf []byte, f func(kind uint16, value []byte)) {
	for len(buf) >= 4 {
		n := int(binary.NativeEndian.Uint16(buf))
		if n < 4 || n > len(buf) {
			return
		}
		f(binary.NativeEndian.Uint16(buf[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), buf[4:n])
		buf = buf[min(align(n), len(buf)):]
	}
}

// text is a string as the kernel has it.
func text(value []byte) string {
	s, _, _ := bytes.Cut(value, []byte{0})
	return string(s)
}
