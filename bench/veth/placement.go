package veth

import (
	"fmt"

	"golang.org/x/sys/unix"

	"margay.dev/margay/internal/lab/xdpgen"
)

// placement is the CPUs of one run: for each queue that of its Source and that of
// its worker.
type placement struct {
	generators []int
	workers    []int
}

// allowed are the CPUs that this process may use.
func allowed() (cpus []int, err error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("ask which CPUs may be used: %w", err)
	}
	for cpu := range len(set) * 64 {
		if set.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	return cpus, nil
}

// place gives each queue the first CPU for its Source whose frames come in there,
// then the workers the first CPUs that are left. So they fill the first 2N CPUs, and
// where two neighbours share a core, cores are as full for any number of workers.
func place(cpus []int, workers int) (placement, error) {
	if len(cpus) < 2*workers {
		return placement{}, fmt.Errorf("this needs %d CPUs, for each worker one and one for its generator: here are %d", 2*workers, len(cpus))
	}
	p := placement{generators: make([]int, workers)}
	taken, fed := map[int]bool{}, map[int]bool{}
	for _, cpu := range cpus {
		if q := xdpgen.Queue(cpu, workers); !fed[q] {
			fed[q], taken[cpu] = true, true
			p.generators[q] = cpu
		}
	}
	if len(fed) < workers {
		return placement{}, fmt.Errorf("of %d queues the CPUs %v feed only %d: a veth puts what a CPU sends into queue CPU modulo %d", workers, cpus, len(fed), workers)
	}
	for _, cpu := range cpus {
		if !taken[cpu] && len(p.workers) < workers {
			p.workers = append(p.workers, cpu)
		}
	}
	return p, nil
}
