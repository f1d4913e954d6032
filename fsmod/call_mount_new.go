// SPDX-License-Identifier: Apache-2.0

// What mount(2) makes anew: a tmpfs, something hidden, an image.

package fsmod

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// The types of mount(2) that are ours. Those of images are the names that the kernel has for
// them, too, and begin to be read-only.
const (
	TypeHide  = "umrun.hide"
	typeImage = "umrun.image"
)

// imageTypes are the types of images, and whether the kernel writes to such. Here only a ramdisk
// is written to.
var imageTypes = map[string]bool{
	typeImage: true, "squashfs": false, "iso9660": false, "ext2": true, "ext3": true, "ext4": true, "vfat": true, "msdos": true,
}

// IsImageType reports whether a type of mount(2) is that of an image, and whether the kernel
// would write to such.
func IsImageType(fstype string) (image, written bool) {
	written, image = imageTypes[fstype]
	return image, written
}

// mountNew makes a mount of one of our types.
func (m *Module) mountNew(c *intercept.Call, a *mounting) (func() error, error) {
	_, isImage := imageTypes[a.fstype]
	dir := a.at.typ() == unix.S_IFDIR
	target := a.at.view
	if target == "" {
		return nil, unix.EBUSY
	}
	mt := Mount{Target: target, ReadOnly: a.flags&unix.MS_RDONLY != 0}
	switch {
	case a.fstype == "tmpfs" && dir:
		opts, without := m.tmpfsOptions(c, a.data)
		mt.Kind = Tmpfs
		return func() error {
			fs, err := m.openMade(opts, without)
			if errors.Is(err, unix.EINVAL) { // the options are bad, as the program is told
				return unix.EINVAL
			}
			return m.addMade(Mounted{Mount: mt, FS: fs}, a.flags, err)
		}, nil
	case a.fstype == TypeHide && a.data == "":
		mt.Kind = Hide
		return func() error {
			fs, err := openPrivate(func(root string) error { return makeHidden(root, dir) })
			return m.addMade(Mounted{Mount: mt, FS: fs}, a.flags, err)
		}, nil
	case isImage && dir:
		return m.mountImage(c, a, mt)
	case isImage || a.fstype == "tmpfs":
		return nil, unix.ENOTDIR
	}
	return nil, unix.EPERM
}

// mountImage makes the mount of an image: a regular file, or a ramdisk of the view.
func (m *Module) mountImage(c *intercept.Call, a *mounting, mt Mount) (func() error, error) {
	if m.image == nil {
		return nil, unix.EPERM
	}
	disk := m.DiskAt(c, a.source)
	if imageTypes[a.fstype] && !mt.ReadOnly && disk == nil {
		return nil, unix.EROFS // mount(8) tries again with ro
	}
	if a.data != "" {
		return nil, unix.EINVAL
	}
	file, done := "", func() {}
	if disk != nil {
		file = disk.Path()
	} else {
		o, err := m.resolvePath(c, unix.AT_FDCWD, a.source, true, 0)
		if err != nil {
			return nil, err
		}
		defer o.close()
		switch {
		case o.typ() != unix.S_IFREG:
			return nil, unix.ENOTBLK
		case o.m == nil || m.secret(c, &o):
			return nil, unix.EACCES
		}
		fd, err := o.reopen(0)
		if err != nil {
			return nil, err
		}
		file, done = procFD(fd), func() { unix.Close(fd) }
	}
	mt.Kind, mt.Source = Image, a.source
	mt.ReadOnly = mt.ReadOnly || !imageTypes[a.fstype]
	return func() error {
		defer done()
		mounted, format, err := m.image(file, mt)
		if err == nil && disk != nil {
			disk.Claim(&mounted)
		}
		if err == nil && !IsFormatOf(a.fstype, format) {
			closeTree(mounted)
			return unix.EINVAL
		}
		return m.addMade(mounted, a.flags, err)
	}, nil
}

// IsFormatOf reports whether an image of a format is what is mounted by a type.
func IsFormatOf(fstype, format string) bool {
	switch fstype {
	case typeImage:
		return true
	case "ext2", "ext3", "ext4":
		return strings.HasPrefix(format, "ext")
	case "vfat", "msdos":
		return strings.HasPrefix(strings.ToLower(format), "fat")
	}
	return format == fstype
}

func closeTree(mt Mounted) {
	_ = mt.FS.Close()
	if mt.Gone != nil {
		_ = mt.Gone()
	}
}
