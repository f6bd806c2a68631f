//go:build linux

package journal

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// A journal file is lines of text: eight hex digits of CRC-32C, a space, and
// a record in JSON that the sum is of. The first record carries the version.
// Each record holds its entry whole, so that losing another costs nothing.

const (
	journalVersion = 1
	sumDigits      = 8
	slack          = 1024 // records beyond four per entry that make a rewrite worth it

	opHead = "margay-journal"
	opSet  = "set"  // the entry holds from here on
	opDone = "done" // the entry is put back or forgotten
)

type record struct {
	Op      string `json:"op"`
	Version int    `json:"version,omitempty"` // of opHead
	Entry   *Entry `json:"entry,omitempty"`
}

// replay takes one record up into the entries.
func replay(entries map[key]Entry, r record) {
	switch {
	case r.Entry == nil:
	case r.Op == opSet:
		entries[r.Entry.key()] = *r.Entry
	case r.Op == opDone:
		delete(entries, r.Entry.key())
	}
}

type journalFile struct {
	path   string
	lock   *os.File
	file   *os.File
	size   int64 // octets of whole records; what is beyond is torn
	lines  int
	damage error
}

// openJournalFile opens or makes the file and reads its entries.
func openJournalFile(path string) (*journalFile, []Entry, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, err
	}
	if err := checkFolder(dir); err != nil {
		return nil, nil, err
	}
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, nil, err
	}
	f := &journalFile{path: path, lock: lock}
	entries, err := f.load()
	if err != nil {
		f.close()
		return nil, nil, err
	}
	return f, entries, nil
}

// load reads the file and cuts off what is torn.
func (f *journalFile) load() (entries []Entry, err error) {
	f.file, err = os.OpenFile(f.path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	image, err := io.ReadAll(f.file)
	if err != nil {
		return nil, err
	}
	log, err := readLog(image)
	if err != nil {
		return nil, err
	}
	f.size, f.lines, f.damage = log.size, log.lines, log.damage
	if f.size == 0 {
		return nil, f.rewrite(nil)
	}
	return log.entries, f.file.Truncate(f.size)
}

// checkFolder refuses a folder where others could leave us a journal to obey.
func checkFolder(dir string) error {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return err
	}
	if st.Uid != uint32(os.Geteuid()) || st.Mode&0o022 != 0 {
		return fmt.Errorf("folder %s belongs to user %d with mode %#o: it must be ours and writable by us alone (chmod 0700)", dir, st.Uid, st.Mode&0o7777)
	}
	return nil
}

// errInUse says that a journal is locked.
var errInUse = errors.New("another process has it open (is a second forwarder running with this configuration?)")

// lockFile takes a lock that the kernel lets go of when the process ends, however it ends.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = errInUse
		}
		return nil, err
	}
	return f, nil
}

func (f *journalFile) close() error {
	var errs []error
	for _, file := range []*os.File{f.file, f.lock} {
		if file != nil {
			errs = append(errs, file.Close())
		}
	}
	f.file, f.lock = nil, nil
	return errors.Join(errs...)
}

// append writes records and waits for the disk. On error the file is as before.
func (f *journalFile) append(records []record) error {
	if f.file == nil {
		return os.ErrClosed
	}
	var b []byte
	for _, r := range records {
		line, err := encodeRecord(r)
		if err != nil {
			return err
		}
		b = append(b, line...)
	}
	_, err := f.file.WriteAt(b, f.size)
	if err == nil {
		err = f.file.Sync()
	}
	if err != nil {
		return errors.Join(err, f.file.Truncate(f.size))
	}
	f.size += int64(len(b))
	f.lines += len(records)
	return nil
}

// wasteful tells whether the file is mostly of records that others replaced.
func (f *journalFile) wasteful(entries int) bool { return f.lines > slack+4*entries }

// rewrite replaces the file, at one stroke, by one that holds these entries only.
func (f *journalFile) rewrite(entries []Entry) error {
	records := []record{{Op: opHead, Version: journalVersion}}
	for i := range entries {
		records = append(records, record{Op: opSet, Entry: &entries[i]})
	}
	next := f.path + ".new"
	if err := os.Remove(next); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("rewrite journal: %w", err)
	}
	file, err := os.OpenFile(next, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("rewrite journal: %w", err)
	}
	fresh := &journalFile{path: f.path, lock: f.lock, file: file, damage: f.damage}
	if err := fresh.append(records); err != nil {
		file.Close()
		return fmt.Errorf("rewrite journal: %w", err)
	}
	if err := os.Rename(next, f.path); err != nil {
		file.Close()
		return fmt.Errorf("rewrite journal: %w", err)
	}
	if f.file != nil {
		f.file.Close()
	}
	*f = *fresh
	return syncFolder(filepath.Dir(f.path))
}

// syncFolder makes a rename last.
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func encodeRecord(r record) ([]byte, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "%0*x %s\n", sumDigits, crc32.Checksum(body, castagnoli), body), nil
}

func decodeRecord(line []byte) (r record, err error) {
	if len(line) <= sumDigits || line[sumDigits] != ' ' {
		return r, errors.New("no record")
	}
	sum, err := strconv.ParseUint(string(line[:sumDigits]), 16, 32)
	if err != nil {
		return r, errors.New("no checksum")
	}
	body := line[sumDigits+1:]
	if crc32.Checksum(body, castagnoli) != uint32(sum) {
		return r, errors.New("checksum is wrong")
	}
	return r, json.Unmarshal(body, &r)
}

type journalLog struct {
	entries []Entry
	size    int64
	lines   int
	damage  error
}

// readLog reads a file's image. A last line without its end is the mark of a
// crash during a write and is left out; any other line that is wrong is told
// as damage, and the rest is used.
func readLog(image []byte) (journalLog, error) {
	var log journalLog
	var damage []error
	entries, good := map[key]Entry{}, 0
	in := bufio.NewReader(bytes.NewReader(image))
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			break
		}
		log.size += int64(len(line))
		log.lines++
		r, err := decodeRecord(line[:len(line)-1])
		switch {
		case err != nil:
			damage = append(damage, fmt.Errorf("journal line %d is damaged and skipped: %w", log.lines, err))
		case r.Op == opHead && r.Version != journalVersion:
			return log, fmt.Errorf("version is %d, this build reads %d (start the build that wrote it, which puts the settings back)", r.Version, journalVersion)
		default:
			good++
			replay(entries, r)
		}
	}
	if len(image) > 0 && good == 0 { // a journal is never without its first record, not even torn
		return log, errors.New("it holds no record of a journal (is the path right? remove the file to begin anew)")
	}
	log.damage = errors.Join(damage...)
	log.entries = slices.SortedFunc(maps.Values(entries), func(a, b Entry) int { return cmp.Compare(a.ID, b.ID) })
	return log, nil
}
