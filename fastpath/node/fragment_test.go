package node_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"margay.dev/margay/fastpath/fib"
	"margay.dev/margay/fastpath/graph"
	gt "margay.dev/margay/fastpath/graph/graphtest"
)

// reassemble puts the parts of one datagram together, plainly, and says what is
// wrong with them: holes, overlaps, wrong checksums, parts beyond mtu.
func reassemble(parts [][]byte, mtu int) (ip []byte, err error) {
	var whole []byte
	var have []bool
	end := -1
	for i, p := range parts {
		size := int(p[0]&15) * 4
		word := binary.BigEndian.Uint16(p[6:])
		at, body := int(word&0x1fff)*8, p[size:]
		switch {
		case len(p) > mtu || int(binary.BigEndian.Uint16(p[2:])) != len(p):
			return nil, fmt.Errorf("part %d has %d bytes, header says %d", i, len(p), binary.BigEndian.Uint16(p[2:]))
		case plainSum(p[:size]) != 0xffff:
			return nil, fmt.Errorf("part %d: wrong checksum", i)
		case word&0x2000 == 0:
			end = at + len(body)
		case len(body)%8 != 0:
			return nil, fmt.Errorf("part %d has %d bytes and is not the last", i, len(body))
		}
		if at == 0 {
			ip = bytes.Clone(p[:size])
		}
		for len(whole) < at+len(body) {
			whole, have = append(whole, 0), append(have, false)
		}
		for j, b := range body {
			if have[at+j] {
				return nil, fmt.Errorf("part %d overlaps at %d", i, at+j)
			}
			whole[at+j], have[at+j] = b, true
		}
	}
	if end != len(whole) || ip == nil || bytes.Contains(boolBytes(have), []byte{0}) {
		return nil, fmt.Errorf("%d parts: they end at %d and leave holes in %d bytes", len(parts), end, len(whole))
	}
	ip = append(ip, whole...)
	ip[6], ip[7] = 0, 0
	setLength(ip)
	return ip, nil
}

func boolBytes(bs []bool) []byte {
	out := make([]byte, len(bs))
	for i, b := range bs {
		if b {
			out[i] = 1
		}
	}
	return out
}

// mayFragment clears DF.
func mayFragment(ip []byte) []byte {
	ip[6] &^= 0x40
	copy(ip, sumHeader(ip))
	return ip
}

func strip(ps []gt.Packet, n int) (out [][]byte) {
	for _, p := range ps {
		out = append(out, p.Bytes[n:])
	}
	return out
}

