// SPDX-License-Identifier: Apache-2.0

// Who does what: the calling thread, or the tree itself.

package cow

import (
	"slices"

	"golang.org/x/sys/unix"
)

// creds are those that file systems judge by, but for the supplementary groups, which
// go with the user.
type creds struct {
	uid, gid int
	caps     uint32 // effective ones, the first 32, among which are those that matter
}

// current returns the calling thread's.
func current() creds {
	// setfsuid(2) of an invalid ID changes nothing and tells the present one.
	uid, _ := unix.SetfsuidRetUid(-1)
	gid, _ := unix.SetfsgidRetGid(-1)
	return creds{uid, gid, capabilities()[0].Effective}
}

// do runs f with the credentials c, which some other threads of the process have: those
// that the runtime made. A thread that was given others is locked to its goroutine.
func (c creds) do(f func() error) error {
	if current() == c {
		return f()
	}
	done := make(chan error) // the caller waits: f may use what is its
	go func() { done <- f() }()
	return <-done
}

// capable reports whether the calling thread has an effective capability.
func capable(what int) bool { return capabilities()[what/32].Effective&(1<<(what%32)) != 0 }

// capabilities are those of the calling thread.
func capabilities() (data [2]unix.CapUserData) {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	_ = unix.Capget(&hdr, &data[0]) // it does not fail
	return data
}

// member reports whether the calling thread has a supplementary group.
func member(gid int) bool {
	groups, err := unix.Getgroups()
	return err == nil && slices.Contains(groups, gid)
}

// owns reports whether the calling thread may do with a file what its owner may.
func owns(st *unix.Stat_t) bool { return int(st.Uid) == current().uid || capable(unix.CAP_FOWNER) }
