// SPDX-License-Identifier: Apache-2.0

// Changes of the mounts of a view that runs, by who has started it.
//
// The child begins in the view's mount namespace, and goes to look for the sources to one
// that was copied before the view's mounts were made, where the host's files are all there is.

package nsmount

import (
	"os"

	"golang.org/x/sys/unix"

	"umrun/fsmod"
	"umrun/intercept"
)

// A Change is one of the mounts of a view.
type Change struct {
	Mount  fsmod.Mount // is made; or with no Kind:
	Umount string      // the topmost mount there goes
	Lazy   bool        // though it is in use

	Places []string // as in [Plan]
}

// Do makes a change. link is as in [intercept.Config]; it may be nil.
func (n *Namespace) Do(ch Change, link *os.File) error {
	if len(n.files) <= 3 {
		return unix.ENOTSUP // host's mounts were not kept
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.do(order{Change: &ch}, link, n.files[3])
}

// make makes the change, in the view's namespaces.
func (ch *Change) make(fds int, user bool, link *os.File) error {
	if ch.Mount.Kind == "" {
		return ch.unmount(fds)
	}
	b := &builder{plan: &Plan{Mounts: []fsmod.Mount{ch.Mount}, Places: ch.Places, User: user}, pool: -1, link: link, base: enterBase}
	src, err := b.openOnHost(ch.Mount)
	if err != nil {
		return err
	}
	if err := unix.Fchdir(b.fds); err != nil {
		return err
	}
	if _, err := os.Stat(ch.Mount.Target); err != nil {
		return err // there is no glue for what is in use
	}
	if err := b.mount(ch.Mount, src); err != nil {
		return err
	}
	return b.finish()
}

// unmount removes the topmost mount at a path.
func (ch *Change) unmount(fds int) error {
	if !ch.Lazy {
		return unix.Unmount(ch.Umount, unix.UMOUNT_NOFOLLOW)
	}
	at, err := unix.Open(ch.Umount, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(at)
	rows, err := readTable(fds)
	if err != nil {
		return err
	}
	return detach(at, rows)
}

// openOnHost is open where the host's files are, on a thread that goes there for it.
func (b *builder) openOnHost(m fsmod.Mount) (s source, err error) {
	intercept.OnThread(func() {
		if err = unix.Unshare(unix.CLONE_FS); err == nil {
			err = unix.Setns(enterHost, unix.CLONE_NEWNS)
		}
		if err == nil {
			err = b.begin()
		}
		if err != nil {
			return
		}
		s, err = b.open(0, m)
		if err == nil && s.path >= 0 { // of another namespace: a copy is of none
			s.path, err = cloneTree(s.path, "", false)
		}
	})
	return s, err
}
