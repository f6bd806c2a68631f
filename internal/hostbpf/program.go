// Package hostbpf looks at the eBPF programs of the host that are not ours to
// load. It changes nothing.
package hostbpf

import (
	"fmt"

	"github.com/cilium/ebpf"
)

// A Program is what the kernel tells of one loaded program.
type Program struct {
	ID   uint32
	Name string // up to 15 bytes; empty if its loader gave none
	Type string // "XDP", ...
}

// Lookup reads the program with an id, as IFLA_XDP or bpftool tell it. It needs
// CAP_SYS_ADMIN, or CAP_BPF on newer kernels.
func Lookup(id uint32) (Program, error) {
	p, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
	if err != nil {
		return Program{}, fmt.Errorf("read eBPF program %d: %w", id, err)
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return Program{}, fmt.Errorf("read eBPF program %d: %w", id, err)
	}
	return Program{ID: id, Name: info.Name, Type: info.Type.String()}, nil
}
