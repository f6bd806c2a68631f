package cut

// Span is a range of values of a field, both ends included.
type Span struct{ Lo, Hi uint32 }

// Complement is what ascending spans that do not overlap leave out of the values up to most.
func Complement(spans []Span, most uint32) (out []Span) {
	next := uint32(0)
	for _, s := range spans {
		if s.Lo > next {
			out = append(out, Span{next, s.Lo - 1})
		}
		if s.Hi >= most {
			return out
		}
		next = s.Hi + 1
	}
	return append(out, Span{next, most})
}

// Intersect is what two lists of ascending spans have in common.
func Intersect(a, b []Span) (out []Span) {
	for len(a) > 0 && len(b) > 0 {
		if lo, hi := max(a[0].Lo, b[0].Lo), min(a[0].Hi, b[0].Hi); lo <= hi {
			out = append(out, Span{lo, hi})
		}
		if a[0].Hi < b[0].Hi {
			a = a[1:]
		} else {
			b = b[1:]
		}
	}
	return out
}