func TestFragmentsPutTogetherEqualTheOriginal(t *testing.T) {
	w := fromPod(false)
	timestamp := append([]byte{68, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 1, 1, 1, 0)
	for _, mtu := range []int{68, 69, 576, 1280, 1500} {
		for _, size := range []int{1481, 2000, 3600, 8000} {
			for name, ip := range map[string][]byte{
				"plain":        gt.UDP(w.src, w.dst, size),
				"with options": append(options4(w, timestamp)[:36], gt.UDP(w.src, w.dst, size)[20:]...),
				"odd protocol": gt.Frame(gt.IP(w.src, w.dst, 253), gt.Payload(size)),
			} {
				t.Run(fmt.Sprintf("%s, %d bytes by an MTU of %d", name, size, mtu), func(t *testing.T) {
					setLength(ip)
					ip = mayFragment(ip)
					l := gt.Standard(t, 1)
					a := l.Rewrite(gt.Up, false, gt.StationMAC(0, 9), w.dst)
					a.MTU = uint32(mtu)
					l.SetAdjacency(l.Way(w.dst, 0), a)
					l.SendIP(gt.Pod, ip)
					out := l.Collect(gt.Up)
					got, err := reassemble(strip(out, 14), mtu)
					if err != nil {
						t.Fatal(err)
					}
					wantBytes(t, got, older(t, ip))
					c := l.Change()
					if c.Consumed[graph.UsedSplit] != 1 || c.Made[graph.MadeFragment] != uint64(len(out)) || len(out) < 2 {
						t.Errorf("consumed %v, made %v, %d parts left", c.Consumed, c.Made, len(out))
					}
				})
			}
		}
	}
}

// What is a part already is split further, at the place it has in the whole.
func TestFragmentsAreFragmented(t *testing.T) {
	w := fromPod(false)
	udp := gt.UDP(w.src, w.dst, 5000)
	l := gt.Standard(t, 1)
	l.SendIP(gt.Pod,
		mayFragment(part(false, w, 0, true, udp[20:20+3200])),
		mayFragment(part(false, w, 3200, false, udp[20+3200:])))
	got, err := reassemble(strip(l.Collect(gt.Up), 14), 1500)
	if err != nil {
		t.Fatal(err)
	}
	wantBytes(t, got[20:], udp[20:])
}

func TestJumboPacketsInSeveralBuffersAreFragmented(t *testing.T) {
	w := ends{gt.Addr(false, gt.NetUp, gt.Station), gt.Addr(false, gt.NetPods, gt.VethHost)}
	for _, pieces := range [][]int{{3000, 3000}, {14 + 28, 3500, 1}, {3800, 3800}} {
		l := gt.Standard(t, 1)
		ip := mayFragment(gt.UDP(w.src, w.dst, 8000))
		frame := append(gt.Framed(gt.Up, ip), make([]byte, 300)...)
		l.InjectPackets(gt.Up, gt.Packet{Bytes: frame, Pieces: cutAt(pieces, len(frame))})
		l.Run()
		got, err := reassemble(strip(l.Collect(gt.Veth), 14), 1500)
		if err != nil {
			t.Fatalf("%v: %v", pieces, err)
		}
		wantBytes(t, got, older(t, ip))
	}
}

// A checksum that was left to hardware is completed before the packet is split.
func TestPartialChecksumIsCompletedBeforeSplitting(t *testing.T) {
	w := fromPod(false)
	whole := mayFragment(gt.UDP(w.src, w.dst, 3000))
	ip := bytes.Clone(whole)
	binary.BigEndian.PutUint16(ip[26:], plainSum(append(append([]byte(nil), ip[12:20]...), 0, 17, ip[24], ip[25])))
	l := gt.Standard(t, 1)
	l.InjectPackets(gt.Pod, gt.Packet{Bytes: ip, Meta: graph.Meta{Flags: graph.Partial, CsumStart: 20, CsumOffset: 6}})
	l.Run()
	got, err := reassemble(strip(l.Collect(gt.Up), 14), 1500)
	if err != nil {
		t.Fatal(err)
	}
	wantBytes(t, got, older(t, whole))
}

// Options without the copied flag stay with the first part (RFC 791).
func TestOptionsOfFragments(t *testing.T) {
	w := fromPod(false)
	security := []byte{130, 11, 1, 2, 3, 4, 5, 6, 7, 8, 9} // is copied
	record := []byte{7, 7, 4, 0, 0, 0, 0}                  // is not
	ip := options4(w, append(append(append([]byte{1}, record...), security...), 0))
	ip = append(ip[:40], gt.UDP(w.src, w.dst, 3000)[20:]...)
	setLength(ip)
	l := gt.Standard(t, 1)
	l.SendIP(gt.Pod, mayFragment(ip))
	parts := strip(l.Collect(gt.Up), 14)
	if _, err := reassemble(parts, 1500); err != nil {
		t.Fatal(err)
	}
	for i, p := range parts {
		options := p[20 : int(p[0]&15)*4]
		want := append(bytes.Clone(security), 0)
		if i == 0 {
			want = ip[20:40]
		}
		if !bytes.Equal(options, want) {
			t.Errorf("part %d has options %x, want %x", i, options, want)
		}
	}
}

func TestNeverFragments(t *testing.T) {
	tests := map[string][]byte{
		"IPv4 with DF": gt.UDP(fromPod(false).src, fromPod(false).dst, 1600),
		"IPv6":         gt.UDP(fromPod(true).src, fromPod(true).dst, 1600),
	}
	for name, ip := range tests {
		t.Run(name, func(t *testing.T) {
			l := gt.Standard(t, 1)
			l.SendIP(gt.Pod, ip)
			if n := len(l.Collect(gt.Up)); n != 0 {
				t.Errorf("%d packets left", n)
			}
			l.WantDrops(t, map[graph.Reason]uint64{graph.TooBig: 1})
		})
	}
}

// A vector of packets to split needs more buffers and slots than there are: what
// is missing is missing, and the account is even.
func TestSplittingWithoutBuffersLosesNoFrame(t *testing.T) {
	for _, frames := range []int{300, 2048} {
		l := gt.StandardConfig(t, gt.Config{Frames: frames})
		w := fromPod(false)
		ip := mayFragment(gt.UDP(w.src, w.dst, 3500))
		for range 256 {
			l.Inject(gt.Pod, ip)
		}
		l.Run()
		c := l.Change()
		if c.MadeRefused == 0 || c.Tx != c.Made[graph.MadeFragment] {
			t.Errorf("%d frames: refused %d, made %v, tx %d", frames, c.MadeRefused, c.Made, c.Tx)
		}
	}
}

// A way out so narrow that RFC 791 does not know it takes nothing.
func TestMTUBelowTheLeastThatIPv4Allows(t *testing.T) {
	w := fromPod(false)
	l := gt.Standard(t, 1)
	l.SetAdjacency(l.Way(w.dst, 0), fib.Adjacency{Kind: fib.Rewrite, Port: gt.Up, MTU: 60})
	l.SendIP(gt.Pod, mayFragment(gt.UDP(w.src, w.dst, 100)))
	l.WantDrops(t, map[graph.Reason]uint64{graph.TooBig: 1})
}
