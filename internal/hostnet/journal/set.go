//go:build linux

package journal

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"margay.dev/margay/internal/hostnet"
)

// changes works out, at the site, what a call is to change.
type changes func(*site) ([]change, error)

// SetSysctl sets a sysctl of the namespace (keys as for Namespace.Sysctl) until exit.
func (j *Journal) SetSysctl(ns *hostnet.Namespace, key, value string) error {
	return j.apply(ns, sysctlChange(key, value))
}

func sysctlChange(key, value string) changes {
	return func(s *site) ([]change, error) {
		file, err := hostnet.SysctlPath(key)
		if err != nil {
			return nil, fmt.Errorf("set sysctl: %w", err)
		}
		list := []change{{Entry{Kind: KindSysctl, Name: file}, canonicalSysctl(file, value)}}
		if name := sysctlLink(file); name != "" {
			return s.onLink(name, list)
		}
		return list, nil
	}
}

// SetOffload switches the features of a name (as for Host.Offload) on or off until exit.
func (j *Journal) SetOffload(ns *hostnet.Namespace, link, feature string, on bool) error {
	return j.apply(ns, offloadChanges(link, feature, on))
}

func offloadChanges(link, feature string, on bool) changes {
	return func(s *site) ([]change, error) {
		names, err := s.host.PendingOffloads(link, feature, on)
		if err != nil {
			return nil, err
		}
		var list []change
		for _, n := range names {
			list = append(list, change{Entry{Kind: KindOffload, Name: n}, onOff(on)})
		}
		return s.onLink(link, list)
	}
}

// SetPromiscuous makes the link take frames for any address, or not, until exit.
func (j *Journal) SetPromiscuous(ns *hostnet.Namespace, link string, on bool) error {
	return j.apply(ns, promiscuousChange(link, on))
}

func promiscuousChange(link string, on bool) changes {
	return func(s *site) ([]change, error) {
		return s.onLink(link, []change{{Entry{Kind: KindPromiscuous}, onOff(on)}})
	}
}

// SetSysfs sets a sysfs attribute of a link, as napi_defer_hard_irqs, until exit.
func (j *Journal) SetSysfs(ns *hostnet.Namespace, link, attribute, value string) error {
	return j.apply(ns, sysfsChange(link, attribute, value))
}

func sysfsChange(link, attribute, value string) changes {
	return func(s *site) ([]change, error) {
		return s.onLink(link, []change{{Entry{Kind: KindSysfs, Name: attribute}, value}})
	}
}

// onLink completes changes that are about one link.
func (s *site) onLink(link string, list []change) ([]change, error) {
	l, err := s.host.Link(link)
	for i := range list {
		list[i].Link, list[i].LinkIndex = l.Name, l.Index
	}
	return list, err
}

// AddRoutes writes routes as Host.ReplaceRoute does. A route of somebody
// else's that is in the place of one is put back when ours goes; one that is
// there and the same stays theirs.
func (j *Journal) AddRoutes(ns *hostnet.Namespace, class Class, routes ...hostnet.Route) error {
	return j.apply(ns, routeChanges(class, routes))
}

func routeChanges(class Class, routes []hostnet.Route) changes {
	return func(*site) ([]change, error) {
		var list []change
		for _, r := range routes {
			r = r.Canonical()
			if err := r.Validate(); err != nil {
				return nil, fmt.Errorf("add route: %w", err)
			}
			want, err := encodeRoute(r)
			if err != nil {
				return nil, err
			}
			list = append(list, change{Entry{Kind: KindRoute, Class: class, Name: routeName(r)}, want})
		}
		return list, nil
	}
}

// AddAddress gives the link an address, which goes when the entry is put back;
// one that is there already stays somebody else's.
func (j *Journal) AddAddress(ns *hostnet.Namespace, class Class, link string, p netip.Prefix, flags hostnet.AddressFlags) error {
	add := func(s *site) error { return s.host.AddAddress(link, p, flags) }
	return j.bring(ns, add, func(s *site) (Entry, error) {
		l, err := s.host.Link(link)
		return Entry{Kind: KindAddress, Class: class, Link: l.Name, LinkIndex: l.Index, Name: p.String()}, err
	})
}

