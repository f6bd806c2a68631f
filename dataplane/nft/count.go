package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Count is what met a rule since the rule is in the kernel, or the table was written
// anew.
type Count struct {
	Packets, Bytes uint64
}

// counterPrefix stands before a rule's id in the name of its counter, which is an
// object of its own: so it goes on when the rule is written anew, and is one for all of
// the rule's parts.
const counterPrefix = "rule."

// count counts what comes so far in a rule.
func (l *line) count(id uint32) *line {
	name := counterPrefix + strconv.FormatUint(uint64(id), 10)
	l.w.literals[name] = &literal{kind: kind{name: counterPrefix, counter: true}}
	return l.add(&expr.Objref{Type: unix.NFT_OBJECT_COUNTER, Name: name})
}

// newCounter makes a counter; one that is there goes on.
func (b *batch) newCounter(name string) {
	b.message(unix.NFT_MSG_NEWOBJ, unix.NLM_F_CREATE, inet, func() {
		b.object(name)
		b.nest(unix.NFTA_OBJ_DATA, func() {})
	})
}

func (b *batch) deleteCounter(name string) {
	b.message(unix.NFT_MSG_DELOBJ, 0, inet, func() { b.object(name) })
}

// object says which counter is meant.
func (b *batch) object(name string) {
	b.text(unix.NFTA_OBJ_TABLE, b.table)
	b.text(unix.NFTA_OBJ_NAME, name)
	b.number(unix.NFTA_OBJ_TYPE, unix.NFT_OBJECT_COUNTER)
}

// Counts are what met each rule, by its id. It fails where nothing was applied yet, or
// the kernel does not say.
func (t *Table) Counts() (map[uint32]Count, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.side == nil {
		return nil, ErrNotWhole
	}
	out, err := t.wire.counts(t.options.Table)
	if err != nil {
		return nil, fmt.Errorf("read counters of nftables: %w", explain(err))
	}
	return out, nil
}

// counts reads the counters of a table.
func (w *wire) counts(table string) (map[uint32]Count, error) {
	b := newBatch(table)
	b.message(unix.NFT_MSG_GETOBJ, unix.NLM_F_DUMP, inet, func() {
		b.text(unix.NFTA_OBJ_TABLE, table)
		b.number(unix.NFTA_OBJ_TYPE, unix.NFT_OBJECT_COUNTER)
	})
	if err := unix.Sendto(w.fd, b.buf, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	out := map[uint32]Count{}
	err := w.answers(func(h header, body []byte) error {
		switch {
		case h.flags&unix.NLM_F_DUMP_INTR != 0:
			return errors.New("they have changed meanwhile: ask again")
		case h.kind == unix.NLMSG_ERROR:
			return h.fault(body)
		case h.kind == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWOBJ && len(body) >= 4:
			if id, c, ok := readCounter(body[4:]); ok {
				out[id] = c
			}
		}
		return nil
	})
	return out, err
}

// readCounter reads the attributes of one counter; it is false for another object.
func readCounter(attributes []byte) (id uint32, c Count, ok bool) {
	eachAttribute(attributes, func(kind uint16, value []byte) {
		switch kind {
		case unix.NFTA_OBJ_NAME:
			number, ours := strings.CutPrefix(text(value), counterPrefix)
			n, err := strconv.ParseUint(number, 10, 32)
			id, ok = uint32(n), ours && err == nil
		case unix.NFTA_OBJ_DATA:
			eachAttribute(value, func(kind uint16, value []byte) {
				switch {
				case len(value) != 8:
				case kind == unix.NFTA_COUNTER_PACKETS:
					c.Packets = binary.BigEndian.Uint64(value)
				case kind == unix.NFTA_COUNTER_BYTES:
					c.Bytes = binary.BigEndian.Uint64(value)
				}
			})
		}
	})
	return id, c, ok
}
