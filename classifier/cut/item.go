package cut

// The fields of a key, in the order in which items have them.
const (
	Source = iota
	Destination
	SourcePort
	DestinationPort
	Protocol
	NumFields
)

// Field says where a field lies in a key: the word, the lowest bit of it, and
// how many bits it has.
type Field struct {
	Word, Offset uint
	Bits         int
}

// FieldOf is the place of a field.
func FieldOf(field int) Field {
	return [NumFields]Field{{1, 0, 32}, {0, 0, 32}, {1, 33, 16}, {0, 33, 16}, {1, 50, 8}}[field]
}

// Item is what a forest is made of: a range in each field, both ends included,
// and the rank of the rule that it is (part of).
type Item struct {
	Lo, Hi [NumFields]uint32
	Rank   uint32
}

// significant are the bits of a field that decide whether a value is in [lo, hi]:
// the leading ones of a prefix, all of any other range.
func significant(lo, hi uint32) uint32 {
	if x := lo ^ hi; x&(x+1) == 0 && lo&x == 0 {
		return ^x
	}
	return 1<<32 - 1
}
