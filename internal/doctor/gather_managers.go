//go:build linux

package doctor

import (
	"bufio"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"margay.dev/margay/internal/hostnet"
)

// networkd reads how systemd-networkd is configured. It works in the first
// network namespace only; elsewhere it does not run.
func (l look) networkd(hostPort *hostnet.Link) Networkd {
	if !l.inFirstNamespace() {
		return Networkd{}
	}
	if _, err := os.Stat(l.path("run/systemd/netif/state")); err != nil {
		return Networkd{}
	}
	n := Networkd{Running: true, KeepsRoutes: l.keepsForeignRoutes()}
	n.OwnsHostPort = hostPort != nil && l.owner(hostPort.Index) != ""
	return n
}

func (l look) inFirstNamespace() bool {
	first := inode(l.path("proc/1/ns/net"))
	return first != 0 && first == inode(l.path("proc/self/ns/net"))
}

// keepsForeignRoutes reads ManageForeignRoutes= as systemd does: the main file,
// then drop-ins by name, whatever folder they are in; the last word counts.
func (l look) keepsForeignRoutes() bool {
	byName := map[string]string{}
	for _, folder := range []string{"usr/lib", "usr/local/lib", "run", "etc"} { // later ones mask earlier ones
		found, _ := filepath.Glob(l.path(folder + "/systemd/networkd.conf.d/*.conf"))
		for _, f := range found {
			byName[filepath.Base(f)] = f
		}
	}
	files := []string{l.path("etc/systemd/networkd.conf")}
	names := make([]string, 0, len(byName))
	for name := range byName {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		files = append(files, byName[name])
	}
	keeps := false
	for _, f := range files {
		if v, ok := setting(f, "ManageForeignRoutes"); ok {
			keeps = slices.Contains([]string{"no", "false", "off", "0"}, strings.ToLower(v))
		}
	}
	return keeps
}

// owner is the configuration manager that configures the link with an index, if any.
func (l look) owner(index int) string {
	if !l.inFirstNamespace() {
		return ""
	}
	number := strconv.Itoa(index)
	state, ok := setting(l.path("run/systemd/netif/links/"+number), "ADMIN_STATE")
	if ok && state != "unmanaged" && state != "initialized" && state != "pending" {
		return "systemd-networkd"
	}
	if managed, _ := setting(l.path("run/NetworkManager/devices/"+number), "managed"); managed == "true" {
		return "NetworkManager"
	}
	return ""
}

// setting is the last value of a key in a file of KEY=VALUE lines.
func setting(file, key string) (value string, ok bool) {
	f, err := os.Open(file)
	if err != nil {
		return "", false
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if k, v, found := strings.Cut(lines.Text(), "="); found && strings.TrimSpace(k) == key {
			value, ok = strings.TrimSpace(v), true
		}
	}
	return value, ok
}
