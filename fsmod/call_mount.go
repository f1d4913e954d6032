// SPDX-License-Identifier: Apache-2.0

// mount(2) and umount2(2) by the target.
//
// What it mounts is the view's, so that any task may that has the view's user namespace and
// mount namespace; a privileged supervisor asks for CAP_SYS_ADMIN. Sources are resolved as
// all paths of the target are, and what is bound is the object that was found, never a
// path: nothing is shown by it that the view hides. What was mounted by others than the
// target is locked, as mounts of another user's are for the kernel (mount_namespaces(7)): it
// stays, it stays read-only, and it covers in a bind what it covers.

package fsmod

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

const (
	// Flags that change nothing here, or are kept: a view has no set-user-ID programs, and times
	// are those of the files below.
	msHarmless = msKept | unix.MS_NOATIME | unix.MS_NODIRATIME | unix.MS_RELATIME | unix.MS_STRICTATIME |
		unix.MS_SILENT | unix.MS_LAZYTIME
	// msKept are told in mountinfo. MS_NODEV keeps devices from being opened.
	msKept        = unix.MS_NOSUID | unix.MS_NODEV
	msPropagation = unix.MS_SHARED | unix.MS_PRIVATE | unix.MS_SLAVE | unix.MS_UNBINDABLE
)

// mountCall makes a handler of a call that changes the mounts: it is in no table while it
// does.
func (m *Module) mountCall(f func(m *Module, c *intercept.Call) (func() error, error)) intercept.HandlerFunc {
	return func(c *intercept.Call) intercept.Action {
		c.MayWait() // as for calls that began before
		if err := m.mayMount(c); err != nil {
			return fail(err)
		}
		var change func() error
		err := m.inCall(c, func(m *Module) (err error) {
			change, err = f(m, c)
			return err
		})
		if err == nil && change != nil {
			err = change()
		}
		return result(err)
	}
}

// inCall runs f with the module as it is now and the credentials of the task.
func (m *Module) inCall(c *intercept.Call, f func(*Module) error) (err error) {
	m = m.enterCall()
	defer m.using.RUnlock()
	if !m.mixed.Load() {
		return f(m)
	}
	err = unix.EACCES
	m.as(c, func() intercept.Action {
		err = f(m)
		return intercept.Action{}
	})
	return err
}

// mayMount reports whether a task may change the mounts of the view.
func (m *Module) mayMount(c *intercept.Call) error {
	for _, ns := range []string{"user", "mnt"} {
		var ours, its unix.Stat_t
		if unix.Stat("/proc/self/ns/"+ns, &ours) != nil || unix.Stat(taskFile(c.TID, "ns/"+ns), &its) != nil || inodeOf(&ours) != inodeOf(&its) {
			return unix.EPERM // they would be all the view's
		}
	}
	if m.mixed.Load() && !c.Capable(unix.CAP_SYS_ADMIN) {
		return unix.EPERM
	}
	return nil
}

// A mounting is a mount(2).
type mounting struct {
	source, fstype, data string
	flags                uint64
	at                   object // the target
}

// MountFlags are those of a mount(2) with the argument arg, without the number that programs had
// to add before Linux 2.4.
func MountFlags(arg uint64) uint64 {
	const magic, mask = 0xc0ed0000, 0xffff0000 // MS_MGC_VAL and MS_MGC_MSK, linux/mount.h
	if arg &= 0xffffffff; arg&mask == magic {
		return arg &^ mask
	}
	return arg
}

// doMount reads a mount(2), and returns what it changes.
func (m *Module) doMount(c *intercept.Call) (func() error, error) {
	a := mounting{flags: MountFlags(c.Args[3])}
	optional := func(at uint64) (string, error) {
		if at == 0 {
			return "", nil
		}
		s, err := c.ReadString(intercept.Addr(at), pathMax)
		if err == error(unix.ENAMETOOLONG) {
			err = unix.EINVAL // mm/util.c:strndup_user
		}
		return s, err
	}
	var err error
	if a.fstype, err = optional(c.Args[2]); err != nil {
		return nil, err
	}
	if a.source, err = optional(c.Args[0]); err != nil {
		return nil, err
	}
	if a.data, err = optional(c.Args[4]); err != nil {
		return nil, err
	}
	if a.at, err = m.find(c, unix.AT_FDCWD, intercept.Addr(c.Args[1]), 0); err != nil {
		return nil, err
	}
	a.at.close()
	if a.at.m == nil || a.at.m.detached() {
		return nil, unix.EINVAL
	}
	const known = msHarmless | msPropagation | unix.MS_RDONLY | unix.MS_NOEXEC | unix.MS_REMOUNT | unix.MS_BIND | unix.MS_REC | unix.MS_SYNCHRONOUS | unix.MS_DIRSYNC | unix.MS_MANDLOCK
	switch {
	case a.flags&unix.MS_REMOUNT != 0:
		return m.remount(c, &a)
	case a.flags&unix.MS_BIND != 0:
		return m.bind(c, &a)
	case a.flags&msPropagation != 0:
		if a.at.name != "" { // there is one namespace, and nowhere to propagate to
			return nil, unix.EINVAL
		}
		return nil, nil
	case a.flags&unix.MS_NOEXEC != 0, a.flags&^uint64(known) != 0:
		return nil, unix.EINVAL
	}
	return m.mountNew(c, &a)
}

