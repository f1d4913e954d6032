// SPDX-License-Identifier: Apache-2.0

// mount(2) and umount2(2) of a program, in the child that has gone to its view.
//
// What the program names is looked up once, as it would look it up itself and with no more
// rights than it has ([caller.as]). What is found is judged, and mounted or mounted on, by its descriptor.
// umount2(2) has no such form, and what is open is in use: there the place is judged anew, by
// the directory that it is in, which no link leads past.
//
// The meaning is that of the trap engine (fsmod/call_mount.go), the errors too.

package nsmount

import (
	"errors"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"umrun/fsmod"
	"umrun/intercept"
)

// A Call is a mount(2), or an umount2(2).
type Call struct {
	Umount   bool
	Source   string
	Target   string
	Type     string
	Data     string
	Flags    uint64
	PID, TID int
	Disk     bool // the source is a ramdisk, which the supervisor has
	FUSE     bool // the link is the descriptor that the data names

	As *fsmod.Rights // who calls, in root's view; nil: all are the same
}

const (
	msPropagation = unix.MS_SHARED | unix.MS_PRIVATE | unix.MS_SLAVE | unix.MS_UNBINDABLE
	msAtime       = unix.MS_NOATIME | unix.MS_NODIRATIME | unix.MS_RELATIME | unix.MS_STRICTATIME
	msKnown       = msPropagation | msAtime | unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_REMOUNT |
		unix.MS_BIND | unix.MS_REC | unix.MS_SYNCHRONOUS | unix.MS_DIRSYNC | unix.MS_MANDLOCK | unix.MS_SILENT | unix.MS_LAZYTIME
)

// A caller is the program while its call is made.
type caller struct {
	*Call
	fds  int // see readTable
	user bool
	link *os.File // to who has the images; nil: there is none

	rows []row  // of the view, as it was before
	made []Made // by programs
	walk walker
}

func (c *caller) do() (err error) {
	if c.user {
		if err := fewCaps(); err != nil {
			return err
		}
	}
	if c.rows, err = readTable(c.fds); err != nil {
		return err
	}
	c.walk = walker{root: enterRoot, cwd: enterCwd, pid: c.PID, tid: c.TID, fds: c.fds}
	if c.Umount && c.Flags&^(unix.MNT_FORCE|unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) != 0 {
		return unix.EINVAL
	}
	at, err := c.find(c.Target, !c.Umount || c.Flags&unix.UMOUNT_NOFOLLOW == 0)
	if err != nil {
		return err
	}
	id, err := mountID(at, "")
	switch {
	case err != nil:
		return err
	case find(c.rows, id) == nil: // of another namespace, or one that has gone
		return unix.EINVAL
	case !c.Umount:
		return c.mount(at, id)
	}
	if at, id, err = c.topmost(at, id); err != nil {
		return err
	}
	return c.umount(at, id)
}

// fewCaps leaves the calling thread, to which the goroutine is locked for good, what mounting
// takes: it is to find no more than the program does.
func fewCaps() error {
	runtime.LockOSThread()
	const admin = 1 << unix.CAP_SYS_ADMIN
	data := [2]unix.CapUserData{{Effective: admin, Permitted: admin}}
	return unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0])
}

// as runs f with the rights of the program. In an ordinary user's view all have those that fewCaps
// leaves.
func (c *caller) as(f func() error) (err error) {
	if c.As == nil {
		return f()
	}
	intercept.OnThread(func() {
		if err = c.As.Take(); err == nil {
			err = f()
		}
	})
	return err
}

// find opens what a path of the program's names, for its place alone.
func (c *caller) find(path string, follow bool) (fd int, err error) {
	err = c.as(func() (err error) {
		fd, err = c.walk.find(path, follow)
		return err
	})
	return fd, err
}

// own returns what is known of a mount that a program has made; nil: it has not.
func (c *caller) own(id uint64) *Made {
	if i := slices.IndexFunc(c.made, func(m Made) bool { return m.ID == id && !m.Locked }); i >= 0 {
		return &c.made[i]
	}
	return nil
}

// others reports whether there are mounts among rows that no program has made.
func (c *caller) others(rows []row) bool {
	return slices.ContainsFunc(rows, func(r row) bool { return c.own(r.id) == nil })
}

