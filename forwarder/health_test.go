package forwarder

import (
	"testing"

	"margay.dev/margay/forwarder/desired"
	"margay.dev/margay/forwarder/plane"
	"margay.dev/margay/internal/doctor"
	"margay.dev/margay/internal/hostnet"
)

func TestTheDoctorIsToldWhatIsExpectedOfADevice(t *testing.T) {
	got := expected(plane.PortState{
		Name: "uplink", Kind: "xsk", Device: "eth1", NetNS: "/run/netns/n", Queues: 4, MAC: desired.MAC{2, 0, 0, 0, 0, 1}, Program: 7,
	})
	want := doctor.DeviceSpec{Name: "eth1", Namespace: "/run/netns/n", Sockets: 4, MAC: hostnet.MAC{2, 0, 0, 0, 0, 1}, Program: 7}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
