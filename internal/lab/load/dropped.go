//go:build linux

package load

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
)

// dropped is what a place's own kernel has thrown away of what passed it.
type dropped struct {
	sending   uint64 // packets that a device's transmit queue had no room for
	receiving uint64 // datagrams that a socket's buffer had no room for
}

// droppedAt reads the counts of a namespace.
func droppedAt(place Place) (d dropped, err error) {
	const net = "/proc/thread-self/net/"
	var dev, snmp, snmp6 []byte
	err = place.Do(func() error {
		var errs [3]error
		dev, errs[0] = os.ReadFile(net + "dev")
		snmp, errs[1] = os.ReadFile(net + "snmp")
		snmp6, errs[2] = os.ReadFile(net + "snmp6")
		return errors.Join(errs[:]...)
	})
	d.sending = transmitDrops(dev)
	d.receiving = bufferErrors(snmp) + bufferErrors6(snmp6)
	return d, err
}

// transmitDrops sums a column of /proc/net/dev over all devices.
func transmitDrops(dev []byte) (sum uint64) {
	for line := range bytes.Lines(dev) {
		_, counts, ok := strings.Cut(string(line), ":")
		if f := strings.Fields(counts); ok && len(f) >= 12 {
			sum += number(f[11])
		}
	}
	return sum
}

// bufferErrors finds Udp RcvbufErrors in /proc/net/snmp: a line of names, then
// one of values.
func bufferErrors(snmp []byte) uint64 {
	var names []string
	for line := range bytes.Lines(snmp) {
		f := strings.Fields(string(line))
		if len(f) == 0 || f[0] != "Udp:" {
			continue
		}
		if names == nil {
			names = f
			continue
		}
		if i := slices.Index(names, "RcvbufErrors"); i >= 0 && i < len(f) {
			return number(f[i])
		}
	}
	return 0
}

// bufferErrors6 finds the same in /proc/net/snmp6, a name and a value a line.
func bufferErrors6(snmp6 []byte) uint64 {
	for line := range bytes.Lines(snmp6) {
		if f := strings.Fields(string(line)); len(f) == 2 && f[0] == "Udp6RcvbufErrors" {
			return number(f[1])
		}
	}
	return 0
}

func number(s string) uint64 {
	n, _ := strconv.ParseUint(s, 10, 64)
	return n
}
