package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// How often Watch looks, and how long it leaves the table alone after a repair: who
// fights with somebody else over it must not burn a core.
const (
	watchEvery   = 200 * time.Millisecond
	repairsApart = 500 * time.Millisecond
)

// dialMonitor opens a socket that hears of changes to nftables by all but one.
func dialMonitor(but uint32) (*wire, error) {
	w, err := dial(unix.NFNLGRP_NFTABLES)
	if err != nil {
		return nil, err
	}
	// A filter reads the number of who made the change as big endian: it is the fourth
	// of a message's head.
	own := binary.BigEndian.Uint32(native(but))
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 12},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: own, Jt: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 1<<32 - 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
	err = unix.SetsockoptSockFprog(w.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
	if err == nil {
		err = w.room(unix.SO_RCVBUFFORCE, 1<<22)
	}
	if err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

// Watch keeps the table as it was given, until ctx ends: should somebody else
// change or delete it, it is written anew at once. It also ends trials.
func (t *Table) Watch(ctx context.Context) {
	touched := false
	var repaired time.Time
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	for {
		touched = t.heard() || touched
		if touched && time.Since(repaired) >= repairsApart {
			err := t.Repair()
			touched, repaired = err != nil, time.Now()
			if t.options.Repaired != nil {
				t.options.Repaired(err)
			}
		}
		if t.over() && t.options.RolledBack != nil {
			t.options.RolledBack()
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// heard reports whether somebody else has changed our table, or may have: where
// more was said than there was room for.
func (t *Table) heard() bool {
	ours := false
	err := t.monitor.answers(func(h header, body []byte) error {
		if h.kind>>8 != unix.NFNL_SUBSYS_NFTABLES || len(body) < 4 || body[0] != inet && body[0] != unix.NFPROTO_UNSPEC {
			return nil
		}
		if h.kind&0xff == unix.NFT_MSG_NEWGEN {
			return nil
		}
		eachAttribute(body[4:], func(kind uint16, value []byte) {
			ours = ours || kind == nameOfTable && text(value) == t.options.Table
		})
		return nil
	})
	return ours || errors.Is(err, unix.ENOBUFS)
}

// nameOfTable is the attribute with the table's name, in messages of all kinds.
const nameOfTable = unix.NFTA_TABLE_NAME

// over ends a trial whose time is over, and reports that it has.
func (t *Table) over() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	was := t.trial
	// What fails is tried again: the kernel has gone back in any case.
	_ = t.expire()
	return was != nil && t.trial == nil
}

// Repair writes the table anew, as it was given last.
func (t *Table) Repair() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.side == nil {
		return nil
	}
	if t.trial != nil && time.Now().Before(t.trial.deadline) {
		return t.rewrite(t.trial.former, t.side)
	}
	if t.trial != nil {
		if err := t.rewrite(t.trial.former, nil); err != nil {
			return err
		}
		t.side, t.trial, t.lost = t.trial.former, nil, true
		return nil
	}
	return t.rewrite(t.side, nil)
}
