//go:build linux

package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"margay.dev/margay/internal/hostnet"
)

const (
	valueOn      = "on"
	valueOff     = "off"
	valuePresent = "present"
	linkMade     = "made"
)

// site is a namespace in which journalled settings are read and written.
type site struct {
	ns     *hostnet.Namespace
	host   *hostnet.Host
	place  Place
	routes []hostnet.Route // read once for many entries; nil when out of date
}

func (j *Journal) openSite(ns *hostnet.Namespace) (*site, error) {
	id, err := ns.Identity()
	if err != nil {
		return nil, err
	}
	h, err := hostnet.NewHost(ns)
	if err != nil {
		return nil, err
	}
	return &site{ns: ns, host: h, place: Place{Path: ns.Path(), Boot: j.boot, Identity: id}}, nil
}

func (s *site) close() { s.host.Close() }

// read tells a setting's value in force. An error for which hostnet.Missing holds says
// that what the setting was of is gone.
func (s *site) read(e Entry) (string, error) {
	if e.Kind == KindLink {
		return s.readLink(e)
	}
	link, err := s.linkName(e)
	if err != nil {
		return "", err
	}
	switch e.Kind {
	case KindSysctl:
		value, err := s.ns.Sysctl(e.sysctl(link))
		return canonicalSysctl(e.Name, value), err
	case KindSysfs:
		return s.ns.Sysfs(link, e.Name)
	case KindOffload:
		all, err := s.host.Features(link)
		return onOff(all[e.Name].Wanted), err
	case KindPromiscuous:
		l, err := s.host.Link(link)
		return onOff(l.Promiscuous), err
	case KindRoute:
		return s.readRoute(e)
	case KindAddress:
		return s.readAddress(link, e.Name)
	}
	return "", fmt.Errorf("journal entry is of the unknown kind %q", e.Kind)
}

// write puts a value in force in place of now.
func (s *site) write(e Entry, now, value string) error {
	link, err := s.linkName(e)
	if err != nil {
		return err
	}
	switch e.Kind {
	case KindSysctl:
		return s.ns.SetSysctl(e.sysctl(link), value)
	case KindSysfs:
		return s.ns.SetSysfs(link, e.Name, value)
	case KindOffload:
		return s.host.SetFeatures(link, []string{e.Name}, value == valueOn)
	case KindPromiscuous:
		return s.host.SetPromiscuous(link, value == valueOn)
	case KindRoute:
		return s.writeRoute(now, value)
	case KindAddress:
		p, err := netip.ParsePrefix(e.Name)
		if err != nil {
			return err
		}
		return s.host.DeleteAddress(link, p) // an address is put back by taking it away: what was there is not ours
	case KindLink:
		return s.host.DeleteLink(e.Link) // likewise
	}
	return fmt.Errorf("journal entry is of the unknown kind %q", e.Kind)
}

// linkName finds the link of an entry by its index, for it may have another
// name by now, and another link its name.
func (s *site) linkName(e Entry) (string, error) {
	if e.LinkIndex == 0 {
		return e.Link, nil
	}
	l, err := s.host.LinkByIndex(e.LinkIndex)
	return l.Name, err
}

// sysctl is the key of an entry, with the name that its link has now.
func (e Entry) sysctl(link string) string {
	if e.LinkIndex == 0 {
		return e.Name
	}
	parts := strings.Split(e.Name, "/")
	parts[3] = link
	return strings.Join(parts, "/")
}

func (s *site) readLink(e Entry) (string, error) {
	l, err := s.host.Link(e.Link)
	if errors.Is(err, hostnet.ErrNoLink) || err == nil && l.Kind != e.Name {
		return "", nil
	}
	return strconv.Itoa(l.Index), err
}

func (s *site) readAddress(link, prefix string) (string, error) {
	addresses, err := s.host.Addresses(link)
	for _, a := range addresses {
		if a.Prefix.String() == prefix {
			return valuePresent, nil
		}
	}
	return "", err
}

// routeName is the place of a route in the tables, which only one can take.
func routeName(r hostnet.Route) string {
	return fmt.Sprintf("%v metric %d table %d", r.Dst, r.Metric, r.Table)
}

func encodeRoute(r hostnet.Route) (string, error) {
	b, err := json.Marshal(r)
	return string(b), err
}

func (s *site) readRoute(e Entry) (value string, err error) {
	if s.routes == nil {
		if s.routes, err = s.host.Routes(hostnet.RouteFilter{}); err != nil {
			return "", err
		}
	}
	for _, r := range s.routes {
		if routeName(r) == e.Name {
			return encodeRoute(r)
		}
	}
	return "", nil
}

func (s *site) writeRoute(now, value string) error {
	var r hostnet.Route
	if value == "" {
		if err := json.Unmarshal([]byte(now), &r); err != nil {
			return fmt.Errorf("journal entry holds no route: %w", err)
		}
		return s.host.DeleteRoute(r)
	}
	if err := json.Unmarshal([]byte(value), &r); err != nil {
		return fmt.Errorf("journal entry holds no route: %w", err)
	}
	return s.host.ReplaceRoute(r)
}

func onOff(on bool) string {
	if on {
		return valueOn
	}
	return valueOff
}
