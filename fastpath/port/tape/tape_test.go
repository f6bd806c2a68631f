package tape

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"margay.dev/margay/internal/pcapng"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// save writes a capture file and returns its name.
func save(t testing.TB, link pcapng.LinkType, ps ...pcapng.Packet) string {
	t.Helper()
	var file bytes.Buffer
	w, err := pcapng.NewWriter(&file, "")
	if err == nil {
		_, err = w.AddInterface("a", link, 0)
	}
	for i := range ps {
		if err == nil {
			err = w.Write(&ps[i])
		}
	}
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	return put(t, file.Bytes())
}

func put(t testing.TB, content []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// plain are n packets of n bytes and less, a millisecond apart.
func plain(n int) []pcapng.Packet {
	ps := make([]pcapng.Packet, n)
	for i := range ps {
		ps[i].Data = bytes.Repeat([]byte{byte(i)}, 1+i%1500)
		ps[i].Time = time.Unix(1_700_000_000, int64(i)*1e6)
	}
	return ps
}

func large() int { return MaxPacket }

// play takes all packets, and says what of each is due when.
func play(t testing.TB, cfg PlayerConfig) (p *Player, got [][]byte, due []int64) {
	t.Helper()
	if cfg.Largest == nil {
		cfg.Largest = large
	}
	p, err := OpenPlayer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for !p.Ended() {
		data, at, ok := p.Next()
		if ok {
			got, due = append(got, bytes.Clone(data)), append(due, at)
			p.Take()
		} else if runtime.Gosched(); time.Now().After(deadline) {
			t.Fatalf("after %d packets nothing more comes", len(got))
		}
		p.Release()
	}
	return p, got, due
}

func TestRingCarriesEverythingInOrder(t *testing.T) {
	r := newRing()
	rnd := rand.New(rand.NewPCG(1, 2))
	sizes := make([]int, 20_000)
	for i := range sizes {
		if sizes[i] = rnd.IntN(1600); i%50 == 0 {
			sizes[i] = MaxPacket - rnd.IntN(100)
		}
	}
	done := make(chan int)
	go func() { // the worker
		full := 0
		for i, n := range sizes {
			to := r.reserve(n, int64(i), uint8(i))
			for ; to == nil; to = r.reserve(n, int64(i), uint8(i)) {
				full++
				runtime.Gosched()
			}
			for j := range to {
				to[j] = byte(i + j)
			}
			if i%7 == 0 || i == len(sizes)-1 {
				r.publish()
				r.rouse()
			}
		}
		done <- full
	}()
	for i := 0; i < len(sizes); {
		s, ok := r.next()
		if !ok {
			r.sleep(nil, func() bool { return !r.empty() })
			continue
		}
		if len(s.data) != sizes[i] || s.at != int64(i) || s.mark != uint8(i) {
			t.Fatalf("slot %d has %d bytes, number %d, mark %d, want %d bytes", i, len(s.data), s.at, s.mark, sizes[i])
		}
		for j, b := range s.data {
			if b != byte(i+j) {
				t.Fatalf("byte %d of slot %d is %d", j, i, b)
			}
		}
		r.drop(s)
		if i++; i%5 == 0 || r.empty() {
			r.release()
		}
		if i%1000 == 0 {
			time.Sleep(time.Millisecond) // let it fill up
		}
	}
	t.Logf("the ring was full %d times", <-done)
}

func TestPlayerPlaysAFileAsOftenAsAsked(t *testing.T) {
	want := plain(9000) // twice what the ring holds
	for _, times := range []int{0, 1, 3} {
		p, got, _ := play(t, PlayerConfig{File: save(t, pcapng.LinkRaw, want...), Raw: true, Times: times})
		passes := max(1, times)
		if len(got) != passes*len(want) || p.Played.Packets.Load() != uint64(len(got)) || p.Played.Passes.Load() != uint64(passes) {
			t.Fatalf("%d times: %d packets in %d passes", times, len(got), p.Played.Passes.Load())
		}
		for i := range got {
			if !bytes.Equal(got[i], want[i%len(want)].Data) {
				t.Fatalf("%d times: packet %d is %x", times, i, got[i])
			}
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestPlayerEndsInTheMiddle(t *testing.T) {
	p, err := OpenPlayer(PlayerConfig{File: save(t, pcapng.LinkEthernet, plain(9000)...), Times: math.MaxInt, Largest: large})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil { // while its goroutine waits for room, or soon will
		t.Error(err)
	}
}

func TestPlayerLeavesOutWhatCannotComeIn(t *testing.T) {
	ip := []byte{0x45, 1, 2, 3}
	long := pcapng.Packet{Data: make([]byte, 1515)}
	limit := func() int { return 1514 }
	file := save(t, pcapng.LinkEthernet, pcapng.Packet{Data: ip, Length: 60}, pcapng.Packet{Data: ip}, pcapng.Packet{}, long,
		pcapng.Packet{Data: make([]byte, MaxPacket+1)}, pcapng.Packet{Data: ip})
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	other := binary.LittleEndian.AppendUint32(nil, 1) // another interface, raw, and a packet of it
	for _, v := range []uint32{20, 101, 0, 20, 6, 36, 1, 0, 0, 1, 1, 0x45, 36, 6, 36, 0, 0, 0, 2, 1, 0x4545, 36} {
		other = binary.LittleEndian.AppendUint32(other, v)
	}
	p, got, _ := play(t, PlayerConfig{File: put(t, append(content, other...)), Largest: limit, Times: 2})
	n := &p.Played
	counts := fmt.Sprint(n.Packets.Load(), n.Truncated.Load(), n.Malformed.Load(), n.Oversize.Load(), n.OtherLink.Load(), n.Faults.Load())
	if len(got) != 4 || counts != "4 2 4 4 2 0" {
		t.Errorf("%d packets: packets, truncated, malformed, oversize, other link, faults are %s", len(got), counts)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

func TestPlayerGoesOnUntilNothingIsLeftToPlay(t *testing.T) {
	p, got, _ := play(t, PlayerConfig{File: save(t, pcapng.LinkRaw, pcapng.Packet{Data: []byte{1}, Length: 2}), Raw: true, Times: math.MaxInt})
	if len(got) != 0 || p.Played.Passes.Load() != 1 || p.Played.Truncated.Load() != 1 {
		t.Errorf("%d packets in %d passes", len(got), p.Played.Passes.Load())
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

func TestPlayerTellsOfAFileThatLies(t *testing.T) {
	whole, err := os.ReadFile(save(t, pcapng.LinkRaw, plain(5)...))
	if err != nil {
		t.Fatal(err)
	}
	last := len(whole) - int(binary.LittleEndian.Uint32(whole[len(whole)-4:])) // where the last block begins
	says := func(at int, v uint32) []byte {
		file := bytes.Clone(whole)
		binary.LittleEndian.PutUint32(file[last+at:], v)
		return file
	}
	for want, file := range map[string][]byte{
		"the file is cut off there":      whole[:len(whole)-2],
		"bytes in a block with room for": says(20, 1<<31),
		"a block has 7 bytes":            says(4, 7),
		"in front and 4294967295 behind": says(len(whole)-last-4, math.MaxUint32),
		"of interface 4294967295 of 1":   says(8, math.MaxUint32),
	} {
		t.Run(want, func(t *testing.T) {
			p, got, _ := play(t, PlayerConfig{File: put(t, file), Raw: true, Times: 3})
			if len(got) != 12 || p.Played.Faults.Load() != 3 {
				t.Errorf("%d packets, %d faults", len(got), p.Played.Faults.Load())
			}
			if err := p.Close(); err == nil || !strings.Contains(err.Error(), "after 4 packets: ") || !strings.Contains(err.Error(), want) {
				t.Errorf("close: %v", err)
			}
		})
	}
}

func TestPlayerRefusesAtOpening(t *testing.T) {
	raw, ether := save(t, pcapng.LinkRaw, plain(3)...), save(t, pcapng.LinkEthernet, plain(3)...)
	cooked := save(t, 113, plain(3)...)
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		cfg  PlayerConfig
		want string
	}{
		"no file":               {PlayerConfig{File: raw + "x"}, "no such file"},
		"a folder":              {PlayerConfig{File: t.TempDir()}, "no regular file"},
		"a pipe":                {PlayerConfig{File: fifo}, "no regular file"},
		"an empty file":         {PlayerConfig{File: put(t, nil)}, "it is empty"},
		"a file of nothing":     {PlayerConfig{File: save(t, pcapng.LinkRaw)}, "it has no packets"},
		"no capture":            {PlayerConfig{File: put(t, []byte("hello, world"))}, "neither pcap nor pcapng"},
		"raw IP to Ethernet":    {PlayerConfig{File: raw}, "link type 101, and the port takes Ethernet (1)"},
		"Ethernet to raw IP":    {PlayerConfig{File: ether, Raw: true}, "link type 1, and the port takes raw IP (101, 228, 229)"},
		"any device":            {PlayerConfig{File: cooked}, "link type 113"},
		"two paces":             {PlayerConfig{File: ether, Pace: Pace{1, true}}, "want one of them"},
		"a negative rate":       {PlayerConfig{File: ether, Pace: Pace{Rate: -1}}, "rate is -1"},
		"a rate that is none":   {PlayerConfig{File: ether, Pace: Pace{Rate: math.NaN()}}, "rate is NaN"},
		"a rate without bounds": {PlayerConfig{File: ether, Pace: Pace{Rate: math.Inf(1)}}, "rate is +Inf"},
		"fewer than no passes":  {PlayerConfig{File: ether, Times: -1}, "times is -1"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if p, err := OpenPlayer(tt.cfg); err == nil {
				t.Errorf("taken: %v", p.Close())
			} else if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want it to say %q", err, tt.want)
			}
		})
	}
}

func TestPaceSaysWhenPacketsAreDue(t *testing.T) {
	const s, day = int64(1e9), int64(24 * 3600 * 1e9)
	tests := map[string]struct {
		pace   Pace
		stamps []int64 // 0 begins another pass
		want   []int64
	}{
		"as fast as possible":      {Pace{}, []int64{5, 7, 0, 5}, []int64{0, 0, 0}},
		"four a second":            {Pace{Rate: 4}, []int64{5, 7, 0, 5, 7}, []int64{0, s / 4, s / 2, 3 * s / 4}},
		"one in ten years":         {Pace{Rate: 1 / 3e8}, []int64{1, 1}, []int64{0, 3e8 * s}},
		"one in a thousand ages":   {Pace{Rate: 1e-300}, []int64{1, 1}, []int64{0, math.MaxInt64/2 + 1}},
		"as captured":              {Pace{Timed: true}, []int64{s, 3 * s, 3*s + 1, 0, s, 3 * s}, []int64{0, 2 * s, 2*s + 1, 2*s + 1, 4*s + 1}},
		"captured out of order":    {Pace{Timed: true}, []int64{10, 12, 11, 13}, []int64{0, 2, 2, 3}},
		"a clock that was set":     {Pace{Timed: true}, []int64{s, math.MaxInt64, s, 2 * s}, []int64{0, day, day, day}},
		"a time before all others": {Pace{Timed: true}, []int64{math.MinInt64, s, 2 * s}, []int64{0, 0, s}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := pacer{Pace: tt.pace}
			var got []int64
			for _, stamp := range tt.stamps {
				if stamp == 0 {
					p.again()
				} else {
					got = append(got, p.due(stamp))
				}
			}
			for i := range tt.want {
				if d := got[i] - tt.want[i]; d < -1000 || d > 1000 || len(got) != len(tt.want) { // a float has 53 bits
					t.Fatalf("due at %d, want %d", got, tt.want)
				}
			}
		})
	}
}

func TestAPlayerInALoopKeepsWhatItSays(t *testing.T) {
	file := save(t, pcapng.LinkRaw, plain(20_000)...) // 15 MB
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	p, err := OpenPlayer(PlayerConfig{File: file, Raw: true, Times: math.MaxInt, Largest: large})
	if err != nil {
		t.Fatal(err)
	}
	for p.Played.Passes.Load() < 2 {
		if _, _, ok := p.Next(); ok {
			p.Take()
		} else {
			runtime.Gosched()
		}
		p.Release()
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if kept := int64(after.HeapAlloc) - int64(before.HeapAlloc); kept > 5<<20 {
		t.Errorf("%d bytes are kept, want at most 5 MiB", kept)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}
