//go:build linux

package journal

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

const reservedPorts = "net/ipv4/ip_local_reserved_ports"

// sysctlLink is the name of the link that a key is about, empty for the rest.
func sysctlLink(file string) string {
	s := strings.Split(file, "/")
	if len(s) < 5 || s[0] != "net" || (s[1] != "ipv4" && s[1] != "ipv6") || (s[2] != "conf" && s[2] != "neigh") {
		return ""
	}
	if s[3] == "all" || s[3] == "default" {
		return ""
	}
	return s[3]
}

// canonicalSysctl writes a value as the kernel will tell it, where it is known
// to rephrase: port lists are sorted and joined.
func canonicalSysctl(file, value string) string {
	value = strings.Join(strings.Fields(value), " ")
	if file != reservedPorts {
		return value
	}
	var ports [1 << 16]bool
	for _, item := range strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' }) {
		from, to, ranged := strings.Cut(item, "-")
		if !ranged {
			to = from
		}
		a, errA := strconv.ParseUint(from, 10, 16)
		b, errB := strconv.ParseUint(to, 10, 16)
		if errA != nil || errB != nil {
			return value // not for us to mend: the kernel refuses it
		}
		for p := a; p <= b; p++ {
			ports[p] = true
		}
	}
	return portList(ports[:])
}

func portList(ports []bool) string {
	var out []string
	for p := 0; p < len(ports); p++ {
		if !ports[p] {
			continue
		}
		end := len(ports) - 1
		if i := slices.Index(ports[p:], false); i >= 0 {
			end = p + i - 1
		}
		if end == p {
			out = append(out, strconv.Itoa(p))
		} else {
			out = append(out, fmt.Sprintf("%d-%d", p, end))
		}
		p = end
	}
	return strings.Join(out, ",")
}
