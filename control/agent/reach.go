package agent

import (
	"net/netip"
	"net/url"
	"strconv"

	"margay.dev/margay/dataplane/nft"
	"margay.dev/margay/datastore/connect"
)

// storeDoors are the doors by which a store of other machines is reached, or one of
// this machine by its address; a name stands for any address. A folder, and an etcd at
// a Unix socket, need none.
func storeDoors(c connect.Config) (doors []nft.Failsafe) {
	if c.Etcd == nil {
		return nil
	}
	for _, text := range c.Etcd.Endpoints {
		u, err := url.Parse(text)
		if err != nil {
			continue // Validate has seen it
		}
		port, err := strconv.ParseUint(u.Port(), 10, 16)
		if err != nil {
			continue
		}
		door := nft.Failsafe{Protocol: 6, Port: uint16(port)}
		if a, err := netip.ParseAddr(u.Hostname()); err == nil {
			a = a.Unmap().WithZone("")
			door.Net = netip.PrefixFrom(a, a.BitLen())
		}
		doors = append(doors, door)
	}
	return doors
}
