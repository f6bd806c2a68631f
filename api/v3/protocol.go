package v3

import (
	"encoding/json"
	"reflect"
	"strconv"
)

// Names of protocols that rules may say.
const (
	TCP     = "TCP"
	UDP     = "UDP"
	ICMP    = "ICMP"
	ICMPv6  = "ICMPv6"
	SCTP    = "SCTP"
	UDPLite = "UDPLite"
)

// Protocol is an IP protocol, by name or by number; in JSON a text or a number. The
// text may be no protocol's: validation says so, and where it stands.
//
// +kubebuilder:validation:Type=""
// +kubebuilder:validation:XIntOrString
// +kubebuilder:validation:Pattern=`^(TCP|UDP|ICMP|ICMPv6|SCTP|UDPLite|[0-9]{1,3})$`
type Protocol struct {
	Name   string `json:"-"` // as TCP; empty: Number says it
	Number uint8  `json:"-"`
}

// ProtocolNamed is a protocol by name, one of the constants above.
func ProtocolNamed(name string) Protocol { return Protocol{Name: name} }

// ProtocolNumbered is a protocol by number.
func ProtocolNumbered(number uint8) Protocol { return Protocol{Number: number} }

// IP is the protocol's number in an IP header; known is false where the name is
// none that rules may say.
func (p Protocol) IP() (number uint8, known bool) {
	switch p.Name {
	case "":
		return p.Number, true
	case TCP:
		return 6, true
	case UDP:
		return 17, true
	case ICMP:
		return 1, true
	case ICMPv6:
		return 58, true
	case SCTP:
		return 132, true
	case UDPLite:
		return 136, true
	}
	return 0, false
}

// HasPorts reports whether rules may name numbers of ports with the protocol: TCP,
// UDP and SCTP.
func (p Protocol) HasPorts() bool {
	n, _ := p.IP()
	return n == 6 || n == 17 || n == 132
}

// String is the name, or the number.
func (p Protocol) String() string {
	if p.Name != "" {
		return p.Name
	}
	return strconv.Itoa(int(p.Number))
}

// MarshalJSON writes a text or a number.
func (p Protocol) MarshalJSON() ([]byte, error) {
	if p.Name != "" {
		return json.Marshal(p.Name)
	}
	return json.Marshal(p.Number)
}

// UnmarshalJSON reads a text or a number; a text of digits is a number.
func (p *Protocol) UnmarshalJSON(b []byte) error {
	text, n, err := textOrNumber(b, 8, reflect.TypeFor[Protocol]())
	if err == nil {
		*p = Protocol{Name: text, Number: uint8(n)}
	}
	return err
}

// textOrNumber reads a JSON string or a whole number of some bits; a string of
// digits is such a number, if it has no more bits. What is neither, or empty, is an
// error to which the decoder adds the field.
func textOrNumber(b []byte, bits int, into reflect.Type) (text string, n uint64, err error) {
	fault := func(value string) error { return &json.UnmarshalTypeError{Value: value, Type: into} }
	if len(b) == 0 || b[0] != '"' {
		n, err := strconv.ParseUint(string(b), 10, bits)
		if err != nil {
			return "", 0, fault(cut(string(b)))
		}
		return "", n, nil
	}
	if err := json.Unmarshal(b, &text); err != nil {
		return "", 0, err
	}
	if text == "" {
		return "", 0, fault("an empty text")
	}
	if n, err := strconv.ParseUint(text, 10, bits); err == nil {
		return "", n, nil
	}
	return text, 0, nil
}
