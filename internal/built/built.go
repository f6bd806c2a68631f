// Package built gives tests the programs of this tree, to run as processes. Each is
// linked once for all test processes, and again only when its source has changed:
// linking takes longer than most of what is tested then.
package built

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// folder is where programs lie, below the module's root.
const folder = ".cache/built"

// Program is the path of a program of cmd, as "margay-forwarder". It is there for
// others, too: who starts it must not remove it, nor know it by its path alone.
func Program(name string) (path string, err error) {
	gomod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find the module's root: %w", err)
	}
	dir := filepath.Join(filepath.Dir(strings.TrimSpace(string(gomod))), folder)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make a folder for %s: %w", name, err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, name+".lock"), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o644)
	if err == nil {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		return "", fmt.Errorf("wait for others who build %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	path = filepath.Join(dir, name)
	// A program that is up to date is left as it is; a stamp of the repository's state would have it linked anew.
	out, err := exec.Command("go", "build", "-buildvcs=false", "-o", path, "margay.dev/margay/cmd/"+name).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", name, err, out)
	}
	return path, nil
}