// root reports whether a place is that of a mount of the view's.
func (o *object) root() bool { return o.name == "" && o.m != nil && o.m.tag != 0 }

// remount makes a mount read-only, or writable again.
func (m *Module) remount(c *intercept.Call, a *mounting) (func() error, error) {
	switch {
	case !a.at.root():
		return nil, unix.EINVAL
	case a.flags&unix.MS_NOEXEC != 0:
		return nil, unix.EINVAL
	}
	old, ro := a.at.m, a.flags&unix.MS_RDONLY != 0
	again := func() error { return nil }
	switch {
	case !old.made:
		return nil, unix.EPERM
	case !ro && old.sealed:
		if old.Kind == Image {
			return nil, unix.EROFS
		}
		return nil, unix.EPERM
	case a.flags&unix.MS_BIND != 0 || a.data == "" && old.Kind != Tmpfs: // no options of a file system
	case old.Kind == Bind: // those of one that others see
		return nil, unix.EPERM
	case old.Kind != Tmpfs:
		return nil, unix.EINVAL
	default:
		opts, err := m.tmpfsOptions(c, a.data)
		switch {
		case old.dir.apart != nil:
			again = func() error { return old.dir.apart.remount(a.data) }
		case err != nil:
			m.unboundable(opts)
			return nil, err
		} // else those that are taken change nothing
	}
	return func() error {
		// First what files that are open to be written keep from it, as fs/super.c:reconfigure_super.
		now, err := m.readOnly(old, ro, a.flags&msKept)
		if err != nil {
			return err
		}
		if err := again(); err != nil {
			return errors.Join(err, m.alter(func(t *table) (*table, error) {
				if slices.Contains(t.rows, now) {
					t = t.replacing(now, old)
				}
				return t, nil
			}))
		}
		return nil
	}, nil
}

// readOnly makes a mount read-only, or not, and gives it other flags. EBUSY: a file of it is open to
// be written.
func (m *Module) readOnly(old *mount, ro bool, flags uint64) (*mount, error) {
	now := *old
	now.ReadOnly, now.flags = ro, flags
	err := m.alter(func(t *table) (*table, error) {
		if !slices.Contains(t.rows, old) {
			return nil, unix.EINVAL
		}
		if ro && !old.ReadOnly && m.writes(t, old) {
			return nil, unix.EBUSY
		}
		return t.replacing(old, &now), nil
	})
	if err != nil || !ro || old.ReadOnly {
		return &now, err
	}
	// Who opened a file in this moment was faster.
	busy := false
	err = m.alter(func(t *table) (*table, error) {
		if busy = slices.Contains(t.rows, &now) && m.writes(t, &now); busy {
			t = t.replacing(&now, old)
		}
		return t, nil
	})
	if busy && err == nil {
		err = unix.EBUSY
	}
	return &now, err
}

// bind shows what is found at the source at another place.
func (m *Module) bind(c *intercept.Call, a *mounting) (_ func() error, err error) {
	if a.source == "" {
		return nil, unix.EINVAL
	}
	o, err := m.resolvePath(c, unix.AT_FDCWD, a.source, true, 0)
	if err != nil {
		return nil, err
	}
	defer o.close()
	dir := o.typ() == unix.S_IFDIR
	switch {
	case o.m == nil, o.m.detached():
		return nil, unix.EINVAL
	case a.at.view == "":
		return nil, unix.EBUSY // it is the root of those who would not see it
	case dir != (a.at.typ() == unix.S_IFDIR):
		return nil, unix.ENOTDIR
	}
	target := a.at.view
	rows := []*mount{m.bound(o.m, o.name, o.fd, o.view, target)}
	// What is in it was mounted later. What that covers goes with it: it may come to light.
	for _, r := range m.table.rows[slices.Index(m.table.rows, o.m)+1:] {
		if !covers(o.view, r.at) {
			continue
		}
		switch {
		case a.flags&unix.MS_REC != 0:
			rows = append(rows, m.bound(r, "", -1, r.at, target+r.at[len(o.view):]))
		case !r.made: // or what it covers would be seen
			err = unix.EINVAL
		}
	}
	if i := slices.Index(rows, nil); i >= 0 && err == nil {
		err = unix.ENFILE
	}
	if err != nil {
		for _, r := range rows {
			if r != nil {
				_ = r.fs.Close()
			}
		}
		return nil, err
	}
	return func() error { return m.addRows(rows) }, nil
}

