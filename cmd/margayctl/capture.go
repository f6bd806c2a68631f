//go:build linux

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	dataplanev1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/fastpath/filter"
	"margay.dev/margay/internal/pcapng"
	"margay.dev/margay/internal/pkt"
	"margay.dev/margay/internal/render"
	"margay.dev/margay/internal/version"
)

func (c *ctl) capture() *cobra.Command {
	request := &dataplanev1.CaptureRequest{}
	var limit time.Duration
	var stages []string
	var file string
	cmd := &cobra.Command{
		Use: "capture", Short: "Write packets to a file: as they came, as they leave, and what is dropped", Args: cobra.NoArgs,
		Long: `Capture writes packets that a filter picks to a pcapng file, for tcpdump and
Wireshark: as they came in (rx), as they are offered to a port (pre-tx), and as
they were when they were dropped (drop). A comment at each packet says which,
and why it was dropped. Superpackets are written whole, and their checksums as
the sending kernel left them: for its network card to complete. With --segments
all is written as a wire carries it: a superpacket as its segments, and checksums
complete. Packets of ports without Ethernet, such as a pod's TUN, get an Ethernet
header of zeros.

It ends after --duration, --count or --bytes, whichever comes first, or when it
is interrupted; what was written until then stays.`,
		Example: `  margayctl capture --filter 'tcp port 443' -w web.pcapng
  margayctl capture --stage rx --segments -n 1000 -w wire.pcapng
  margayctl capture --stage drop --duration 5m -w - | tcpdump -r -`,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			switch {
			case file == "":
				return errors.New("no file is named: say -w FILE, or -w - for standard output")
			case limit <= 0:
				return fmt.Errorf("duration is %v, want more than 0", limit)
			}
			if request.Stages, err = stagesOf(stages); err != nil {
				return err
			}
			if _, err = filter.Parse(request.GetFilter()); err != nil {
				return err
			}
			request.TimeoutMs = milliseconds(limit)
			return c.askFor(cmd.Context(), limit, func(ctx context.Context, i inspect) error {
				return c.keep(ctx, i, request, file)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&request.Filter, "filter", "f", "", "packets to write, by what they are at the stage; none for every packet")
	flags.StringSliceVar(&stages, "stage", []string{"rx", "pre-tx", "drop"}, "where to look: rx, pre-tx, drop")
	flags.StringVarP(&file, "write", "w", "", "file to write, - for standard output")
	flags.Uint32VarP(&request.Count, "count", "n", 10_000, "packets to write, 1 to 10000000")
	flags.Uint64Var(&request.Bytes, "bytes", 64<<20, "bytes of packets to write, at most 4 GiB")
	flags.Uint32Var(&request.Snap, "snap", 0, "bytes to keep of each packet; 0 for all")
	flags.BoolVar(&request.Segmented, "segments", false, "superpackets as their segments, and checksums complete, as on a wire")
	flags.DurationVar(&limit, "duration", 30*time.Second, "how long to capture, at most 1h")
	return cmd
}

// stageNames are the stages as they are written.
var stageNames = map[dataplanev1.CaptureRequest_Stage]string{
	dataplanev1.CaptureRequest_STAGE_RX:     "rx",
	dataplanev1.CaptureRequest_STAGE_PRE_TX: "pre-tx",
	dataplanev1.CaptureRequest_STAGE_DROP:   "drop",
}

func stagesOf(words []string) (out []dataplanev1.CaptureRequest_Stage, err error) {
next:
	for _, word := range words {
		for stage, name := range stageNames {
			if word == name {
				out = append(out, stage)
				continue next
			}
		}
		return nil, fmt.Errorf("stage is %q, want rx, pre-tx or drop", word)
	}
	return out, nil
}

// keep writes what the forwarder sends and says how much that was.
func (c *ctl) keep(ctx context.Context, i inspect, request *dataplanev1.CaptureRequest, name string) error {
	stream, err := i.Capture(ctx, request)
	if err != nil {
		return err
	}
	if begun, _ := stream.Header(); begun == nil { // refused: an old file stays what it is
		_, err := stream.Recv()
		return err
	}
	k, err := c.create(name)
	if err != nil {
		return unkept{err}
	}
	end, err := k.all(stream)
	if err := errors.Join(err, k.close()); err != nil {
		return fmt.Errorf("%w\n  %s holds %s", err, k.name, render.Plural(k.kept, "packet"))
	}
	fmt.Fprintf(c.errOut, "%s: %s, %s; %s\n", k.name, render.Plural(k.kept, "packet"), render.Bytes(k.bytes), end)
	return nil
}

// keeper writes packets to a file, chunk by chunk, so that it always knows how much
// of the file is whole.
type keeper struct {
	name   string
	file   *os.File // nil where it is not ours to close
	out    io.Writer
	writer *pcapng.Writer
	ids    map[string]int // of the file's interfaces, by port
	good   int64          // bytes of the file that are whole packets
	size   int64          // bytes of it that were written
	kept   int
	bytes  uint64 // of packets that were kept
}

// create opens the file, for its owner alone.
func (c *ctl) create(name string) (k *keeper, err error) {
	k = &keeper{name: name, out: c.out, ids: map[string]int{}}
	if name == "-" {
		k.name = "standard output"
	} else {
		if k.file, err = os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600); err != nil {
			return nil, fmt.Errorf("make the file: %w", err)
		}
		k.out = k.file
	}
	if k.writer, err = pcapng.NewWriter(k, version.Line("margayctl")); err != nil {
		return nil, errors.Join(err, k.close())
	}
	return k, nil
}

// Write passes bytes on and counts them.
func (k *keeper) Write(b []byte) (int, error) {
	n, err := k.out.Write(b)
	k.size += int64(n)
	return n, err
}

func (k *keeper) flush() error {
	if err := k.writer.Flush(); err != nil {
		return unkept{fmt.Errorf("write %s: %w", k.name, err)}
	}
	k.good = k.size
	return nil
}

// close cuts off what is no whole packet.
func (k *keeper) close() error {
	if k.file == nil {
		return nil
	}
	if k.size != k.good {
		_ = k.file.Truncate(k.good) // a pipe or a device cannot be cut
	}
	return k.file.Close()
}

// all takes chunks until the last, and tells why that was it. An interrupt is an
// end like any other.
func (k *keeper) all(stream dataplanev1.Inspect_CaptureClient) (why string, err error) {
	for {
		chunk, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return "", errors.New("the forwarder ended the capture without a word: use the margayctl that came with it")
		case status.Code(err) == codes.Canceled:
			return "interrupted", nil
		case err != nil:
			return "", err
		}
		if err := k.take(chunk); err != nil {
			return "", err
		}
		if end := chunk.GetEnd(); end != nil {
			return ended(end), nil
		}
	}
}

