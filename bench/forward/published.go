package forward

// vpp is the cost in ns of a packet in the whole graph of FD.io VPP
// 26.10-rc0 without its generator: 64 B, one thread of an AMD EPYC (Zen 5),
// buffers in natural layout on 4 KiB pages. The figures were measured by us, at
// another time and on another machine than whatever they stand beside here.
const vpp = "vpp-published"

// published is VPP's figure for a case, 0 if there is none.
func published(c variant) float64 {
	switch {
	case c.ipv6 || c.spread || c.frames != small:
		return 0
	case c.node != "":
		return map[string]float64{"eth-input": 2.2, "ip-input": 3.6, "route": 3.8, "rewrite": 4.4, "tx": 3.9}[c.node]
	case c.routes == 1 && c.dst == thousand:
		return map[int]float64{1: 253, 4: 77.7, 8: 45.6, 16: 30.9, 32: 22.5, 64: 18.6, 128: 17.9, 256: 17.5}[c.vec]
	case c.routes == million && c.vec == 256:
		return map[int]float64{thousand: 23.9, 64 * 1024: 81.3, million: 81.9}[c.dst]
	}
	return 0
}

// loopThen is the cost in ns of the plain loop on the machine that the budgets
// were set on, which is that of VPP's figures.
const loopThen = 14

// share is how much of the plain loop's speed the budget of a case leaves us, on
// whatever machine; 0 where it says nothing. The budget itself holds for one as
// fast as that one.
func share(c variant) float64 {
	if b := budget(c); b != 0 && c.routes == 1 {
		return loopThen / b
	}
	return 0
}

// budget is what the design allows a packet in ns, 0 if it says nothing.
func budget(c variant) float64 {
	switch {
	case c.node != "" || c.spread || c.frames != small:
		return 0
	case c.routes == million && c.dst == million && c.vec == 256 && !c.ipv6:
		return 60
	case c.routes != 1 || c.dst != thousand:
		return 0
	case c.vec == 256 && c.ipv6:
		return 28
	case !c.ipv6:
		return map[int]float64{1: 150, 8: 35, 32: 24, 256: 20}[c.vec]
	}
	return 0
}
