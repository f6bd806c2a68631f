// Package statefile keeps the acknowledged state on disk: a snapshot, and a log
// of the deltas since, both with checksums.
//
//	snapshot   magic, version | record: sequence, generation, all chunks
//	log        magic, version | record: sequence, generation, chunks of one delta | record | ...
//
// A record is on disk before its commit is acknowledged, so that a crash loses
// nothing that was. The log is folded into a new snapshot when it has grown
// beyond the snapshot's size. Snapshots are replaced by a rename. A record of
// the log that is older than the snapshot was folded already and is skipped.
package statefile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	snapshotName = "state"
	logName      = "state.log"
	magic        = "MARGAY-STATE\x00" // and a byte of version
	version      = 1
	headSize     = len(magic) + 1
	recordHead   = 32        // sequence, generation, length, checksums of body and head
	logMin       = 1 << 20   // bytes below which a log is never folded
	maxBody      = 1<<31 - 1 // bytes of one record
)

// ErrCorrupt says that what is on disk is not what was written.
var ErrCorrupt = errors.New("state on disk is corrupt")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Store is the state of one forwarder on disk. It is for one goroutine at a time.
type Store struct {
	dir      string
	log      *os.File
	logSize  int64
	baseSize int64
	seq      uint64 // of the last record
}

// Record is one commit as it was stored.
type Record struct {
	Generation uint64
	Chunks     [][]byte
}

// Open opens the state in dir, which is made (0700) where there is none, and
// returns its records: the snapshot, then deltas in order; none when nothing
// was stored. A record torn off by a crash was never acknowledged and is
// dropped. With ErrCorrupt the store is usable and empty, and what was there
// has been set aside under another name.
func Open(dir string) (*Store, []Record, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("open state: %w", err)
	}
	s := &Store{dir: dir}
	records, err := s.load()
	var corrupt error
	if errors.Is(err, ErrCorrupt) {
		corrupt, records = err, nil
		s.seq, s.baseSize = 0, 0
		err = s.setAside()
	}
	if err == nil {
		err = s.openLog()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("open state in %s: %w", dir, err)
	}
	return s, records, corrupt
}

// load reads snapshot and log.
func (s *Store) load() ([]Record, error) {
	base, err := s.read(snapshotName)
	if err != nil {
		return nil, err
	}
	if base == nil { // a log without its snapshot says nothing
		return nil, nil
	}
	s.baseSize = int64(len(base))
	record, seq, rest, err := parse(base[headSize:])
	if err != nil || len(rest) > 0 {
		return nil, fmt.Errorf("%s: %w: %w", snapshotName, ErrCorrupt, orTrailing(err))
	}
	s.seq = seq
	records := []Record{record}
	log, err := s.read(logName)
	if err != nil || log == nil {
		return records, err
	}
	return s.replay(records, log[headSize:])
}

func orTrailing(err error) error {
	if err == nil {
		return errors.New("bytes follow its end")
	}
	return err
}

// replay adds the deltas of the log that are newer than the snapshot.
func (s *Store) replay(records []Record, b []byte) ([]Record, error) {
	for len(b) > 0 {
		record, seq, rest, err := parse(b)
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return records, nil // torn off: a crash came before it was acknowledged
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w: %w", logName, ErrCorrupt, err)
		}
		b = rest
		switch {
		case seq <= s.seq:
		case seq == s.seq+1:
			s.seq = seq
			records = append(records, record)
		default:
			return nil, fmt.Errorf("%s: %w: record %d follows %d", logName, ErrCorrupt, seq, s.seq)
		}
	}
	return records, nil
}

// read returns a file whose head is right; nil if there is none.
func (s *Store) read(name string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(s.dir, name))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case len(b) < headSize && name == logName:
		return nil, nil // a crash came while it was begun
	case len(b) < headSize || string(b[:len(magic)]) != magic:
		return nil, fmt.Errorf("%s: %w: it does not begin as a state does", name, ErrCorrupt)
	case b[len(magic)] != version:
		return nil, fmt.Errorf("%s: %w: its version is %d, want %d", name, ErrCorrupt, b[len(magic)], version)
	}
	return b, nil
}

// parse takes the first record of b. io.ErrUnexpectedEOF means that b ends in
// the middle of it.
func parse(b []byte) (r Record, seq uint64, rest []byte, err error) {
	if len(b) < recordHead {
		return r, 0, nil, io.ErrUnexpectedEOF
	}
	head, n := b[:recordHead], binary.LittleEndian.Uint64(b[16:])
	if blank(b) { // a file system may have made room before it crashed
		return r, 0, nil, io.ErrUnexpectedEOF
	}
	if crc32.Checksum(head[:28], castagnoli) != binary.LittleEndian.Uint32(head[28:]) {
		return r, 0, nil, errors.New("checksum of a record's head is wrong")
	}
	b = b[recordHead:]
	if n > uint64(len(b)) {
		return r, 0, nil, io.ErrUnexpectedEOF
	}
	body := b[:n]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(head[24:]) {
		return r, 0, nil, errors.New("checksum of a record is wrong")
	}
	r.Generation = binary.LittleEndian.Uint64(head[8:])
	for len(body) > 0 {
		size, k := binary.Uvarint(body)
		if k <= 0 || size > uint64(len(body)-k) {
			return r, 0, nil, errors.New("a chunk runs over the end of its record")
		}
		r.Chunks = append(r.Chunks, body[k:k+int(size)])
		body = body[k+int(size):]
	}
	return r, binary.LittleEndian.Uint64(head), b[n:], nil
}

