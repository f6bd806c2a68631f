//go:build linux

package hostnet

import (
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const procSys = "/proc/sys"

// Sysctl reads a setting of the namespace, as net.ipv4.ip_forward; runs of
// blanks and tabs come back as one space. Keys are written as sysctl(8) takes
// them: with dots, a dot in a link's name as a slash, or all with slashes.
func (n *Namespace) Sysctl(key string) (value string, err error) {
	file, err := SysctlPath(key)
	if err != nil {
		return "", fmt.Errorf("read sysctl: %w", err)
	}
	err = n.Do(func() error { // /proc/sys/net is that of the thread that looks
		b, err := os.ReadFile(filepath.Join(procSys, file))
		value = string(b)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("read sysctl %s in namespace %s: %w", key, n, err)
	}
	return strings.Join(strings.Fields(value), " "), nil
}

// SetSysctl writes a setting of the namespace. Nothing puts it back: see journal.Journal.
func (n *Namespace) SetSysctl(key, value string) error {
	file, err := SysctlPath(key)
	if err != nil {
		return fmt.Errorf("set sysctl: %w", err)
	}
	err = n.Do(func() error { return writeAttribute(filepath.Join(procSys, file), value) })
	if err != nil {
		return fmt.Errorf("set sysctl %s to %q in namespace %s: %w", key, value, n, err)
	}
	return nil
}

// Sysfs reads an attribute of a link, as napi_defer_hard_irqs or
// queues/rx-0/rps_cpus, from the sysfs of the namespace.
func (n *Namespace) Sysfs(link, attribute string) (value string, err error) {
	err = n.sysfs(link, attribute, unix.O_RDONLY, func(f *os.File) error {
		b, err := io.ReadAll(f)
		value = strings.TrimSpace(string(b))
		return err
	})
	return value, err
}

// SetSysfs writes an attribute of a link. Nothing puts it back: see journal.Journal.
func (n *Namespace) SetSysfs(link, attribute, value string) error {
	return n.sysfs(link, attribute, unix.O_WRONLY, func(f *os.File) error {
		_, err := f.WriteString(value + "\n")
		return err
	})
}

// sysfs opens an attribute. What /sys shows is the namespace of whoever mounted
// it, so the namespace's own is mounted, at no place, for as long as it takes.
func (n *Namespace) sysfs(link, attribute string, how int, use func(*os.File) error) error {
	err := checkLinkName(link)
	if err == nil && (!filepath.IsLocal(attribute) || path.Clean(attribute) != attribute) {
		err = fmt.Errorf("attribute %q is no path below the link", attribute)
	}
	if err == nil {
		err = n.Do(func() error {
			root, err := mountSysfs()
			if err != nil {
				return err
			}
			defer unix.Close(root)
			name := path.Join("class/net", link, attribute)
			fd, err := unix.Openat(root, name, how|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			f := os.NewFile(uintptr(fd), name)
			defer f.Close()
			return use(f)
		})
	}
	if err != nil {
		return fmt.Errorf("sysfs attribute %s of link %s in namespace %s: %w", attribute, link, n, err)
	}
	return nil
}

func mountSysfs() (root int, err error) {
	fs, err := unix.Fsopen("sysfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("open sysfs: %w (this needs CAP_SYS_ADMIN)", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("create sysfs: %w", err)
	}
	root, err = unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC|unix.MOUNT_ATTR_NOSUID)
	if err != nil {
		return -1, fmt.Errorf("mount sysfs: %w", err)
	}
	return root, nil
}

// writeAttribute writes to a file that must be there, in one write as the kernel wants it.
func writeAttribute(file, value string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value + "\n") // the newline makes an empty value count
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}

// SysctlPath is a key's place below /proc/sys: net/ipv4/ip_forward.
func SysctlPath(key string) (string, error) {
	file := key
	if i := strings.IndexAny(key, "./"); i >= 0 && key[i] == '.' {
		file = strings.Map(func(r rune) rune {
			switch r {
			case '.':
				return '/'
			case '/':
				return '.'
			}
			return r
		}, key)
	}
	if !filepath.IsLocal(file) || path.Clean(file) != file || file == "." {
		return "", fmt.Errorf("%q is no sysctl key", key)
	}
	return file, nil
}
