package services

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// DataProblem says why nothing can be kept in the directory given by --data, which need not exist yet; nil: it can be
// used. It changes nothing.
func DataProblem(dir string) *Problem {
	const fix = "give another directory with --data, or make this one writable for the user that runs fanfare"
	at := ExistingParent(dir)
	if st, err := os.Stat(at); err != nil || !st.IsDir() {
		return Permanent(at+" is not a directory", "give another directory with --data")
	}
	tmp, err := os.MkdirTemp(at, ".fanfare-doctor-")
	if err != nil {
		return Permanent(fmt.Sprintf("%s cannot be written to (%v)", at, WithoutPath(err)), fix)
	}
	if err := os.Remove(tmp); err != nil {
		return Permanent(fmt.Sprintf("%s cannot be written to (%v)", at, WithoutPath(err)), fix)
	}
	return nil
}

// ExistingParent returns dir, or its nearest parent that exists.
func ExistingParent(dir string) string {
	dir = filepath.Clean(dir)
	for {
		if _, err := os.Lstat(dir); err == nil || dir == filepath.Dir(dir) {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}

// WithoutPath returns an error of the file system without the path, for sentences that name the path themselves.
func WithoutPath(err error) error {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return path.Err
	}
	return err
}
