//go:build !unix

package embedded

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
)

// lockDir opens the lock file; this system has no lock that goes with the process.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	return f, nil
}

// FreeBytes is not known on this system.
func FreeBytes(string) (uint64, error) { return math.MaxUint64, nil }
