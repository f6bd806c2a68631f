package fabric

import (
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
)

// ASNumber is the number of an autonomous system (RFC 6793). In JSON it is a
// number, or a text: digits, or "high.low" of 16 bits each (RFC 5396), in quotes,
// since YAML takes 1.10 for 1.1; it is written as a number.
//
// +kubebuilder:validation:Type=""
// +kubebuilder:validation:XIntOrString
// +kubebuilder:validation:Pattern=`^[0-9]{1,10}([.][0-9]{1,5})?$`
type ASNumber uint32

// UnmarshalJSON reads a number or a text.
func (a *ASNumber) UnmarshalJSON(b []byte) error {
	text := string(b)
	quoted := strings.HasPrefix(text, `"`)
	if quoted {
		if err := json.Unmarshal(b, &text); err != nil {
			return err
		}
	}
	n, ok := parseAS(text)
	if !ok || !quoted && strings.Contains(text, ".") {
		return &json.UnmarshalTypeError{Value: cut(text), Type: reflect.TypeFor[ASNumber]()}
	}
	*a = ASNumber(n)
	return nil
}

// parseAS reads digits, or digits of 16 bits on either side of a dot.
func parseAS(text string) (n uint64, ok bool) {
	high, low, dotted := strings.Cut(text, ".")
	if !dotted {
		n, err := strconv.ParseUint(text, 10, 32)
		return n, err == nil
	}
	h, err := strconv.ParseUint(high, 10, 16)
	l, err2 := strconv.ParseUint(low, 10, 16)
	return h<<16 | l, err == nil && err2 == nil
}

// cut shortens what someone wrote to what fits a message.
func cut(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}
