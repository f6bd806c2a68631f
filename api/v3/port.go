package v3

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
)

// Port is a range of ports, or a name that endpoints give to ports of theirs; in
// JSON a number, "first:last", or a name. A text that is none of these is a
// PortName that nobody may give: validation says so, and where it stands.
//
// +kubebuilder:validation:Type=""
// +kubebuilder:validation:XIntOrString
// +kubebuilder:validation:Pattern=`^([A-Za-z0-9_.-]{1,128}|[0-9]{1,5}:[0-9]{1,5})$`
type Port struct {
	MinPort, MaxPort uint16 `json:"-"` // both included
	PortName         string `json:"-"` // empty: the range says it
}

// SinglePort is one port.
func SinglePort(port uint16) Port { return Port{MinPort: port, MaxPort: port} }

// PortRange is the ports from first to last, both included.
func PortRange(first, last uint16) Port { return Port{MinPort: first, MaxPort: last} }

// NamedPort is the ports that endpoints give the name to.
func NamedPort(name string) Port { return Port{PortName: name} }

// String is a number, "first:last", or the name.
func (p Port) String() string {
	switch {
	case p.PortName != "":
		return p.PortName
	case p.MinPort == p.MaxPort:
		return strconv.Itoa(int(p.MinPort))
	}
	return fmt.Sprintf("%d:%d", p.MinPort, p.MaxPort)
}

// MarshalJSON writes a number or a text.
func (p Port) MarshalJSON() ([]byte, error) {
	if p.PortName == "" && p.MinPort == p.MaxPort {
		return json.Marshal(p.MinPort)
	}
	return json.Marshal(p.String())
}

// UnmarshalJSON reads a number or a text; a text of digits is a number.
func (p *Port) UnmarshalJSON(b []byte) error {
	text, n, err := textOrNumber(b, 16, reflect.TypeFor[Port]())
	if err != nil {
		return err
	}
	*p = Port{MinPort: uint16(n), MaxPort: uint16(n), PortName: text}
	low, high, _ := strings.Cut(text, ":")
	first, err1 := strconv.ParseUint(low, 10, 16)
	last, err2 := strconv.ParseUint(high, 10, 16)
	if err1 == nil && err2 == nil && first <= last {
		*p = PortRange(uint16(first), uint16(last))
	}
	return nil
}