// AddLink runs create to make a link of this name and kind (as Link.Kind has
// it: "tun", "veth") in the namespace; putting back deletes it. Where such a
// link is already, create is not run: it is ours if a run before this one made
// it, else it stays somebody else's.
func (j *Journal) AddLink(ns *hostnet.Namespace, class Class, name, kind string, create func() error) error {
	return j.bring(ns, func(*site) error { return create() }, func(*site) (Entry, error) {
		return Entry{Kind: KindLink, Class: class, Link: name, Name: kind}, nil
	})
}

// bring makes what was not there before.
func (j *Journal) bring(ns *hostnet.Namespace, create func(*site) error, entry func(*site) (Entry, error)) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.back(); err != nil {
		return err
	}
	s, err := j.openSite(ns)
	if err != nil {
		return err
	}
	defer s.close()
	e, err := entry(s)
	if err != nil {
		return err
	}
	e.Place = s.place
	now, err := s.read(e)
	if err != nil {
		return err
	}
	e.ID = j.next
	j.next++
	if now != "" {
		return j.adopt(e, now)
	}
	e.Set = []string{valuePresent}
	if e.Kind == KindLink {
		e.Set = []string{linkMade}
	}
	if err := j.commit([]record{{Op: opSet, Entry: &e}}); err != nil {
		return err
	}
	return errors.Join(create(s), j.confirm(s, e))
}

// adopt takes up what is there already, if a run before this one made it.
func (j *Journal) adopt(e Entry, now string) error {
	prior, known := j.entries[e.key()]
	if !known || !prior.ours(now) || prior.Class == e.Class && slices.Contains(prior.Set, now) {
		return nil
	}
	e.Set = []string{now}
	return j.commit([]record{{Op: opSet, Entry: &e}})
}

// confirm writes down how a link that was made is known: its index. What was
// not made after all is forgotten.
func (j *Journal) confirm(s *site, e Entry) error {
	now, err := s.read(e)
	switch {
	case err != nil:
		return err
	case now == "":
		return j.commit([]record{{Op: opDone, Entry: &e}})
	case e.Kind == KindLink:
		e.Set = []string{now}
		return j.commit([]record{{Op: opSet, Entry: &e}})
	}
	return nil
}

// RemoveRoutes takes routes away that AddRoutes made, and puts back what was
// in their places. Routes that are not ours are left alone.
func (j *Journal) RemoveRoutes(ns *hostnet.Namespace, routes ...hostnet.Route) error {
	return j.remove(ns, func(e Entry) bool {
		for _, r := range routes {
			if e.Kind == KindRoute && e.Name == routeName(r.Canonical()) {
				return true
			}
		}
		return false
	})
}

// RemoveAddress takes an address away that AddAddress made.
func (j *Journal) RemoveAddress(ns *hostnet.Namespace, link string, p netip.Prefix) error {
	return j.remove(ns, func(e Entry) bool {
		return e.Kind == KindAddress && e.Link == link && e.Name == p.String()
	})
}

// RemoveLink deletes a link that AddLink made.
func (j *Journal) RemoveLink(ns *hostnet.Namespace, name string) error {
	return j.remove(ns, func(e Entry) bool { return e.Kind == KindLink && e.Link == name })
}

// remove puts back the entries of the namespace that these are.
func (j *Journal) remove(ns *hostnet.Namespace, these func(Entry) bool) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.back(); err != nil {
		return err
	}
	s, err := j.openSite(ns)
	if err != nil {
		return err
	}
	defer s.close()
	var done []record
	var errs []error
	for _, e := range j.sorted() {
		if e.Place.Boot != s.place.Boot || e.Place.Identity != s.place.Identity || !these(e) {
			continue
		}
		if _, err := s.putBack(e); err != nil {
			errs = append(errs, err)
			continue
		}
		done = append(done, record{Op: opDone, Entry: &e})
	}
	return errors.Join(append(errs, j.commit(done))...)
}
