package render

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Count is a number in at most five letters: 999, 1.2k, 45.0M, 3.4G.
func Count(n uint64) string {
	if n < 1000 {
		return strconv.FormatUint(n, 10)
	}
	return scaled(float64(n), 1000, []string{"k", "M", "G", "T", "P", "E"})
}

// Bytes is a size in binary units: 512 B, 1.5 KiB, 3.4 GiB.
func Bytes(n uint64) string {
	if n < 1024 {
		return strconv.FormatUint(n, 10) + " B"
	}
	return scaled(float64(n), 1024, []string{" KiB", " MiB", " GiB", " TiB", " PiB", " EiB"})
}

// scaled divides v until it is below base and appends the unit it then has.
// What rounding would print as the base itself goes on to the next unit.
func scaled(v, base float64, units []string) string {
	last := len(units) - 1
	for i, unit := range units {
		v /= base
		if v < base-0.05 || i == last {
			return fmt.Sprintf("%.1f%s", v, unit)
		}
	}
	return ""
}

// Nanoseconds is a time per packet: 14.3 ns, 1.2 µs. Empty if it was never measured (0).
func Nanoseconds(ns float64) string {
	switch {
	case ns <= 0:
		return ""
	case ns < 999.95:
		return fmt.Sprintf("%.1f ns", ns)
	case ns < 999.95e3:
		return fmt.Sprintf("%.1f µs", ns/1e3)
	}
	return fmt.Sprintf("%.1f ms", ns/1e6)
}

// Percent is a share of one with one decimal: 12.5%.
func Percent(share float64) string { return fmt.Sprintf("%.1f%%", share*100) }

// Duration is a time in its two greatest units: 3d 4h, 5m 10s, 42s.
func Duration(d time.Duration) string {
	units := []struct {
		name string
		len  time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}}
	for i, u := range units {
		if d < u.len && i < len(units)-1 {
			continue
		}
		out := fmt.Sprintf("%d%s", d/u.len, u.name)
		if i < len(units)-1 {
			next := units[i+1]
			out += fmt.Sprintf(" %d%s", d%u.len/next.len, next.name)
		}
		return out
	}
	return ""
}

// Plural is a number of things: "1 route", "2 routes".
func Plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strings.Join([]string{strconv.Itoa(n), what + "s"}, " ")
}
