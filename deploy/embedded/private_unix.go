//go:build unix

package embedded

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// privateUmask makes every file that this process creates from now on private to its user, whatever the umask was:
// databases, topics and the record of the simulated carrier are written by packages that know nothing of the data
// directory.
func privateUmask() { syscall.Umask(0o077) }

// makePrivate takes the rights of group and others from everything below dir, which an earlier version or another
// program may have created. It fails if others can read or change something and this process cannot prevent it.
func makePrivate(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // deleted in the meantime
			}
			return err
		}
		want := fs.FileMode(0o600)
		switch {
		case d.IsDir():
			want = 0o700
		case !d.Type().IsRegular():
			return nil
		}
		info, err := d.Info()
		if err != nil || info.Mode().Perm() == want {
			return nil //nolint:nilerr // the file has been deleted meanwhile
		}
		if err := os.Chmod(path, want); err != nil && !errors.Is(err, fs.ErrNotExist) && info.Mode().Perm()&0o077 != 0 {
			return fmt.Errorf("%s has mode %04o and belongs to another user, who could read and change the data: give a directory that belongs to user %d", path, info.Mode().Perm(), os.Getuid())
		}
		return nil
	})
}