func blank(b []byte) bool { return len(bytes.TrimLeft(b, "\x00")) == 0 }

// encode makes a record.
func encode(seq, generation uint64, chunks [][]byte) ([]byte, error) {
	size := recordHead
	for _, c := range chunks {
		size += len(c) + binary.MaxVarintLen64
	}
	if size > maxBody {
		return nil, fmt.Errorf("a record of %d bytes is too long", size)
	}
	b := make([]byte, recordHead, size)
	for _, c := range chunks {
		b = binary.AppendUvarint(b, uint64(len(c)))
		b = append(b, c...)
	}
	binary.LittleEndian.PutUint64(b, seq)
	binary.LittleEndian.PutUint64(b[8:], generation)
	binary.LittleEndian.PutUint64(b[16:], uint64(len(b)-recordHead))
	binary.LittleEndian.PutUint32(b[24:], crc32.Checksum(b[recordHead:], castagnoli))
	binary.LittleEndian.PutUint32(b[28:], crc32.Checksum(b[:28], castagnoli))
	return b, nil
}

func fileHead() []byte { return append([]byte(magic), version) }

// Append stores a delta. It is on disk when Append returns.
func (s *Store) Append(generation uint64, chunks [][]byte) error {
	b, err := encode(s.seq+1, generation, chunks)
	if err != nil {
		return fmt.Errorf("store delta: %w", err)
	}
	if s.log == nil {
		return errors.New("store delta: the log is closed")
	}
	if _, err = s.log.WriteAt(b, s.logSize); err == nil {
		err = s.log.Sync()
	}
	if err != nil { // what was written of it is overwritten by the next, or torn
		return errors.Join(fmt.Errorf("store delta: %w", err), s.log.Truncate(s.logSize))
	}
	s.logSize += int64(len(b))
	s.seq++
	return nil
}

// Full tells that the log is to be folded: the caller should Replace.
func (s *Store) Full() bool { return s.logSize > max(logMin, s.baseSize) }

// Replace stores the whole state in place of all before.
func (s *Store) Replace(generation uint64, chunks [][]byte) error {
	b, err := encode(s.seq+1, generation, chunks)
	if err == nil {
		err = s.swap(b)
	}
	if err == nil {
		s.seq++
		s.baseSize = int64(headSize + len(b))
		err = s.truncateLog()
	}
	if err != nil {
		return fmt.Errorf("store snapshot: %w", err)
	}
	return nil
}

// swap writes a snapshot aside and renames it into place.
func (s *Store) swap(record []byte) error {
	aside := filepath.Join(s.dir, snapshotName+".new")
	f, err := os.OpenFile(aside, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, io.MultiReader(bytes.NewReader(fileHead()), bytes.NewReader(record)))
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return errors.Join(err, os.Remove(aside))
	}
	if err := os.Rename(aside, filepath.Join(s.dir, snapshotName)); err != nil {
		return err
	}
	return s.syncDir()
}

func (s *Store) syncDir() error {
	d, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// truncateLog empties the log; a crash before it leaves records that are older
// than the snapshot, which load skips.
func (s *Store) truncateLog() error {
	s.logSize = int64(headSize)
	return errors.Join(s.log.Truncate(s.logSize), s.log.Sync())
}

// openLog opens the log and finds its end: behind the last whole record.
func (s *Store) openLog() (err error) {
	s.log, err = os.OpenFile(filepath.Join(s.dir, logName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	b, err := io.ReadAll(s.log)
	if err != nil {
		return err
	}
	s.logSize = int64(headSize)
	if len(b) < headSize || s.baseSize == 0 {
		if _, err := s.log.WriteAt(fileHead(), 0); err != nil {
			return err
		}
		return errors.Join(s.truncateLog(), s.syncDir())
	}
	for rest := b[headSize:]; ; {
		_, _, next, err := parse(rest)
		if err != nil {
			break
		}
		s.logSize += int64(len(rest) - len(next))
		rest = next
	}
	return s.log.Truncate(s.logSize)
}

// setAside renames corrupt files, for somebody to look at.
func (s *Store) setAside() error {
	var errs []error
	for _, name := range []string{snapshotName, logName} {
		from := filepath.Join(s.dir, name)
		if err := os.Rename(from, from+".corrupt"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, s.syncDir())...)
}

// Close lets go of the files.
func (s *Store) Close() error { return s.log.Close() }
