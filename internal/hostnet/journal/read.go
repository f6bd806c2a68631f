//go:build linux

package journal

import (
	"fmt"
	"os"
)

// Read lists what stands in the journal at path, oldest first, without taking
// its lock or changing the file: for whoever only wants to look, also while a
// forwarder has it open. A record being written at the moment is not seen.
func Read(path string) ([]Entry, error) {
	image, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	log, err := readLog(image)
	if err != nil {
		return nil, fmt.Errorf("read journal %s: %w", path, err)
	}
	return log.entries, nil
}
