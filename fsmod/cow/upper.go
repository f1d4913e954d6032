// SPDX-License-Identifier: Apache-2.0

// UPPER: its directories, its lock, and whether its file system will do.

package cow

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// An Upper is a directory UPPER in use.
type Upper struct {
	path string
	lock *os.File
}

// OpenUpper makes path, its directories upper and work, of which the first gets the
// attributes of lower if it is new, and locks it. It sees that the file system has what
// the format needs, and removes what a killed view has left half done.
func OpenUpper(path, lower string) (*Upper, error) {
	lock, err := HoldUpper(path)
	if err != nil {
		return nil, err
	}
	u := &Upper{path, lock}
	if err := u.prepare(lower); err != nil {
		return nil, errors.Join(err, u.Close())
	}
	return u, nil
}

// HoldUpper makes the directory UPPER and keeps other views from it, which get EBUSY,
// until it is closed: two would undo each other's work. Both engines hold theirs.
func HoldUpper(path string) (*os.File, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == unix.EWOULDBLOCK {
		err = fmt.Errorf("%s is used by another view; let that end, or give this one a directory of its own: %w", path, unix.EBUSY)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Close lets go of UPPER. Twice is fine.
func (u *Upper) Close() error {
	if err := u.lock.Close(); !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// copiesName is, in work/, where we make what is then renamed to its place. The kernel
// leaves it alone.
const copiesName = "copies"

func (u *Upper) prepare(lower string) error {
	copies := filepath.Join(u.path, "work", copiesName)
	if err := os.RemoveAll(copies); err != nil {
		return err
	}
	if err := os.MkdirAll(copies, 0o700); err != nil {
		return err
	}
	dir, err := u.copies()
	if err != nil {
		return err
	}
	defer closeAll(dir)
	if err := probe(dir); err != nil {
		return fmt.Errorf("%s is on a file system that cannot keep changes: %w; take another directory", u.path, err)
	}
	upper := filepath.Join(u.path, "upper")
	if _, err := os.Lstat(upper); err == nil || !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return makeRoot(dir, upper, lower)
}

// copies opens work/copies.
func (u *Upper) copies() (int, error) {
	fd, err := unix.Openat(int(u.lock.Fd()), "work/"+copiesName, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s/work/%s: %w", u.path, copiesName, err)
	}
	return fd, nil
}

// probe tries what the format needs.
func probe(dir int) error {
	defer discardAt(dir, "probe")
	defer discardAt(dir, "probed")
	if err := makeWhiteout(dir, "probe"); err != nil {
		return fmt.Errorf("make a whiteout: %w", err)
	}
	if err := unix.Renameat2(dir, "probe", dir, "probed", unix.RENAME_WHITEOUT); err != nil {
		return fmt.Errorf("rename with RENAME_WHITEOUT: %w", err)
	}
	if err := unix.Renameat2(dir, "probe", dir, "probed", unix.RENAME_EXCHANGE); err != nil {
		return fmt.Errorf("rename with RENAME_EXCHANGE: %w", err)
	}
	if err := unix.Mkdirat(dir, "probe.d", 0o700); err != nil {
		return err
	}
	defer discardAt(dir, "probe.d")
	fd, err := openBelow(dir, "probe.d", unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer closeAll(fd)
	if err := setOpaque(fd); err != nil {
		return fmt.Errorf("set an extended attribute user.*: %w", err)
	}
	return nil
}

// makeRoot makes the root of the upper layer.
func makeRoot(dir int, upper, lower string) error {
	low, err := unix.Open(lower, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", lower, err)
	}
	defer closeAll(low)
	var st unix.Stat_t
	if err := unix.Fstat(low, &st); err != nil {
		return err
	}
	b := branch{work: dir, owner: current()}
	tmp, err := b.makeCopy(context.Background(), low, &st, whole)
	if err != nil {
		return fmt.Errorf("copy the attributes of %s: %w", lower, err)
	}
	if err := unix.Renameat(dir, tmp, unix.AT_FDCWD, upper); err != nil {
		b.discard(tmp)
		return fmt.Errorf("rename to %s: %w", upper, err)
	}
	return nil
}
