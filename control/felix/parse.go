package felix

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"margay.dev/margay/api/v3/felix"
)

var duration = reflect.TypeFor[*metav1.Duration]()

// parse reads the text of a variable into a field, in Felix's notation for the
// field's type. unit is of durations that are plain numbers.
func parse(to reflect.Value, text, unit string) error {
	if to.Kind() == reflect.Pointer {
		p := reflect.New(to.Type().Elem())
		if err := parse(p.Elem(), text, unit); err != nil {
			return err
		}
		to.Set(p)
		return nil
	}
	switch v := to.Addr().Interface().(type) {
	case *metav1.Duration:
		return parseDuration(v, text, unit)
	case *[]felix.ProtoPort:
		return parseList(v, text, parseProtoPort)
	case *[]felix.PortRange:
		return parseList(v, text, parsePortRange)
	case *felix.PortRange:
		return parsePortRange(v, text)
	case *[]felix.RouteTableRange:
		return parseList(v, text, parseTables)
	case *felix.RouteTableRange:
		return parseTables(v, text)
	case *[]felix.HealthTimeoutOverride:
		return parseList(v, text, parseOverride)
	case *felix.BPFConntrackTimeouts:
		return parseTimeouts(v, text)
	case *[]string:
		return parseList(v, text, func(s *string, item string) error { *s = item; return nil })
	case *map[string]string:
		return parsePairs(text, func(key, value string) error {
			if *v == nil {
				*v = map[string]string{}
			}
			(*v)[key] = value
			return nil
		})
	}
	return parsePlain(to, text)
}

// parsePlain reads a text, a truth or a number.
func parsePlain(to reflect.Value, text string) error {
	switch to.Kind() {
	case reflect.String:
		to.SetString(text)
	case reflect.Bool:
		switch strings.ToLower(text) {
		case "true", "1", "yes", "y", "t":
			to.SetBool(true)
		case "false", "0", "no", "n", "f":
			to.SetBool(false)
		default:
			return errors.New("want true or false")
		}
	case reflect.Int, reflect.Int64:
		n, err := strconv.ParseInt(text, 0, 64)
		if err != nil || to.OverflowInt(n) {
			return errors.New("want a whole number")
		}
		to.SetInt(n)
	case reflect.Uint32:
		n, err := strconv.ParseUint(text, 0, 32)
		if err != nil {
			return errors.New("want bits as 0xffff0000")
		}
		to.SetUint(n)
	default:
		return fmt.Errorf("nobody has said how a %v is written: say it in a FelixConfiguration", to.Type())
	}
	return nil
}

// parseDuration reads a number of units, or a duration as 1m30s.
func parseDuration(to *metav1.Duration, text, unit string) error {
	if _, err := strconv.ParseFloat(text, 64); err == nil {
		text += unit
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return errors.New("want a number of " + map[string]string{"s": "seconds", "ms": "milliseconds"}[unit] + ", or a duration as 1m30s")
	}
	to.Duration = d
	return nil
}

// parseList reads what stands between commas; nothing, or none, is the empty list.
func parseList[T any](to *[]T, text string, one func(*T, string) error) error {
	*to = []T{}
	if text == "" || strings.EqualFold(text, "none") {
		return nil
	}
	for item := range strings.SplitSeq(text, ",") {
		var v T
		if err := one(&v, strings.TrimSpace(item)); err != nil {
			return err
		}
		*to = append(*to, v)
	}
	return nil
}

// parseProtoPort reads a port: tcp:22, tcp:10.0.0.0/8:22, tcp:[fd00::/8]:22, or 22.
func parseProtoPort(to *felix.ProtoPort, text string) error {
	left, port := "", text
	if i := strings.LastIndexByte(text, ':'); i >= 0 {
		left, port = text[:i], text[i+1:]
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return fmt.Errorf("%.40q is no port, want them as tcp:22, tcp:10.0.0.0/8:22 or tcp:[fd00::/8]:22, with commas between, or none", text)
	}
	var net string
	to.Protocol, net, _ = strings.Cut(left, ":")
	to.Net, to.Port = strings.TrimSuffix(strings.TrimPrefix(net, "["), "]"), uint16(n)
	return nil
}

func parsePortRange(to *felix.PortRange, text string) error {
	if err := to.UnmarshalJSON([]byte(strconv.Quote(text))); err != nil {
		return fmt.Errorf("%.40q is no range of ports, want it as 30000:32767", text)
	}
	return nil
}

// parseTables reads numbers of tables, as 1-250.
func parseTables(to *felix.RouteTableRange, text string) error {
	low, high, _ := strings.Cut(text, "-")
	first, err := strconv.ParseInt(low, 10, 64)
	last, err2 := strconv.ParseInt(high, 10, 64)
	if err != nil || err2 != nil {
		return fmt.Errorf("%.40q is no range of tables, want it as 1-250", text)
	}
	to.Min, to.Max = int(first), int(last)
	return nil
}

// parseOverride reads a part's timeout, as part=5s.
func parseOverride(to *felix.HealthTimeoutOverride, text string) error {
	var d string
	to.Name, d, _ = strings.Cut(text, "=")
	return parseDuration(&to.Timeout, d, "s")
}

// parsePairs reads pairs as a=b,c=d.
func parsePairs(text string, each func(key, value string) error) error {
	if text == "" || strings.EqualFold(text, "none") {
		return nil
	}
	for item := range strings.SplitSeq(text, ",") {
		key, value, ok := strings.Cut(strings.TrimSpace(item), "=")
		if !ok || key == "" {
			return fmt.Errorf("%.40q is no pair, want them as a=b,c=d", item)
		}
		if err := each(key, value); err != nil {
			return err
		}
	}
	return nil
}

// parseTimeouts reads timeouts of connections, as TCPSynSent=20s,UDPTimeout=60s.
func parseTimeouts(to *felix.BPFConntrackTimeouts, text string) error {
	v := reflect.ValueOf(to).Elem()
	return parsePairs(text, func(key, value string) error {
		for i := range v.NumField() {
			if strings.EqualFold(nameOf(v.Type().Field(i)), key) {
				v.Field(i).SetString(value)
				return nil
			}
		}
		return fmt.Errorf("%.40q is no timeout of connections", key)
	})
}
