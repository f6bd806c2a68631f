package v3

import (
	"encoding/json"
	"errors"
	"fmt"
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

// Protocol is an IP protocol, by name or by number; in JSON a text or a number.
// What is read may be neither, and then it is a Name that no protocol has, so that
// validation can say where it stands.
//
// +kubebuilder:validation:Type=""
// +kubebuilder:validation:XIntOrString
// +kubebuilder:validation:XValidation:rule="type(self) == int ? self >= 1 && self <= 255 : self in ['TCP', 'UDP', 'ICMP', 'ICMPv6', 'SCTP', 'UDPLite']",message="want TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite, or a number from 1 to 255"
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
	text, err := scalar(b)
	if err != nil {
		return fmt.Errorf("read protocol: %w", err)
	}
	*p = Protocol{Name: text}
	if n, err := strconv.ParseUint(text, 10, 8); err == nil {
		*p = Protocol{Number: uint8(n)}
	}
	return nil
}

// scalar is the text of a JSON string or number.
func scalar(b []byte) (string, error) {
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		return "", err
	}
	switch v := v.(type) {
	case string:
		if v == "" {
			return "", errors.New("it is an empty text: say which is meant, or leave the field out")
		}
		return v, nil
	case float64:
		return string(b), nil
	}
	return "", fmt.Errorf("want a text or a number, got %.40s", b)
}
