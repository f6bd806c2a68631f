//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	dataplanev1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/internal/render"
)

// rate is what went through a port in a second.
type rate struct{ rxPackets, rxBytes, txPackets, txBytes, txDrops float64 }

func (r rate) document() map[string]any {
	return map[string]any{
		"rxPacketsPerSecond": r.rxPackets, "rxBytesPerSecond": r.rxBytes,
		"txPacketsPerSecond": r.txPackets, "txBytesPerSecond": r.txBytes, "txDropsPerSecond": r.txDrops,
	}
}

// rates are two readings of ports and what lies between them.
type rates struct {
	now     *dataplanev1.PortList // the later reading
	elapsed time.Duration
	of      map[string]rate // by port; none where a port was not the same in both
}

// between compares two readings. A port that came between them, or that counts
// from zero again, has no rate.
func between(before, now *dataplanev1.PortList, elapsed time.Duration) rates {
	old := map[string]*dataplanev1.PortList_PortState{}
	for _, p := range before.GetPorts() {
		old[p.GetName()] = p
	}
	r := rates{now, elapsed, map[string]rate{}}
	for _, p := range now.GetPorts() {
		o, same := old[p.GetName()]
		per := func(was, is uint64) float64 {
			same = same && is >= was
			return float64(is-was) / elapsed.Seconds()
		}
		one := rate{
			per(o.GetRxPackets(), p.GetRxPackets()), per(o.GetRxBytes(), p.GetRxBytes()),
			per(o.GetTxPackets(), p.GetTxPackets()), per(o.GetTxBytes(), p.GetTxBytes()), per(o.GetTxDrops(), p.GetTxDrops()),
		}
		if same && o.GetIndex() == p.GetIndex() {
			r.of[p.GetName()] = one
		}
	}
	return r
}

// watchPorts reads the ports twice, with a pause, and prints what went through them.
func (c *ctl) watchPorts(ctx context.Context, names []string, pause time.Duration) error {
	before, at, err := c.readPorts(ctx, names)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return unreachable{errors.New("interrupted")}
	case <-time.After(pause):
	}
	now, then, err := c.readPorts(ctx, names)
	if err != nil {
		return err
	}
	r := between(before, now, then.Sub(at))
	switch {
	case c.format != render.Text:
		return c.rateDocument(r)
	case len(names) > 0:
		return portDetails(c.out, now, r.of)
	}
	return rateTable(c.out, r)
}

// readPorts asks once, and tells when the answer came.
func (c *ctl) readPorts(ctx context.Context, names []string) (l *dataplanev1.PortList, at time.Time, err error) {
	err = c.ask(ctx, func(ctx context.Context, client inspect) error {
		l, err = listPorts(ctx, client, names)
		at = c.now()
		return err
	})
	return l, at, err
}

func rateTable(w io.Writer, r rates) error {
	t := render.NewTable("PORT", "KIND", "DEVICE", "STATE", "MODE", ">QUEUES", ">RX PKTS/S", ">RX BYTES/S", ">TX PKTS/S", ">TX BYTES/S", ">TX DROPS/S")
	for _, p := range r.now.GetPorts() {
		cells := []string{p.GetName(), p.GetKind(), p.GetDevice(), p.GetState(), p.GetMode(), fmt.Sprint(p.GetQueues())}
		if one, ok := r.of[p.GetName()]; ok {
			cells = append(cells, count(one.rxPackets), size(one.rxBytes), count(one.txPackets), size(one.txBytes), count(one.txDrops))
		}
		t.Row(cells...)
	}
	if err := write(w, t, "no ports"); err != nil {
		return err
	}
	return fallbacks(w, r.now)
}

func count(perSecond float64) string { return render.Count(uint64(math.Round(perSecond))) }

func size(perSecond float64) string { return render.Bytes(uint64(math.Round(perSecond))) }

// rateDocument is the document of the later reading, with "rates" at each port
// that has them.
func (c *ctl) rateDocument(r rates) error {
	b, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(r.now)
	if err != nil {
		return fmt.Errorf("write rates: %w", err)
	}
	var list struct {
		Ports []map[string]any `json:"ports"`
	}
	if err := json.Unmarshal(b, &list); err != nil {
		return fmt.Errorf("write rates: %w", err)
	}
	ports := make([]any, len(list.Ports))
	for i, p := range r.now.GetPorts() {
		if one, ok := r.of[p.GetName()]; ok {
			list.Ports[i]["rates"] = one.document()
		}
		ports[i] = list.Ports[i]
	}
	doc, err := structpb.NewStruct(map[string]any{"seconds": r.elapsed.Seconds(), "ports": ports})
	if err != nil {
		return fmt.Errorf("write rates: %w", err)
	}
	return render.Document(c.out, c.format, doc)
}