func ended(end *dataplanev1.CaptureChunk_End) string {
	why := map[dataplanev1.CaptureChunk_End_Why]string{
		dataplanev1.CaptureChunk_End_WHY_TIME:  "the time was over",
		dataplanev1.CaptureChunk_End_WHY_COUNT: "as many as were wanted",
		dataplanev1.CaptureChunk_End_WHY_BYTES: "as many bytes as were wanted",
	}[end.GetWhy()]
	if end.GetLost() > 0 {
		why += fmt.Sprintf("; %d more were lost, because nobody took them in time", end.GetLost())
	}
	return why
}

// take writes one chunk.
func (k *keeper) take(chunk *dataplanev1.CaptureChunk) error {
	bytes := uint64(0)
	for _, p := range chunk.GetPackets() {
		id, err := k.port(portOf(p))
		if err == nil {
			data := framed(p)
			err = k.writer.Write(&pcapng.Packet{
				Interface: id, Time: time.Unix(0, int64(p.GetTimeNs())), Data: data, Length: int(p.GetLength()) + len(data) - len(p.GetData()),
				Direction: direction(p), Comment: comment(p),
			})
		}
		if err != nil {
			return unkept{fmt.Errorf("write %s: %w", k.name, err)}
		}
		bytes += uint64(len(p.GetData()))
	}
	if err := k.flush(); err != nil {
		return err
	}
	k.kept += len(chunk.GetPackets())
	k.bytes += bytes
	return nil
}

// port is the file's interface for a port.
func (k *keeper) port(name string) (id int, err error) {
	id, ok := k.ids[name]
	if !ok {
		if id, err = k.writer.AddInterface(name, pcapng.LinkEthernet, 0); err != nil {
			return 0, err
		}
		k.ids[name] = id
	}
	return id, nil
}

// framed is a packet as the file has it: with an Ethernet header. Those that have
// none get one of zeros, as the kernel does for lo: tcpdump reads no file of two
// kinds of links.
func framed(p *dataplanev1.CaptureChunk_Packet) []byte {
	if p.GetEthernet() {
		return p.GetData()
	}
	out := make([]byte, pkt.EthernetSize, pkt.EthernetSize+len(p.GetData()))
	etherType := uint16(pkt.EtherIPv4)
	if len(p.GetData()) > 0 && p.GetData()[0]>>4 == 6 {
		etherType = pkt.EtherIPv6
	}
	binary.BigEndian.PutUint16(out[pkt.EthernetSize-2:], etherType)
	return append(out, p.GetData()...)
}

// portOf is where a packet was seen.
func portOf(p *dataplanev1.CaptureChunk_Packet) string {
	switch {
	case p.GetOutPort() != "":
		return p.GetOutPort()
	case p.GetInPort() != "":
		return p.GetInPort()
	}
	return "forwarder"
}

func direction(p *dataplanev1.CaptureChunk_Packet) pcapng.Direction {
	switch p.GetStage() {
	case dataplanev1.CaptureRequest_STAGE_RX:
		return pcapng.In
	case dataplanev1.CaptureRequest_STAGE_PRE_TX:
		return pcapng.Out
	}
	return pcapng.None
}

// comment is what the headers do not tell of a packet.
func comment(p *dataplanev1.CaptureChunk_Packet) string {
	parts := []string{"stage=" + stageNames[p.GetStage()], "port=" + portOf(p)}
	if p.GetReason() != "" {
		parts = append(parts, "reason="+p.GetReason())
	}
	if !p.GetEthernet() {
		parts = append(parts, "ethernet=none")
	}
	switch {
	case p.GetSegment() > 0:
		parts = append(parts, fmt.Sprintf("segment=%d/%d of=%d", p.GetSegment(), p.GetSegments(), p.GetGsoSize()))
	case p.GetSegments() > 1:
		parts = append(parts, fmt.Sprintf("segments=%d of=%d", p.GetSegments(), p.GetGsoSize()))
	}
	return strings.Join(parts, " ")
}
