package tape

import (
	"bytes"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket/pcapgo"
	"golang.org/x/sys/unix"

	"margay.dev/margay/internal/pcapng"
)

// record records packets, and says how many found room.
func record(r *Recorder, ps ...pcapng.Packet) (n int) {
	for _, p := range ps {
		if to := r.Slot(len(p.Data), p.Time.UnixNano(), p.Direction); to != nil {
			copy(to, p.Data)
			n++
		}
		r.Publish()
	}
	return n
}

func TestRecorderWritesWhatItIsGiven(t *testing.T) {
	for _, raw := range []bool{true, false} {
		file := filepath.Join(t.TempDir(), "file")
		r, err := OpenRecorder(RecorderConfig{File: file, Name: "pod-a", Raw: raw})
		if err != nil {
			t.Fatal(err)
		}
		want := plain(1000) // less than the ring holds: none can be lost
		if n := record(r, want...); n != len(want) {
			t.Fatalf("%d packets found room", n)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		ng, err := pcapgo.NewNgReader(bytes.NewReader(content), pcapgo.DefaultNgReaderOptions)
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range want {
			data, ci, err := ng.ReadPacketData()
			if err != nil || !bytes.Equal(data, p.Data) || !ci.Timestamp.Equal(p.Time) || ci.Length != len(data) {
				t.Fatalf("packet %d is %x, %+v: %v", i, data, ci, err)
			}
		}
		if f, err := ng.Interface(0); err != nil || f.Name != "pod-a" || (f.LinkType == 101) != raw {
			t.Errorf("the interface is %+v: %v", f, err)
		}
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("others may read the file: %v, %v", info.Mode(), err)
		}
	}
}

func TestRecorderFlushesWhenThereIsNothingMore(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	r, err := OpenRecorder(RecorderConfig{File: file, Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	record(r, plain(1)...)
	for deadline := time.Now().Add(time.Minute); r.Recorded.Packets.Load() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it is not written")
		}
	}
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	ng, err := pcapng.NewReader(bytes.NewReader(content))
	if err == nil {
		err = ng.Read(new(pcapng.Record))
	}
	if err != nil {
		t.Errorf("before Close the file is not good: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func TestRecorderOnAFullDiskTellsAndGoesOn(t *testing.T) {
	r, err := OpenRecorder(RecorderConfig{File: "/dev/full", Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	sent := 0
	for range 20 { // more than the ring holds: room is given back all the same
		sent += record(r, plain(500)...)
		time.Sleep(5 * time.Millisecond)
	}
	err = r.Close()
	n := &r.Recorded
	if n.Packets.Load() != 0 || n.Failed.Load() != uint64(sent) || n.Failed.Load()+n.Lost.Load() != 10_000 {
		t.Errorf("%d written, %d failed, %d lost; %d found room", n.Packets.Load(), n.Failed.Load(), n.Lost.Load(), sent)
	}
	if err == nil || !strings.Contains(err.Error(), "no space left on device") || !strings.Contains(err.Error(), "10000 packets of 10000 are missing") {
		t.Errorf("close: %v", err)
	}
}

func TestRecorderLosesWhatAFileIsTooSlowFor(t *testing.T) {
	name := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	if r, err := OpenRecorder(RecorderConfig{File: name}); err == nil {
		t.Fatalf("a pipe that nobody reads was taken: %v", r.Close())
	}
	pipe, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	r, err := OpenRecorder(RecorderConfig{File: name, Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	room := record(r, plain(20_000)...) // 15 MB into 4 MiB and a pipe
	if took := time.Since(start); took > time.Minute {
		t.Errorf("the worker waited %v", took)
	}
	if lost := r.Recorded.Lost.Load(); room == 20_000 || lost != uint64(20_000-room) {
		t.Errorf("%d found room, %d are lost", room, lost)
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		_, _ = io.Copy(io.Discard, pipe)
	}()
	err = r.Close()
	if n := r.Recorded.Packets.Load(); n != uint64(room) {
		t.Errorf("%d of %d were written", n, room)
	}
	if err == nil || !strings.Contains(err.Error(), "packets of 20000 are missing") {
		t.Errorf("close: %v", err)
	}
	_ = pipe.SetReadDeadline(time.Now())
	<-drained
}

func TestNothingIsAllocatedForAWorker(t *testing.T) {
	p, err := OpenPlayer(PlayerConfig{File: save(t, pcapng.LinkRaw, plain(9000)...), Raw: true, Times: math.MaxInt, Largest: large})
	if err != nil {
		t.Fatal(err)
	}
	r, err := OpenRecorder(RecorderConfig{File: filepath.Join(t.TempDir(), "file"), Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	for p.Played.Packets.Load() < 1000 {
		time.Sleep(time.Millisecond)
	}
	n := testing.AllocsPerRun(30, func() {
		for range 32 {
			data, due, ok := p.Next()
			if !ok {
				t.Fatal("nothing to play")
			}
			if to := r.Slot(len(data), due, pcapng.In); to != nil {
				copy(to, data)
			}
			p.Take()
		}
		p.Release()
		r.Publish()
	})
	if n != 0 {
		t.Errorf("%v allocations per burst, want 0", n)
	}
	for _, c := range []io.Closer{p, r} {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}