// bound is a row that shows a part of another one; nil: there is no descriptor left.
func (m *Module) bound(of *mount, name string, fd int, source, target string) *mount {
	var fs FS = &subtree{fs: of.fs, at: name}
	whole := fd < 0 // it is in what is bound
	if of.dir != nil {
		if fd < 0 {
			fd = of.dir.root
		}
		d, err := dirFSOf(fd)
		if err != nil {
			return nil
		}
		d.apart = of.dir.apart
		fs = d
	}
	mt := Mount{Kind: Bind, Source: source, Target: target, ReadOnly: of.ReadOnly}
	if mt.Source == "" {
		mt.Source = "/"
	}
	r := rowAt(Mounted{Mount: mt, FS: fs})
	r.made, r.sealed, r.of, r.flags = true, of.ReadOnly, of, of.flags
	if whole {
		r.made, r.copied = of.made, true
	}
	return r
}

// addMade adds a mount of the target's own.
func (m *Module) addMade(mt Mounted, flags uint64, err error) error {
	if err != nil {
		var errno unix.Errno
		if !errors.As(err, &errno) {
			err = fmt.Errorf("%w: %w", err, unix.EINVAL)
		}
		m.log.Warn("a mount by the program", "mount", mt.Mount.String(), "err", err)
		return err
	}
	r := rowAt(mt)
	r.made, r.sealed, r.flags = true, mt.Kind == Image && mt.ReadOnly, flags&msKept
	if err := m.addRows([]*mount{r}); err != nil {
		closeTree(mt)
		return err
	}
	return nil
}

// addRows adds rows of the target's own, which are closed if there is an error.
func (m *Module) addRows(rows []*mount) error {
	err := m.alter(func(t *table) (*table, error) {
		for _, r := range rows {
			if r.of != nil && r.of != t.host && !slices.Contains(t.tagged, r.of) {
				return nil, unix.ENOENT // it has gone meanwhile
			}
		}
		n := t
		for _, r := range rows {
			var err error
			if n, err = n.with(r); err != nil {
				return nil, err
			}
		}
		for _, r := range rows {
			if r.of != nil && r.of.tree != nil {
				r.tree.over(r.of.tree)
			}
			if r.of != nil && !r.of.alias && r.of.tag != 0 { // it has two names from now on
				now := *r.of
				now.alias = true
				n = n.replacing(r.of, &now)
			}
		}
		return n, nil
	})
	if err != nil {
		for _, r := range rows {
			if r.of != nil {
				_ = r.fs.Close()
			}
		}
	}
	return err
}

// replacing is the table with a row in another's place.
func (t *table) replacing(old, now *mount) *table {
	rows, gone, tagged := slices.Clone(t.rows), slices.Clone(t.gone), slices.Clone(t.tagged)
	for _, list := range [][]*mount{rows, gone, tagged} {
		for i := range list {
			if list[i] == old {
				list[i] = now
			}
		}
	}
	return t.of(rows, gone, tagged)
}

// doUmount is umount2(2).
func (m *Module) doUmount(c *intercept.Call) (func() error, error) {
	return m.umount(c, int(uint32(c.Args[1])))
}

// doOldUmount is umount(2) of the i386 entry.
func (m *Module) doOldUmount(c *intercept.Call) (func() error, error) { return m.umount(c, 0) }

func (m *Module) umount(c *intercept.Call, flags int) (func() error, error) {
	if flags&^(unix.MNT_FORCE|unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) != 0 {
		return nil, unix.EINVAL
	}
	how := 0
	if flags&unix.UMOUNT_NOFOLLOW != 0 {
		how = unix.AT_SYMLINK_NOFOLLOW
	}
	o, err := m.find(c, unix.AT_FDCWD, intercept.Addr(c.Args[0]), how)
	if err != nil {
		return nil, err
	}
	o.close()
	switch {
	case !o.root() || o.m.detached():
		return nil, unix.EINVAL
	case !o.m.made:
		return nil, unix.EPERM
	}
	row := o.m
	return func() error {
		return m.unmount(func(t *table) int { return slices.Index(t.rows, row) }, flags&unix.MNT_DETACH != 0, true)
	}, nil
}
