// SPDX-License-Identifier: Apache-2.0

// Tests of how mounts are known again.

package nsmount

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// TestStillMade: a mount that has gone is not taken for another that shows the same, and has its
// number now.
func TestStillMade(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root makes a mount namespace in a process with threads")
	}
	dir, supported := t.TempDir(), true
	intercept.OnThread(func() {
		check := func(err error) bool {
			if err != nil {
				t.Error(err)
			}
			return err == nil
		}
		if !check(unix.Unshare(unix.CLONE_NEWNS)) || !check(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")) {
			return
		}
		fds, err := openPath(unix.AT_FDCWD, "/proc/thread-self/fd")
		if !check(err) {
			return
		}
		defer unix.Close(fds)
		mount := func() (r row, rows []row) {
			err := unix.Mount(dir, dir, "", unix.MS_BIND, "")
			if err == nil {
				rows, err = readTable(fds)
			}
			var id uint64
			if err == nil {
				id, err = mountID(unix.AT_FDCWD, dir)
			}
			if check(err) {
				r = *find(rows, id)
			}
			return r, rows
		}
		was, rows := mount()
		for range 10_000 { // others may take the number
			m := Made{ID: was.id, Unique: was.unique, Shows: was.shows}
			if still := stillMade([]Made{m}, rows); len(still) != 1 || still[0].Mount.Target != dir {
				t.Errorf("it is there, and known as %+v", still)
				return
			}
			if supported = m.Unique != 0; !supported || !check(unix.Unmount(dir, 0)) {
				return
			}
			var now row
			if now, rows = mount(); now.id != m.ID {
				was = now
				continue
			}
			if now.shows != m.Shows || now.unique == m.Unique {
				t.Errorf("%+v is not another like %+v", now, m)
			}
			if still := stillMade([]Made{m}, rows); len(still) != 0 {
				t.Errorf("another one is taken for it: %+v", still)
			}
			return
		}
		t.Error("no mount got the number of the one before")
	})
	if !supported {
		t.Skip("the kernel has no unique numbers of mounts (Linux 6.8)")
	}
}
