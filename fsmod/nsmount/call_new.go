// SPDX-License-Identifier: Apache-2.0

// What mount(2) makes anew: a tmpfs, something hidden, an image; for root all that the kernel has.

package nsmount

import (
	"errors"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"umrun/fsmod"
	"umrun/fsmod/imagemount"
	"umrun/intercept"
)

// mountNew makes a mount of one of our types.
func (c *caller) mountNew(at int, dir bool) error {
	image, _ := fsmod.IsImageType(c.Type)
	b := &builder{plan: &Plan{User: c.user}, pool: -1, link: c.link, fds: c.fds, base: enterBase}
	switch {
	case c.Type == "tmpfs" && dir:
		var tree int
		err := c.as(func() (err error) { // whose it is
			tree, err = newTmpfs(options(c.Data)...)
			return err
		})
		if err != nil {
			return err
		}
		if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: attributes(c.Flags), Attr_clr: unix.MOUNT_ATTR__ATIME}); err != nil {
			return err
		}
		return c.put(tree, at, Made{Mount: fsmod.Mount{Kind: fsmod.Tmpfs}, Fresh: true})
	case c.Type == fsmod.TypeHide && c.Data == "":
		if err := unix.Fchdir(c.fds); err != nil { // for the builder
			return err
		}
		tree, err := b.hidden(dir)
		if err != nil {
			return err
		}
		err = c.put(tree, at, Made{Mount: fsmod.Mount{Kind: fsmod.Hide}, Sealed: true})
		return errors.Join(err, b.finish())
	case image && dir:
		return c.mountImage(b, at)
	case image, c.Type == "tmpfs":
		return unix.ENOTDIR
	case c.user:
		return unix.EPERM
	}
	return c.mountOther(at)
}

// What the supervisor is asked for by way of the link.
const (
	ImageOpened = iota // to open an image, which is sent
	ImageServed        // to serve the one that it has opened, or the ramdisk; without a descriptor: for the mount of that
)

// mountImage makes the mount of an image: a regular file, or a ramdisk of the view.
func (c *caller) mountImage(b *builder, at int) error {
	var file int // that is the source
	if !c.Disk {
		src, err := c.find(c.Source, true)
		if err != nil {
			return err
		}
		var st unix.Stat_t
		switch err := unix.Fstat(src, &st); {
		case err != nil:
			return err
		case st.Mode&unix.S_IFMT == unix.S_IFBLK && !c.user:
			return c.mountOther(at)
		case st.Mode&unix.S_IFMT != unix.S_IFREG:
			return unix.ENOTBLK
		}
		err = c.as(func() (err error) {
			file, err = unix.Openat(c.fds, strconv.Itoa(src), unix.O_RDONLY|unix.O_CLOEXEC, 0)
			return err
		})
		if err != nil {
			return err
		}
	}
	_, written := fsmod.IsImageType(c.Type)
	switch {
	case c.link == nil:
		return unix.EPERM
	case written && !c.Disk && c.Flags&unix.MS_RDONLY == 0:
		return unix.EROFS // mount(8) tries again with ro
	case c.Data != "":
		return unix.EINVAL
	}
	if !c.Disk {
		if err := imagemount.Send(c.link, ImageOpened, os.NewFile(uintptr(file), c.Source)); err != nil {
			return err
		}
	}
	m := fsmod.Mount{Kind: fsmod.Image, Source: c.Source, ReadOnly: !written || c.Flags&unix.MS_RDONLY != 0}
	tree, err := b.served(ImageServed, m)
	if err != nil {
		return err
	}
	return c.put(tree, at, Made{Mount: m, Sealed: m.ReadOnly})
}

// mountOther has the kernel make a mount of a type that is none of ours, for root.
func (c *caller) mountOther(at int) error {
	source := c.Source
	if src, err := c.find(source, true); err == nil { // not all sources are paths
		var st unix.Stat_t
		if err = unix.Fstat(src, &st); err == nil && (st.Mode&unix.S_IFMT == unix.S_IFBLK || st.Mode&unix.S_IFMT == unix.S_IFREG) {
			source, err = nameOf(c.fds, src)
		}
		if err != nil {
			return err
		}
	}
	point, err := nameOf(c.fds, at)
	if err != nil {
		return err
	}
	if err := unix.Fchdir(at); err != nil {
		return err
	}
	// The kernel looks up itself what is no device, and what the options name. It is not to go by
	// links of processes from which the program's own domain keeps it. Where there are no domains
	// the program is in none.
	err = c.as(func() error {
		_ = intercept.EnterDomain()
		return unix.Mount(source, ".", c.Type, uintptr(c.Flags), c.data())
	})
	if err != nil {
		return err
	}
	rows, err := readTable(c.fds)
	for _, r := range rows {
		if r.point == point && find(c.rows, r.id) == nil {
			c.made = append(c.made, Made{ID: r.id, Unique: r.unique, Shows: r.shows, Mount: fsmod.Mount{Kind: fsmod.Kind(c.Type), Source: c.Source}})
			err = errors.Join(err, c.pinner().pin(at, r.id))
		}
	}
	return err
}

// fuseFD is the descriptor that the data of mount(2) names, if the type is a FUSE file system's.
func fuseFD(fstype, data string) (fd int, ok bool) {
	kind, _, _ := strings.Cut(fstype, ".")
	if kind != "fuse" && kind != "fuseblk" {
		return -1, false
	}
	for _, o := range options(data) {
		if n, is := strings.CutPrefix(o, "fd="); is { // the last one counts
			u, err := strconv.ParseUint(n, 0, 31) // 0x10 and 020 too, as the kernel
			fd, ok = int(u), err == nil
		}
	}
	return fd, ok
}

// data is what the kernel is told, where the descriptor that it names is another one.
func (c *caller) data() string {
	if !c.FUSE {
		return c.Data
	}
	all := options(c.Data)
	for i, o := range all {
		if strings.HasPrefix(o, "fd=") {
			all[i] = "fd=" + strconv.Itoa(enterLink)
		}
	}
	return strings.Join(all, ",")
}
