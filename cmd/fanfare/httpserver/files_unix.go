//go:build unix

package httpserver

import "syscall"

// openFiles returns how many files this process may have open, 0: not known.
func openFiles() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > 1<<30 {
		return 0
	}
	return int(limit.Cur) //nolint:gosec // it fits; on some systems it is signed
}
