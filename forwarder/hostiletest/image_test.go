package hostiletest

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"net/netip"
	"slices"
	"strings"
	"testing"

	v1 "margay.dev/margay/api/dataplane/v1"
	"margay.dev/margay/classifier"
	"margay.dev/margay/control/dataplane"
	"margay.dev/margay/forwarder/plane"
)

// imageThatAllows is a compiled list that lets UDP to a port in from members of set
// 1, after rules enough that there are tables to break.
func imageThatAllows(t *testing.T, port uint16) []byte {
	t.Helper()
	rules := []classifier.Rule{}
	for i := range uint16(24) {
		rules = append(rules, classifier.Rule{ID: uint32(1 + i), Action: classifier.Deny, Source: classifier.Side{Ports: []classifier.Range{{First: 10 * i, Last: 10*i + 3}}}})
	}
	rules = append(rules, classifier.Rule{ID: 99, Action: classifier.Allow, Protocols: []classifier.Range{{First: 17, Last: 17}},
		Source:      classifier.Side{Sets: []classifier.SetID{1}},
		Destination: classifier.Side{Ports: []classifier.Range{{First: port, Last: port}}}})
	c, err := classifier.Compile(rules, classifier.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c.Image
}

// policed puts a program in force for pod 1's ingress in place of another.
func (w *world) policed(id, before uint32, image []byte) error {
	e := w.endpoints[keyOf(1)]
	e = &v1.Endpoint{Id: e.Id, Port: e.Port, Addresses: e.Addresses, Policy: v1.Endpoint_POLICY_ENFORCED,
		Ingress: []*v1.Stage{{Program4: id, Program6: id, Name: "default"}}}
	d := dataplane.Delta{Set: dataplane.State{Endpoints: []*v1.Endpoint{e}, Programs: []dataplane.Program{{ID: id, Image: image}}}}
	if before != 0 {
		d.RemovedPrograms = []uint32{before}
	} else {
		d.Set.Sets = []dataplane.Set{{ID: 1, Members: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8:ffff::/64")}}}
	}
	return w.send(d)
}

// TestImagesBrokenByteByByte come over the contract in place of the one in force:
// each is refused with a fault that names it, nothing of its commit is put in
// force, and packets fare as before.
func TestImagesBrokenByteByByte(t *testing.T) {
	w := raise(t, 1, plane.Config{})
	const good, bad = 1, 2
	if err := w.policed(good, 0, imageThatAllows(t, 53)); err != nil {
		t.Fatal(err)
	}
	image := imageThatAllows(t, 54)
	generation, step := w.Generation(), 1
	if testing.Short() {
		step = 7
	}
	check := func(what string, port uint16) {
		t.Helper()
		for _, six := range families {
			for p := uint16(53); p <= 54; p++ {
				if got := w.passes(uplink, outsider(six), 1, p); got != (p == port) {
					t.Errorf("%s: a packet from %v to port %d passes: %v", what, outsider(six), p, got)
				}
			}
		}
	}
	refused := func(what string, at int, broken []byte) {
		t.Helper()
		faults := refusal(w.policed(bad, good, broken))
		if !slices.ContainsFunc(faults, func(f string) bool { return strings.Contains(f, "program/2: load image") }) {
			t.Fatalf("byte %d %s: faults are %v", at, what, faults)
		}
		if w.Generation() != generation {
			t.Fatalf("byte %d %s: generation %d is in force, want still %d", at, what, w.Generation(), generation)
		}
	}
	for i := 0; i < len(image); i += step {
		for _, flip := range []byte{1, 0x80} {
			broken := bytes.Clone(image)
			broken[i] ^= flip
			refused("flipped", i, broken)
		}
		if i > 0 {
			refused("is where it ends", i, image[:i])
		}
		if i%202 == 0 {
			check("after broken images", 53)
		}
	}
	if err := w.policed(bad, good, image); err != nil {
		t.Fatalf("the image that is whole: %v", err)
	}
	check("after the image that is whole", 54)
}

// TestImagesForgedByteByByte have their checksum made right: each is refused, or put
// in force and walked by packets of both families, of which none is lost count of.
func TestImagesForgedByteByByte(t *testing.T) {
	w := raise(t, 1, plane.Config{})
	image := imageThatAllows(t, 54)
	step, walked, refused := 3, 0, 0
	if testing.Short() {
		step = 23
	}
	last := uint32(0) // that is in force
	for i := 0; i < len(image); i += step {
		for _, flip := range []byte{1, 0x80} {
			forged := bytes.Clone(image)
			forged[i] ^= flip
			seal(forged)
			err := w.policed(last+1, last, forged)
			if faults := refusal(err); faults != nil {
				refused++
				continue
			}
			if err != nil {
				t.Fatalf("byte %d: %v", i, err)
			}
			last++
			walked++
			for _, six := range families {
				w.passes(uplink, outsider(six), 1, uint16(i))
				w.passes(uplink, outsider(six), 1, 54)
			}
		}
	}
	if refused == 0 || walked == 0 {
		t.Errorf("%d refused and %d walked: one of the two was never seen", refused, walked)
	}
	if err := w.policed(last+1, last, image); err != nil {
		t.Fatal(err)
	}
	for _, six := range families {
		if !w.passes(uplink, outsider(six), 1, 54) || w.passes(uplink, outsider(six), 1, 53) {
			t.Errorf("after all of them the image that is whole is not in force for %v", outsider(six))
		}
	}
}

// seal makes an image's checksum right (docs/CLASSIFIER.md): of all but itself.
func seal(image []byte) {
	const at = 24
	table := crc32.MakeTable(crc32.Castagnoli)
	binary.LittleEndian.PutUint32(image[at:], crc32.Update(crc32.Checksum(image[:at], table), table, image[at+4:]))
}
