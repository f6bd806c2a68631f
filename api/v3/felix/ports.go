package felix

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
)

// PortRange is ports from First to Last, both included; in JSON a number, or
// "first:last".
//
// +kubebuilder:validation:Type=""
// +kubebuilder:validation:XIntOrString
// +kubebuilder:validation:Pattern=`^[0-9]{1,5}(:[0-9]{1,5})?$`
type PortRange struct {
	First, Last uint16 `json:"-"`
}

// MarshalJSON writes a number or a text.
func (r PortRange) MarshalJSON() ([]byte, error) {
	if r.First == r.Last {
		return json.Marshal(r.First)
	}
	return json.Marshal(fmt.Sprintf("%d:%d", r.First, r.Last))
}

// UnmarshalJSON reads a number or a text; a range whose end lies before its begin
// is refused.
func (r *PortRange) UnmarshalJSON(b []byte) error {
	text := string(b)
	if strings.HasPrefix(text, `"`) {
		if err := json.Unmarshal(b, &text); err != nil {
			return err
		}
	}
	low, high, ranged := strings.Cut(text, ":")
	if !ranged {
		high = low
	}
	first, err := strconv.ParseUint(low, 10, 16)
	last, err2 := strconv.ParseUint(high, 10, 16)
	if err != nil || err2 != nil || first > last {
		return &json.UnmarshalTypeError{Value: cut(text), Type: reflect.TypeFor[PortRange]()}
	}
	*r = PortRange{First: uint16(first), Last: uint16(last)}
	return nil
}

// ProtoPort is a port that a host's policy never closes.
type ProtoPort struct {
	// Protocol is tcp, udp or sctp, in any case; left out it is tcp.
	// +optional
	Protocol string `json:"protocol,omitempty"`

	// Port is 0 to 65535.
	Port uint16 `json:"port"`

	// Net narrows it to one end's addresses, as CIDR; empty: all.
	// +optional
	Net string `json:"net,omitempty"`
}

// cut shortens what someone wrote to what fits a message.
func cut(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}
