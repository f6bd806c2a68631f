package classify

import "strings"

// budget is what the design allows a build; 0 is no word on it.
type budget struct{ millis, megabytes float64 }

// buildBudget is that of a list of so many rules.
func buildBudget(rules int) budget {
	switch {
	case rules <= 1_000:
		return budget{10, 0.3}
	case rules <= 10_000:
		return budget{60, 1.5}
	case rules <= 100_000:
		return budget{300, 6}
	}
	return budget{}
}

// walkBudgets are nanoseconds a header in bursts of 32, and one at a time, by
// family of sets and size.
func walkBudgets() map[string]map[string]float64 {
	return map[string]map[string]float64{
		"burst=32/avx512": {
			"acl1_1k": 8, "acl1_10k": 10, "acl1_100k": 14, "ipc1_1k": 10, "ipc1_10k": 22, "ipc1_100k": 28, "fw1_1k": 14, "fw1_10k": 25, "fw1_100k": 38,
		},
		"burst=32/portable": {
			"acl1_1k": 28, "acl1_10k": 28, "acl1_100k": 24, "ipc1_1k": 35, "ipc1_10k": 45, "ipc1_100k": 50, "fw1_1k": 45, "fw1_10k": 40, "fw1_100k": 60,
		},
		"burst=1/avx512": {
			"acl1_1k": 20, "acl1_10k": 20, "acl1_100k": 22, "ipc1_1k": 28, "ipc1_10k": 42, "ipc1_100k": 36, "fw1_1k": 30, "fw1_10k": 28, "fw1_100k": 42,
		},
	}
}

// walkBudget is that of a case, 0 where the design says nothing of it.
func walkBudget(set string, burst int, walker string) float64 {
	_, kind, _ := strings.Cut(walkCase(set, burst, walker), "/")
	return walkBudgets()[kind][set]
}

// policyBudget is nanoseconds a flow, from its addresses to the verdict.
func policyBudget(ipv6 bool, burst int) float64 {
	switch {
	case ipv6 && burst == 1:
		return 90
	case ipv6:
		return 45
	case burst == 1:
		return 60
	}
	return 30
}
