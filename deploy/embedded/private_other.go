//go:build !unix

package embedded

// privateUmask does nothing: this system has no umask.
func privateUmask() {}

// makePrivate does nothing: this system has no modes.
func makePrivate(string) error { return nil }
