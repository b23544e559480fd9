//go:build unix

package store

import (
	"errors"
	"io"
	"os"
	"syscall"
)

// lockFile takes a lock of the operating system on a file. It returns nil when another process has the lock. The lock
// ends when the file is closed or the process ends. The file itself stays: if it were removed, two processes could get
// the lock.
func lockFile(path string) (io.Closer, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return f, nil
	}
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = nil
	}
	return nil, errors.Join(err, f.Close())
}
