package hostbpf

import (
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

func TestLookup(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: loads a program (CAP_BPF)")
	}
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "looked_up", Type: ebpf.XDP, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	info, err := p.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := info.ID()
	got, err := Lookup(uint32(id))
	if err != nil {
		t.Fatal(err)
	}
	if want := (Program{ID: uint32(id), Name: "looked_up", Type: "XDP"}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	p.Close()
	if _, err := Lookup(uint32(id)); err == nil {
		t.Error("a program that is gone was found")
	}
}
