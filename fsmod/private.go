// SPDX-License-Identifier: Apache-2.0

// The private place of a module: where generated directories are.

package fsmod

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// privatePrefix begins the names of such places.
const privatePrefix = "umrun-files-"

// makePrivate makes a directory, in memory if the machine has a place, and locks it: the
// lock tells [Sweep] that its umrun lives.
func makePrivate() (dir string, lock *os.File, err error) { return makePrivateIn(privateBase()) }

// privateBase is where such directories are.
func privateBase() string {
	const base = "/dev/shm"
	if unix.Access(base, unix.W_OK|unix.X_OK) != nil {
		return os.TempDir()
	}
	return base
}

func makePrivateIn(base string) (dir string, lock *os.File, err error) {
	if dir, err = os.MkdirTemp(base, privatePrefix); err != nil {
		return "", nil, err
	}
	if dir, err = filepath.EvalSymlinks(dir); err == nil { // as /proc will name it
		lock, err = os.Open(dir)
	}
	if err == nil {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		return "", nil, errors.Join(err, os.RemoveAll(dir))
	}
	return dir, lock, nil
}

// unlocked is how long a place may be there before it is locked.
const unlocked = time.Minute

// Sweep removes this user's places whose umrun was killed: what is in them takes memory.
func Sweep() { sweep(privateBase()) }

func sweep(base string) {
	dirs, _ := filepath.Glob(filepath.Join(base, privatePrefix+"*"))
	for _, dir := range dirs {
		fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && int(st.Uid) == os.Geteuid() && time.Since(time.Unix(st.Mtim.Unix())) > unlocked &&
			unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = removeAll(dir)
		}
		unix.Close(fd)
	}
}
