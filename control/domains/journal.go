package domains

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"time"
)

// Journal is a file that has what a Keeper has learned, so that names keep their
// addresses while an agent is away: nobody asks again for what he has been told. What
// is new is added to its end; when most of it is old news it is written anew, aside
// and then in place. Each line stands for itself behind a checksum: what a crash, or a
// disk, has damaged is left out, and the rest is true.
//
// It is for one goroutine. It does not wait for the disk: after a crash of the machine
// what was learned last is asked for anew.
type Journal struct {
	keeper *Keeper
	path   string
	file   *os.File // nil: it must be written anew
	size   int64    // in bytes
	floor  int64    // when it was written anew
}

// Bounds of the file, in bytes.
const (
	longestLine = 4 << 10   // of what is read; names have 255 bytes
	maxJournal  = 256 << 20 // of what is read
	slack       = 1 << 20   // of old news, beside as much as there is of new
)

// line is one address of one name, as it is written.
type line struct {
	Pattern string     `json:"pattern"`
	Name    string     `json:"name"`
	Address netip.Addr `json:"address"`
	Until   int64      `json:"until"` // Unix time in seconds
}

// heading is the first line: other versions are another form.
const heading = "margay names 1\n"

// ErrDamaged says that a journal had lines that cannot be read. The others were, and
// the file is whole again.
var ErrDamaged = errors.New("addresses of names were lost, endpoints that ask again are told anew")

// OpenJournal reads a journal into a keeper that has heard nothing yet, and has what
// the keeper learns from now on written by Write. What was read is told when its
// patterns are wanted, and forgotten in its time otherwise. The journal is of use also
// where it fails: with ErrDamaged, or because the file cannot be read or written.
func OpenJournal(path string, k *Keeper) (*Journal, error) {
	j := &Journal{keeper: k, path: path}
	f, err := os.Open(path)
	switch {
	case err == nil:
		err = errors.Join(k.load(f), f.Close())
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	}
	if err != nil {
		err = fmt.Errorf("read %s: %w", path, err)
	}
	return j, errors.Join(err, j.rewrite())
}

// Write writes what is new. What fails is made good by the next one.
func (j *Journal) Write() error {
	if j.file == nil || j.size > 2*j.floor+slack {
		return j.rewrite()
	}
	news := j.keeper.news()
	if len(news) == 0 {
		return nil
	}
	n, err := j.file.Write(news)
	j.size += int64(n)
	if err != nil {
		return errors.Join(fmt.Errorf("add to %s: %w", j.path, err), j.Close())
	}
	return nil
}

// rewrite writes all that is known aside, then in place.
func (j *Journal) rewrite() error {
	if err := j.Close(); err != nil {
		return err
	}
	all := append([]byte(heading), j.keeper.all()...)
	f, err := os.OpenFile(j.path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write %s anew: %w", j.path, err)
	}
	if _, err = f.Write(all); err == nil {
		err = os.Rename(f.Name(), j.path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s anew: %w", j.path, err), f.Close())
	}
	j.file, j.floor = f, int64(len(all))
	j.size = j.floor
	return nil
}

// Close lets go of the file, which the next Write would write anew.
func (j *Journal) Close() error {
	if j.file == nil {
		return nil
	}
	f := j.file
	j.file = nil
	if err := f.Close(); err != nil {
		return fmt.Errorf("close %s: %w", j.path, err)
	}
	return nil
}

// news is what the keeper has learned since it was asked for the last time, in lines.
func (k *Keeper) news() []byte {
	k.mu.Lock()
	var news []line
	for e := range k.book.fresh {
		news = append(news, e.line())
	}
	clear(k.book.fresh)
	k.mu.Unlock()
	return written(news)
}

// all is what the keeper knows, in lines; nothing of it is news any more.
func (k *Keeper) all() []byte {
	k.mu.Lock()
	var all []line
	for _, e := range k.book.ends {
		all = append(all, e.line())
	}
	k.book.fresh = map[*entry]struct{}{}
	k.mu.Unlock()
	return written(all)
}

func (e *entry) line() line { return line{e.of.String(), e.name, e.address, e.until.Unix()} }

// written is lines as they are in the file: the checksum of each, and the line.
func written(lines []line) []byte {
	var b bytes.Buffer
	for _, l := range lines {
		text, err := json.Marshal(l)
		if err != nil {
			continue // texts, an address and a number can always be written
		}
		fmt.Fprintf(&b, "%08x %s\n", crc32.ChecksumIEEE(text), text)
	}
	return b.Bytes()
}

// load takes lines. It fails with ErrDamaged where some cannot be read.
func (k *Keeper) load(r io.Reader) error {
	in := bufio.NewReaderSize(io.LimitReader(r, maxJournal), longestLine)
	if first, err := in.ReadSlice('\n'); string(first) != heading {
		return errors.Join(fmt.Errorf("it does not begin as such a file does: %w", ErrDamaged), ioError(err))
	}
	damaged := 0
	for {
		text, err := in.ReadSlice('\n')
		switch {
		case err == nil:
			if !k.take(text[:len(text)-1]) {
				damaged++
			}
			continue
		case len(text) > 0: // too long, or cut off
			damaged++
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if damaged > 0 {
			err = errors.Join(fmt.Errorf("%d lines cannot be read: %w", damaged, ErrDamaged), ioError(err))
		}
		return ioError(err)
	}
}

// ioError is an error of reading, but for the end of a file or of a line's room.
func ioError(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, bufio.ErrBufferFull) {
		return nil
	}
	return err
}

// take takes a line, and reports whether it can be read.
func (k *Keeper) take(text []byte) bool {
	sum, rest, _ := bytes.Cut(text, []byte(" "))
	want, err := strconv.ParseUint(string(sum), 16, 32)
	var l line
	if err != nil || len(sum) != 8 || uint32(want) != crc32.ChecksumIEEE(rest) || json.Unmarshal(rest, &l) != nil || !l.Address.IsValid() {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	p, err := k.book.pattern(l.Pattern)
	if err != nil || !p.Match(l.Name) {
		return false
	}
	now, until := k.now(), time.Unix(l.Until, 0)
	if latest := now.Add(maxTTL + k.book.limits.Grace); until.After(latest) { // a clock that was wrong may have written it
		until = latest
	}
	k.book.put(p, l.Name, l.Address, now, until)
	if p.entries == 0 && !p.wanted {
		k.book.Drop(l.Pattern)
	}
	return true
}
