// SPDX-License-Identifier: Apache-2.0

// Places: where the sockets are.

package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// ValidName reports whether a view may be called so: by 1 to 63 letters, digits, - and _, the first
// of them a letter or digit. It is no regular expression: to compile that took 0.2 ms of each start,
// and as many of the child's.
func ValidName(name string) bool {
	for i, c := range []byte(name) {
		switch {
		case c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c >= '0' && c <= '9':
		case i == 0, c != '-' && c != '_':
			return false
		}
	}
	return len(name) >= 1 && len(name) <= 63
}

// Dir returns the directory of the sockets, which it makes. It is the user's own, and
// nobody else may look into it.
func Dir() (string, error) {
	uid := os.Geteuid()
	dir := fmt.Sprintf("/tmp/umrun-%d", uid)
	if run := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(run) {
		dir = filepath.Join(run, "umrun")
	} else if run := fmt.Sprintf("/run/user/%d", uid); unix.Access(run, unix.W_OK|unix.X_OK) == nil {
		dir = filepath.Join(run, "umrun")
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", fmt.Errorf("the directory of control sockets: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return "", fmt.Errorf("lstat %s: %w", dir, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != uid || st.Mode&0o077 != 0 {
		return "", fmt.Errorf("%s is not a directory of this user's with mode 0700: %w", dir, unix.EPERM)
	}
	return dir, nil
}

// ErrTaken says that a running view has the name.
var ErrTaken = errors.New("a view of that name is running")

// listen makes the socket of a name, and its lock.
func listen(name string) (l *net.UnixListener, lock *os.File, err error) {
	if !ValidName(name) {
		return nil, nil, fmt.Errorf("%q is no name of a view: %w", name, unix.EINVAL)
	}
	dir, err := Dir()
	if err != nil {
		return nil, nil, err
	}
	path := filepath.Join(dir, name)
	if most := len(unix.RawSockaddrUnix{}.Path) - 1; len(path) > most {
		return nil, nil, fmt.Errorf("the address of a socket has %d bytes at most, and %s is longer: %w", most, path, unix.ENAMETOOLONG)
	}
	if lock, err = takeLock(path + ".lock"); err != nil {
		return nil, nil, err
	}
	// The lock says that whose it was is gone.
	if err = os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		lock.Close()
		return nil, nil, err
	}
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var bad error
		err := raw.Control(func(fd uintptr) { bad = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
		return errors.Join(err, bad)
	}}
	made, err := lc.Listen(context.Background(), "unix", path)
	if err != nil {
		lock.Close()
		return nil, nil, err
	}
	return made.(*net.UnixListener), lock, nil
}

// takeLock makes a file and locks it, until it is closed.
func takeLock(path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			ours, e1 := f.Stat()
			now, e2 := os.Stat(path)
			if e1 == nil && e2 == nil && os.SameFile(ours, now) {
				return f, nil
			}
		}
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrTaken
		}
		if err != nil {
			return nil, fmt.Errorf("flock %s: %w", path, err)
		}
		// It was removed meanwhile by whose it was.
	}
}

// Names returns those of the views that are there, sorted. One of a view that was
// killed may be among them.
func Names() ([]string, error) {
	dir, err := Dir()
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.Type() == os.ModeSocket && ValidName(e.Name()) {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}