// mount makes or changes a mount at the file at, which is on the mount id.
func (c *caller) mount(at int, id uint64) error {
	root, err := openPath(unix.AT_FDCWD, "/")
	if err != nil {
		return err
	}
	defer unix.Close(root)
	dir, err := isDir(at)
	switch {
	case err != nil:
		return err
	case c.Flags&unix.MS_REMOUNT != 0:
		return c.remount(at, id)
	case c.Flags&unix.MS_BIND != 0:
		return c.bind(at, dir, same(at, root))
	case c.Flags&msPropagation != 0:
		if !isRoot(at) { // there is one namespace, and nowhere to propagate to
			return unix.EINVAL
		}
		return nil
	case c.Flags&^uint64(msKnown) != 0, c.Type == "":
		return unix.EINVAL
	case same(at, root):
		return unix.EBUSY
	}
	return c.mountNew(at, dir)
}

// attributes are those of flags.
func attributes(flags uint64) (attr uint64) {
	for flag, a := range map[uint64]uint64{
		unix.MS_RDONLY: unix.MOUNT_ATTR_RDONLY, unix.MS_NOSUID: unix.MOUNT_ATTR_NOSUID, unix.MS_NODEV: unix.MOUNT_ATTR_NODEV, unix.MS_NOEXEC: unix.MOUNT_ATTR_NOEXEC,
		unix.MS_NOATIME: unix.MOUNT_ATTR_NOATIME, unix.MS_STRICTATIME: unix.MOUNT_ATTR_STRICTATIME, unix.MS_NODIRATIME: unix.MOUNT_ATTR_NODIRATIME,
	} {
		if flags&flag != 0 {
			attr |= a
		}
	}
	if attr&unix.MOUNT_ATTR_STRICTATIME != 0 { // the kernel lets it win (do_mount)
		attr &^= unix.MOUNT_ATTR_NOATIME
	}
	return attr
}

// remount gives a mount of the program's other attributes.
func (c *caller) remount(at int, id uint64) error {
	m := c.own(id)
	writable := c.Flags&unix.MS_RDONLY == 0
	switch {
	case !isRoot(at):
		return unix.EINVAL
	case m == nil:
		return unix.EPERM
	case m.Sealed && writable && m.Mount.Kind == fsmod.Image:
		return unix.EROFS
	case m.Sealed && writable:
		return unix.EPERM
	}
	attr := unix.MountAttr{Attr_set: attributes(c.Flags), Attr_clr: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC}
	if c.Flags&msAtime != 0 {
		attr.Attr_clr |= unix.MOUNT_ATTR__ATIME | unix.MOUNT_ATTR_NODIRATIME
	}
	if c.Flags&unix.MS_BIND != 0 || c.Data == "" || m.Mount.Kind == fsmod.Image { // whose options are none of ours
		return unix.MountSetattr(at, "", unix.AT_EMPTY_PATH, &attr)
	}
	return c.reconfigure(at, m, &attr)
}

// reconfigure gives a file system other options, and its mount other attributes: both, or none. It
// must be the program's own: that of a bind is seen by others.
func (c *caller) reconfigure(at int, m *Made, attr *unix.MountAttr) error {
	if !m.Fresh {
		return unix.EPERM
	}
	fs, err := unix.Fspick(at, "", unix.FSPICK_EMPTY_PATH|unix.FSPICK_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fs)
	for _, o := range options(c.Data) {
		if key, value, ok := strings.Cut(o, "="); ok {
			err = unix.FsconfigSetString(fs, key, value)
		} else {
			err = unix.FsconfigSetFlag(fs, key)
		}
		if err != nil {
			return err
		}
	}
	var was unix.Statfs_t
	if err := unix.Fstatfs(at, &was); err != nil {
		return err
	}
	// First what files that are open to be written keep from it (EBUSY), as fs/super.c:reconfigure_super.
	if err := unix.MountSetattr(at, "", unix.AT_EMPTY_PATH, attr); err != nil {
		return err
	}
	if err = unix.FsconfigReconfigure(fs); err != nil {
		err = errors.Join(err, unix.MountSetattr(at, "", unix.AT_EMPTY_PATH, attributesOf(&was)))
	}
	return err
}

// attributesOf are all those of a mount of which statfs(2) has told: the numbers are mount(2)'s.
func attributesOf(st *unix.Statfs_t) *unix.MountAttr {
	const all = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC | unix.MOUNT_ATTR__ATIME | unix.MOUNT_ATTR_NODIRATIME
	attr := &unix.MountAttr{Attr_set: attributes(uint64(st.Flags)), Attr_clr: all}
	if st.Flags&(unix.ST_NOATIME|unix.ST_RELATIME) == 0 {
		attr.Attr_set |= unix.MOUNT_ATTR_STRICTATIME
	}
	return attr
}

