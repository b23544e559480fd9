package embedded

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// LeastFree is how many bytes must be free where the data directory is. The scheduler deals nothing below it: a broker
// that runs out of disk loses what it has acknowledged.
const LeastFree = 512 << 20

// DataDir is a data directory that this process has locked. Only its holder may write there, or migrate and publish
// what is there.
type DataDir struct{ lock *os.File }

// Holder says which process uses a data directory, and for what.
type Holder struct {
	PID     int    `json:"pid"`
	Command string `json:"command"` // such as serve
}

// ErrInUse is returned when another process uses the data directory. The error is an [InUseError].
var ErrInUse = errors.New("in use")

// InUseError says which process uses the data directory.
type InUseError struct {
	Dir string
	Holder
}

func (e *InUseError) Error() string {
	if e.PID == 0 {
		return e.Dir + " is in use by another process"
	}
	return fmt.Sprintf("%s is in use by pid %d (fanfare %s)", e.Dir, e.PID, e.Command)
}

// Is reports whether target is [ErrInUse].
func (e *InUseError) Is(target error) bool { return target == ErrInUse }

const lockName = "lock"

// Lock creates the data directory if necessary and locks it for this process; command says what the process does. If
// another process holds the lock, the error is an [InUseError] and nothing has been changed. The lock ends with
// [DataDir.Unlock] or with the process, however it ends.
//
// Every file below the directory gets mode 0600 and every folder 0700, and so does every file that this process creates
// later: Lock sets the umask of the process.
func Lock(dir, command string) (*DataDir, error) {
	privateUmask()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	path := filepath.Join(dir, lockName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	locked, err := lockFile(f)
	if err != nil || !locked {
		_ = f.Close()
		if err != nil {
			return nil, fmt.Errorf("lock %s: %w", dir, err)
		}
		holder, _ := ReadHolder(dir) // a holder that has just locked it may not have written its pid yet
		return nil, &InUseError{Dir: dir, Holder: holder}
	}
	d := &DataDir{lock: f}
	text, err := json.Marshal(Holder{PID: os.Getpid(), Command: command})
	if err == nil {
		err = errors.Join(d.write(text), makePrivate(dir))
	}
	if err != nil {
		d.Unlock()
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return d, nil
}

// write replaces the content of the lock file.
func (d *DataDir) write(text []byte) error {
	if err := d.lock.Truncate(0); err != nil {
		return err
	}
	_, err := d.lock.WriteAt(text, 0)
	return err
}

// Unlock lets other processes use the directory.
func (d *DataDir) Unlock() {
	_ = d.lock.Truncate(0)
	_ = d.lock.Close() // this ends the lock
}

// ReadHolder returns what the last holder of the lock has written. It is empty after a graceful stop; after a kill it
// still names the dead process.
func ReadHolder(dir string) (Holder, error) {
	var h Holder
	b, err := os.ReadFile(filepath.Join(dir, lockName))
	if err != nil {
		return h, fmt.Errorf("read the holder of %s: %w", dir, err)
	}
	if err := json.Unmarshal(b, &h); err != nil {
		return h, fmt.Errorf("read the holder of %s: %w", dir, err)
	}
	return h, nil
}
