//go:build !unix

package embedded

import (
	"math"
	"os"
)

// lockFile locks nothing: this system has no lock that ends with the process.
func lockFile(*os.File) (bool, error) { return true, nil }

// FreeBytes is not known on this system.
func FreeBytes(string) (uint64, error) { return math.MaxUint64, nil }
