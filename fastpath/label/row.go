package label

// row is a prefix that joined at least one set, in the list of its family.
type row struct {
	key
	ownBits uint32 // the sets that it joined itself (an id of Table.owns); its length in the upper 8 bits
	classUp uint32 // its class; the length of the next shorter prefix that covers it in the upper 8 bits
}

const (
	lengthShift = 24
	idMask      = 1<<lengthShift - 1
	noCover     = 255 // for row.up
)

func (r *row) own() uint32   { return r.ownBits & idMask }
func (r *row) bits() uint8   { return uint8(r.ownBits >> lengthShift) }
func (r *row) class() uint32 { return r.classUp & idMask }
func (r *row) up() uint8     { return uint8(r.classUp >> lengthShift) }

func (r *row) setOwn(id uint32)      { r.ownBits = r.ownBits&^idMask | id }
func (r *row) setClass(class uint32) { r.classUp = r.classUp&^idMask | class }
func (r *row) setUp(bits uint8)      { r.classUp = r.classUp&idMask | uint32(bits)<<lengthShift }

func compareRows(a, b row) int {
	if c := a.key.compare(b.key); c != 0 {
		return c
	}
	return int(a.bits()) - int(b.bits())
}

// rows are the prefixes of one family.
type rows struct{ sorted[row] }

func (rs *rows) spot(k key, bits uint8) (spot, bool) {
	return rs.find(row{key: k, ownBits: uint32(bits) << lengthShift})
}

func (rs *rows) get(k key, bits uint8) *row {
	s, ok := rs.spot(k, bits)
	if !ok {
		return nil
	}
	return rs.at(s)
}

// cover returns the longest prefix that covers r and is shorter, nil for none.
func (rs *rows) cover(r *row) *row {
	if r.up() == noCover {
		return nil
	}
	return rs.get(r.masked(r.up()), r.up())
}

// add puts a prefix where spot said that it belongs, without sets of its own and
// therefore in the class of what covers it.
func (rs *rows) add(s spot, k key, bits uint8) *row {
	// What is before it is what covers it, or lies below that as well.
	c := rs.before(s)
	for c != nil && !k.under(c.key, c.bits()) {
		c = rs.cover(c)
	}
	r := row{key: k, ownBits: uint32(bits) << lengthShift, classUp: noCover << lengthShift}
	if c != nil {
		r.classUp = uint32(c.bits())<<lengthShift | c.class()
	}
	rs.insert(s, r)
	rs.adopt(k, bits, r.up(), bits)
	return rs.get(k, bits)
}

// drop takes a prefix away.
func (rs *rows) drop(k key, bits uint8) {
	s, _ := rs.spot(k, bits)
	rs.adopt(k, bits, bits, rs.at(s).up())
	rs.remove(s)
}

// adopt gives the rows below k that have the cover `from` the cover `to`.
func (rs *rows) adopt(k key, bits, from, to uint8) {
	s, _ := rs.spot(k, bits)
	for s = rs.next(s); ; s = rs.next(s) {
		r := rs.at(s)
		if r == nil || !r.under(k, bits) {
			return
		}
		if r.up() == from {
			r.setUp(to)
		}
	}
}
