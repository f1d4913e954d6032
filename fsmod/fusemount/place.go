// SPDX-License-Identifier: Apache-2.0

// The place: a private directory to mount on.

package fusemount

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"golang.org/x/sys/unix"
)

// A place is a directory of mode 0700 and the mount point in it. Nothing in it is ever removed
// but by rmdir(2): what is mounted there is somebody's.
type place struct {
	dir  string
	lock *os.File // the helper has it, too: the place is in use as long as one of them lives
}

const (
	placePrefix = "umrun-fuse-"
	// unlocked is how long a place may be there before it is locked.
	unlocked = time.Minute
)

// plain is a path that a shell takes as it is.
var plain = regexp.MustCompile(`^[A-Za-z0-9/._-]+$`)

// placeBase is where places are, as mountinfo will name it.
func placeBase() (string, error) {
	base := "/dev/shm"
	if unix.Access(base, unix.W_OK|unix.X_OK) != nil {
		base = os.TempDir()
	}
	return filepath.EvalSymlinks(base)
}

// newPlace makes one.
func newPlace() (*place, error) {
	base, err := placeBase()
	if err != nil {
		return nil, err
	}
	if !plain.MatchString(base) {
		return nil, fmt.Errorf("TMPDIR is %q: a command could not be told of it: %w", base, unix.EINVAL)
	}
	dir, err := os.MkdirTemp(base, placePrefix)
	if err != nil {
		return nil, err
	}
	p := &place{dir: dir}
	if err = os.Mkdir(p.point(), 0o700); err == nil {
		p.lock, err = os.Open(dir)
	}
	if err == nil {
		err = unix.Flock(int(p.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		return nil, errors.Join(err, p.remove())
	}
	return p, nil
}

// point is the mount point.
func (p *place) point() string { return filepath.Join(p.dir, "mnt") }

// remove removes the place, if nothing is mounted there. That it is gone is no error.
func (p *place) remove() error {
	err := unix.Rmdir(p.point())
	if err == nil || err == unix.ENOENT {
		err = unix.Rmdir(p.dir)
	}
	if err == unix.ENOENT {
		err = nil
	}
	if p.lock != nil {
		p.lock.Close()
	}
	return err
}

// Sweep removes this user's places whose umrun and helper were both killed.
func Sweep() {
	if base, err := placeBase(); err == nil {
		sweep(base)
	}
}

func sweep(base string) {
	dirs, _ := filepath.Glob(filepath.Join(base, placePrefix+"*"))
	for _, dir := range dirs {
		fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		p := place{dir: dir, lock: os.NewFile(uintptr(fd), dir)}
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && int(st.Uid) == os.Geteuid() && time.Since(time.Unix(st.Mtim.Unix())) > unlocked &&
			unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = p.remove() // it may be mounted still: EBUSY
		}
		p.lock.Close()
	}
}
