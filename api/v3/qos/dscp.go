package qos

import (
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
)

// DSCP is a differentiated services code point (RFC 2474), by name or by number;
// in JSON a text or a number. The text may be no code point's: validation says so,
// and where it stands.
//
// +kubebuilder:validation:Type=""
// +kubebuilder:validation:XIntOrString
type DSCP struct {
	Name   string `json:"-"` // as AF11; empty: Number says it
	Number uint8  `json:"-"` // 0 to 63
}

// Value is the code point; known is false where the name is none, or the number
// above 63. DF is 0, CSn is 8n (RFC 2474), AFnm is 8n+2m (RFC 2597), EF is 46
// (RFC 3246).
func (d DSCP) Value() (value uint8, known bool) {
	n := d.Name
	switch {
	case n == "":
		return d.Number, d.Number < 64
	case n == "DF":
		return 0, true
	case n == "EF":
		return 46, true
	case len(n) == 3 && n[:2] == "CS" && n[2] >= '0' && n[2] <= '7':
		return 8 * (n[2] - '0'), true
	case len(n) == 4 && n[:2] == "AF" && n[2] >= '1' && n[2] <= '4' && n[3] >= '1' && n[3] <= '3':
		return 8*(n[2]-'0') + 2*(n[3]-'0'), true
	}
	return 0, false
}

// String is the name, or the number.
func (d DSCP) String() string {
	if d.Name != "" {
		return d.Name
	}
	return strconv.Itoa(int(d.Number))
}

// MarshalJSON writes a text or a number.
func (d DSCP) MarshalJSON() ([]byte, error) {
	if d.Name != "" {
		return json.Marshal(d.Name)
	}
	return json.Marshal(d.Number)
}

// UnmarshalJSON reads a text or a number; a text of digits is a number.
func (d *DSCP) UnmarshalJSON(b []byte) error {
	text := string(b)
	if strings.HasPrefix(text, `"`) {
		if err := json.Unmarshal(b, &text); err != nil {
			return err
		}
	}
	n, err := strconv.ParseUint(text, 10, 8)
	switch {
	case err == nil:
		*d = DSCP{Number: uint8(n)}
	case b[0] == '"' && text != "":
		*d = DSCP{Name: text}
	default:
		return &json.UnmarshalTypeError{Value: "what is no code point", Type: reflect.TypeFor[DSCP]()}
	}
	return nil
}
