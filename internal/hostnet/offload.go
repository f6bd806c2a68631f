//go:build linux

package hostnet

import (
	"fmt"
	"maps"
	"path"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A Feature is one offload of a link, as ethtool -k shows it.
type Feature struct {
	Active     bool // in force
	Wanted     bool // asked for; in force as soon as what it depends on is
	Changeable bool // not "[fixed]"
}

// Channels are the queue counts of a link, as ethtool -l shows them.
type Channels struct {
	Rx, Tx, Combined          int // in use
	MaxRx, MaxTx, MaxCombined int // the most the driver takes
}

// offloadGroup is the features that a short name of ethtool -K stands for;
// any other name stands for itself.
func offloadGroup(name string) string {
	switch name {
	case "rx", "rx-checksumming":
		return "rx-checksum"
	case "tx", "tx-checksumming":
		return "tx-checksum-*"
	case "sg", "scatter-gather":
		return "tx-scatter-gather*"
	case "tso", "tcp-segmentation-offload":
		return "tx-tcp*-segmentation"
	case "gso", "generic-segmentation-offload":
		return "tx-generic-segmentation"
	case "gro", "generic-receive-offload":
		return "rx-gro"
	case "lro", "large-receive-offload":
		return "rx-lro"
	case "rxvlan", "rx-vlan-offload":
		return "rx-vlan-hw-parse"
	case "txvlan", "tx-vlan-offload":
		return "tx-vlan-hw-insert"
	case "rxhash", "receive-hashing":
		return "rx-hashing"
	case "ntuple", "ntuple-filters":
		return "rx-ntuple-filter"
	}
	return name
}

// Features reads all offloads of a link by the kernel's names
// ("tx-checksum-ip-generic", "rx-gro-hw", ...).
func (h *Host) Features(link string) (map[string]Feature, error) {
	msg, err := h.ethtool(link, unix.ETHTOOL_MSG_FEATURES_GET, unix.ETHTOOL_A_FEATURES_HEADER)
	if err != nil {
		return nil, fmt.Errorf("read offloads of %s: %w", link, err)
	}
	sets := map[int]map[string]bool{}
	walk(msg, func(kind int, v []byte) { sets[kind] = parseBitset(v) })
	out := map[string]Feature{}
	for _, set := range sets {
		for name := range set {
			out[name] = Feature{
				Active:     sets[unix.ETHTOOL_A_FEATURES_ACTIVE][name],
				Wanted:     sets[unix.ETHTOOL_A_FEATURES_WANTED][name],
				Changeable: sets[unix.ETHTOOL_A_FEATURES_HW][name] && !sets[unix.ETHTOOL_A_FEATURES_NOCHANGE][name],
			}
		}
	}
	return out, nil
}

// Offload tells whether any feature of the name is in force. The name is a
// feature's, or one that ethtool -K takes for several: tx, tso, gso, gro, lro,
// rx, rxvlan, txvlan, sg, rxhash, ntuple.
func (h *Host) Offload(link, name string) (bool, error) {
	all, err := h.Features(link)
	if err != nil {
		return false, err
	}
	for _, n := range matching(all, name) {
		if all[n].Active {
			return true, nil
		}
	}
	return false, nil
}

// SetOffload switches every changeable feature of the name (see Offload) on or
// off, as ethtool -K does. It is an error if one stays as it was. Nothing puts
// it back: see journal.Journal.
func (h *Host) SetOffload(link, name string, on bool) error {
	want, err := h.PendingOffloads(link, name, on)
	if err != nil {
		return err
	}
	return h.SetFeatures(link, want, on)
}

// PendingOffloads lists the features that SetOffload would switch, none if all
// are as wanted; ErrNotSupported if the offload cannot be had so.
func (h *Host) PendingOffloads(link, name string, on bool) ([]string, error) {
	all, err := h.Features(link)
	if err != nil {
		return nil, err
	}
	change, err := pending(all, matching(all, name), on)
	if err != nil {
		return nil, fmt.Errorf("switch offload %s of %s %s: %w", name, link, onOff(on), err)
	}
	return change, nil
}

func pending(all map[string]Feature, names []string, on bool) ([]string, error) {
	if len(names) == 0 {
		return nil, fmt.Errorf("no feature of that name: %w", ErrNotSupported)
	}
	var change []string
	right := false // something of the name is as asked, or can be made so
	for _, n := range names {
		f := all[n]
		switch {
		case f.Changeable && f.Wanted != on:
			change = append(change, n)
		case f.Changeable || f.Active == on:
			right = true
		case !on:
			return nil, fmt.Errorf("%s is fixed on: %w", n, ErrNotSupported)
		}
	}
	if len(change) == 0 && !right {
		return nil, fmt.Errorf("fixed off: %w", ErrNotSupported)
	}
	return change, nil
}

func matching(all map[string]Feature, name string) []string {
	pattern := offloadGroup(name)
	var names []string
	for _, n := range slices.Sorted(maps.Keys(all)) {
		if ok, _ := path.Match(pattern, n); ok {
			names = append(names, n)
		}
	}
	return names
}

// SetFeatures switches the features of exactly these names, as Features tells
// them, and makes sure that the kernel took the wish.
func (h *Host) SetFeatures(link string, names []string, on bool) error {
	if len(names) == 0 {
		return nil
	}
	if _, err := h.ethtool(link, unix.ETHTOOL_MSG_FEATURES_SET, unix.ETHTOOL_A_FEATURES_HEADER, encodeBitset(names, on)); err != nil {
		return fmt.Errorf("set offloads %v of %s: %w", names, link, err)
	}
	all, err := h.Features(link)
	if err != nil {
		return err
	}
	for _, n := range names {
		if f := all[n]; f.Wanted != on || !on && f.Active {
			return fmt.Errorf("set offload %s of %s %s: kernel kept it (wanted %v, active %v): %w", n, link, onOff(on), f.Wanted, f.Active, ErrNotSupported)
		}
	}
	return nil
}

// Channels reads the queue counts of a link; ErrNotSupported if the driver
// does not tell.
func (h *Host) Channels(link string) (Channels, error) {
	msg, err := h.ethtool(link, unix.ETHTOOL_MSG_CHANNELS_GET, unix.ETHTOOL_A_CHANNELS_HEADER)
	if err != nil {
		return Channels{}, fmt.Errorf("read channels of %s: %w", link, err)
	}
	var c Channels
	walk(msg, func(kind int, v []byte) {
		switch kind {
		case unix.ETHTOOL_A_CHANNELS_RX_MAX:
			c.MaxRx = int(number(v))
		case unix.ETHTOOL_A_CHANNELS_TX_MAX:
			c.MaxTx = int(number(v))
		case unix.ETHTOOL_A_CHANNELS_COMBINED_MAX:
			c.MaxCombined = int(number(v))
		case unix.ETHTOOL_A_CHANNELS_RX_COUNT:
			c.Rx = int(number(v))
		case unix.ETHTOOL_A_CHANNELS_TX_COUNT:
			c.Tx = int(number(v))
		case unix.ETHTOOL_A_CHANNELS_COMBINED_COUNT:
			c.Combined = int(number(v))
		}
	})
	return c, nil
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

const genlHead = 4 // octets of struct genlmsghdr

// ethtool sends one request of the kernel's ethtool family and returns the
// attributes of its answer.
func (h *Host) ethtool(link string, command uint8, header int, attrs ...nl.NetlinkRequestData) ([]byte, error) {
	family, err := h.ethtoolFamily()
	if err != nil {
		return nil, err
	}
	if err := checkLinkName(link); err != nil {
		return nil, err
	}
	parts := append(message(raw{command, unix.ETHTOOL_GENL_VERSION, 0, 0}),
		nest(header, attr(unix.ETHTOOL_A_HEADER_DEV_NAME, text(link))))
	parts = append(parts, attrs...)
	msgs, err := h.conn.request(unix.NETLINK_GENERIC, family, unix.NLM_F_ACK, family, parts)
	switch {
	case Missing(err):
		return nil, ErrNoLink
	case isUnsupported(err):
		return nil, fmt.Errorf("%w: %w", ErrNotSupported, err)
	case err != nil:
		return nil, err
	case len(msgs) == 0 || len(msgs[0]) < genlHead:
		return nil, nil
	}
	return msgs[0][genlHead:], nil
}

// ethtoolFamily asks for the family's number, once for each Host.
func (h *Host) ethtoolFamily() (uint16, error) {
	h.once.Do(func() { h.family, h.famErr = h.genericFamily(unix.ETHTOOL_GENL_NAME) })
	return h.family, h.famErr
}

// parseBitset reads the verbose form of an ethtool bitset: its names, and
// whether each is set (a list without values names only what is set).
func parseBitset(b []byte) map[string]bool {
	set := map[string]bool{}
	list := false
	walk(b, func(kind int, v []byte) {
		switch kind {
		case unix.ETHTOOL_A_BITSET_NOMASK:
			list = true
		case unix.ETHTOOL_A_BITSET_BITS:
			walk(v, func(_ int, bit []byte) {
				name, on := "", false
				walk(bit, func(kind int, v []byte) {
					switch kind {
					case unix.ETHTOOL_A_BITSET_BIT_NAME:
						name = unix.ByteSliceToString(v)
					case unix.ETHTOOL_A_BITSET_BIT_VALUE:
						on = true
					}
				})
				set[name] = on || list
			})
		}
	})
	return set
}

// encodeBitset asks for the named features to be on or off, and no others to change.
func encodeBitset(names []string, on bool) *nl.RtAttr {
	bits := nl.NewRtAttr(unix.ETHTOOL_A_BITSET_BITS|unix.NLA_F_NESTED, nil)
	for _, n := range names {
		bit := nest(unix.ETHTOOL_A_BITSET_BITS_BIT, attr(unix.ETHTOOL_A_BITSET_BIT_NAME, text(n)))
		if on {
			bit.AddChild(attr(unix.ETHTOOL_A_BITSET_BIT_VALUE, nil))
		}
		bits.AddChild(bit)
	}
	return nest(unix.ETHTOOL_A_FEATURES_WANTED, bits)
}