// options are those of mount(2)'s data.
func options(data string) []string {
	return slices.DeleteFunc(strings.Split(data, ","), func(o string) bool { return o == "" })
}

// bind shows what is found at the source at another place.
func (c *caller) bind(at int, dir, top bool) error {
	if c.Source == "" {
		return unix.EINVAL
	}
	src, err := c.find(c.Source, true)
	if err != nil {
		return err
	}
	srcDir, err := isDir(src)
	if err != nil {
		return err
	}
	from, err := mountID(src, "")
	if err != nil {
		return err
	}
	of := find(c.rows, from)
	switch {
	case of == nil:
		return unix.EINVAL
	case top:
		return unix.EBUSY // it is the root of those who would not see it
	case srcDir != dir:
		return unix.ENOTDIR
	}
	name, err := nameOf(c.fds, src)
	if err != nil {
		return err
	}
	in, whole := below(c.rows, from, name), c.Flags&unix.MS_REC != 0
	if !whole && c.others(in) {
		return unix.EINVAL // what that covers would be seen
	}
	// A copy without what is mounted in it might be one of where another thread has moved
	// something meanwhile that is covered.
	tree, err := cloneTree(src, "", true)
	if err != nil {
		return err
	}
	own := c.own(from)
	made := Made{Mount: fsmod.Mount{Kind: fsmod.Bind, Source: name}, Sealed: of.readOnly && (own == nil || own.Sealed)}
	if err := c.put(tree, at, made); err != nil {
		return err
	}
	if err := c.inherit(from, name, in, tree); err != nil || whole {
		return err
	}
	return c.bare(tree)
}

// bare takes out of a copy what is mounted in it, which is to be the program's own; else the
// copy goes.
func (c *caller) bare(tree int) error {
	id, err := mountID(tree, "")
	if err == nil {
		c.rows, err = readTable(c.fds)
	}
	if err != nil {
		return err
	}
	in := below(c.rows, id, "/")
	if c.others(in) {
		return errors.Join(unix.EINVAL, detachWhole(tree))
	}
	for _, r := range slices.Backward(in) {
		dir, err := c.placeOf(r.id)
		if err == nil {
			err = unix.Fchdir(dir)
		}
		if err == nil {
			err = unix.Unmount(path.Base(r.point), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		}
		if err != nil {
			return errors.Join(err, detachWhole(tree))
		}
	}
	return nil
}

// inherit notes what is mounted in a copy: the program's is what is its own in the original, the
// part at name of mount from, in which in is mounted.
func (c *caller) inherit(from uint64, name string, in []row, tree int) error {
	rows, err := readTable(c.fds)
	if err != nil {
		return err
	}
	id, err := mountID(tree, "")
	if err != nil {
		return err
	}
	top := find(rows, id)
	if top == nil {
		return unix.EINVAL
	}
	originals := map[place]*Made{}
	for _, r := range in {
		originals[placeIn(c.rows, r, from, name)] = c.own(r.id)
	}
	for _, r := range below(rows, id, "/") {
		now := Made{Locked: true, Mount: fsmod.Mount{Kind: fsmod.Bind, Source: r.point}}
		if m := originals[placeIn(rows, r, id, top.point)]; m != nil {
			now = *m
		}
		now.ID, now.Unique, now.Shows, now.Fresh = r.id, r.unique, r.shows, false
		c.made = append(c.made, now)
	}
	return nil
}

// put puts a detached tree on the file at, as one that the program has made.
func (c *caller) put(tree, at int, m Made) error {
	if err := c.pinner().put(tree, at); err != nil {
		return err
	}
	return c.note(tree, m)
}

func (c *caller) pinner() *pinner { return &pinner{base: enterBase, fds: c.fds, user: c.user} }

// note remembers a mount, whose root is at, as the program's.
func (c *caller) note(at int, m Made) error {
	id, err := mountID(at, "")
	if err != nil {
		return err
	}
	rows, err := readTable(c.fds)
	if err != nil {
		return err
	}
	if r := find(rows, id); r != nil {
		m.ID, m.Unique, m.Shows = id, r.unique, r.shows
		c.made = append(c.made, m)
	}
	return nil
}
