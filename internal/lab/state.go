package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"margay.dev/margay/internal/lab/process"
)

// DefaultDir is where labs keep their state, one folder each.
const DefaultDir = "/run/margay-lab"

const (
	stateFile    = "state.json"
	stateVersion = 1
)

// ErrNotUp says that no lab of that name is up.
var ErrNotUp = errors.New("no such lab is up")

// record is what a lab has written down. It is complete before anything that it
// names is made.
type record struct {
	Version    int                         `json:"version"`
	Topology   Topology                    `json:"topology"`
	Namespaces []string                    `json:"namespaces"`      // names in /run/netns
	Forwarder  string                      `json:"forwarder"`       // the program
	Agent      string                      `json:"agent,omitempty"` // likewise, where there are agents
	Raised     bool                        `json:"raised"`          // Up has come to its end
	Processes  map[string]*process.Process `json:"processes"`       // forwarders by node, pumps by link, agents and the store
}

// save writes the record.
func (r *record) save(dir string) error {
	b, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return fmt.Errorf("write the lab's state: %w", err)
	}
	if err := replace(filepath.Join(dir, stateFile), b); err != nil {
		return fmt.Errorf("write the lab's state: %w", err)
	}
	return nil
}

// replace writes a file whole or not at all.
func replace(path string, b []byte) error {
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// read reads the record in a lab's folder; ErrNotUp if there is none.
func read(dir string) (*record, error) {
	b, err := os.ReadFile(filepath.Join(dir, stateFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("lab %s: %w", filepath.Base(dir), ErrNotUp)
	}
	if err != nil {
		return nil, fmt.Errorf("read the lab's state: %w", err)
	}
	r := &record{}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("read the lab's state: %w", err)
	}
	if r.Version != stateVersion {
		return nil, fmt.Errorf("read the lab's state: version is %d, want %d: take the lab down with the build that raised it", r.Version, stateVersion)
	}
	return r, nil
}

// Names lists the labs that are up, or half up, below base.
func Names(base string) ([]string, error) {
	paths, err := filepath.Glob(filepath.Join(base, "*", stateFile))
	if err != nil {
		return nil, err
	}
	for i, p := range paths {
		paths[i] = filepath.Base(filepath.Dir(p))
	}
	slices.Sort(paths)
	return paths, nil
}

// lock keeps others from raising or taking down labs below base meanwhile.
func lock(base string) (unlock func(), err error) {
	if err := os.MkdirAll(base, 0o700); err != nil {
		return nil, fmt.Errorf("make the labs' folder: %w", err)
	}
	f, err := os.Open(base)
	if err != nil {
		return nil, fmt.Errorf("lock the labs' folder: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock the labs' folder: %w", err)
	}
	return func() { f.Close() }, nil
}
