//go:build linux

package probe

import (
	"bytes"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// TestSCTPAsOthersReadIt holds what we send against another reader, and its
// checksum against another writer.
func TestSCTPAsOthersReadIt(t *testing.T) {
	for name, chunk := range map[string]byte{"INIT": chunkInit, "INIT ACK": chunkAck} {
		t.Run(name, func(t *testing.T) {
			b := sctpPacket(1234, 80, 0xdeadbeef, chunk, 0x01020304)
			p := gopacket.NewPacket(b, layers.LayerTypeSCTP, gopacket.Default)
			if p.ErrorLayer() != nil {
				t.Fatal(p.ErrorLayer().Error())
			}
			head := p.Layer(layers.LayerTypeSCTP).(*layers.SCTP)
			if head.SrcPort != 1234 || head.DstPort != 80 || head.VerificationTag != 0xdeadbeef {
				t.Errorf("header is %+v", head)
			}
			kind := layers.LayerTypeSCTPInit
			if chunk == chunkAck {
				kind = layers.LayerTypeSCTPInitAck
			}
			init, ok := p.Layer(kind).(*layers.SCTPInit)
			if !ok || init.InitiateTag != 0x01020304 || init.OutboundStreams != 1 || init.InboundStreams != 1 || init.AdvertisedReceiverWindowCredit != window {
				t.Errorf("chunk is %+v in %v", init, p)
			}
			buf := gopacket.NewSerializeBuffer()
			err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{ComputeChecksums: true},
				&layers.SCTP{SrcPort: 1234, DstPort: 80, VerificationTag: 0xdeadbeef}, gopacket.Payload(b[sctpHeader:]))
			if err != nil || !bytes.Equal(buf.Bytes(), b) {
				t.Errorf("others write %x, %v; we write %x", buf.Bytes(), err, b)
			}
		})
	}
}

func FuzzParseSCTP(f *testing.F) {
	f.Add(sctpPacket(1, 2, 3, chunkInit, 4), false)
	f.Add(sctpPacket(1, 2, 3, chunkAck, 4), false)
	f.Add(sctpPacket(1, 2, 3, 14, 4), true)
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, b []byte, sum bool) {
		if sum && len(b) >= sctpHeader { // let the chunks be looked at
			b = bytes.Clone(b)
			want := sctpSum(b)
			b[8], b[9], b[10], b[11] = byte(want), byte(want>>8), byte(want>>16), byte(want>>24)
		}
		p, ok := parseSCTP(b)
		if !ok {
			return
		}
		again, ok := parseSCTP(sctpPacket(p.src, p.dst, p.verification, p.chunk, p.tag))
		if !ok || again != p {
			t.Errorf("%+v comes back as %+v, %v", p, again, ok)
		}
	})
}

func TestForeignSCTPIsNoAnswer(t *testing.T) {
	good := sctpPacket(1, 2, 3, chunkInit, 4)
	if _, ok := parseSCTP(good); !ok {
		t.Fatal("what we send is not what we read")
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if _, ok := parseSCTP(bad); ok {
			t.Errorf("a flipped bit in octet %d goes unnoticed", i)
		}
		if _, ok := parseSCTP(good[:i]); ok {
			t.Errorf("%d octets are taken for a whole packet", i)
		}
	}
	if _, ok := parseSCTP(sctpPacket(1, 2, 3, 14, 4)); ok { // SHUTDOWN COMPLETE
		t.Error("a chunk that begins nothing is taken for one that does")
	}
}
