// SPDX-License-Identifier: Apache-2.0

// Devices: files whose opening makes a descriptor of its own.

package fsmod

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// A Device is a device file.
type Device interface {
	// Open makes the descriptor that open(2) returns; flags are its flags. The caller
	// owns it. Errors are errnos, and ErrHost for what the host's own file is right for.
	Open(flags int) (fd int, err error)
}

// deviceRules are those of the ramdisks.
func (m *Module) deviceRules() (all intercept.Rules) {
	for _, d := range m.blocks {
		all = append(all, d.Rules()...)
	}
	return append(all, m.diskRules()...)
}

// device finds the device that a path of the calling thread names, or nil. As with
// trees, names are taken as they are written.
func (m *Module) device(c *intercept.Call, dir int, name string) Device {
	last := name[strings.LastIndexByte(name, '/')+1:]
	for at, d := range m.devices {
		if last != at[strings.LastIndexByte(at, '/')+1:] {
			continue
		}
		if whole, ok := spelled(c, dir, name); ok && whole == at {
			return d
		}
	}
	return nil
}

// DiskAt is the ramdisk that a path of the calling thread names, or nil.
func (m *Module) DiskAt(c *intercept.Call, path string) *Disk {
	disk, _ := m.device(c, unix.AT_FDCWD, path).(*Disk)
	return disk
}

// spelled makes a path of the calling thread absolute and clean, as it is written.
func spelled(c *intercept.Call, dir int, name string) (string, bool) {
	if !strings.HasPrefix(name, "/") {
		base := "cwd"
		if dir != unix.AT_FDCWD {
			base = fmt.Sprintf("fd/%d", dir)
		}
		from, err := link(c, base)
		if err != nil {
			return "", false
		}
		name = from + "/" + name
	} else if root, err := link(c, "root"); err == nil && root != "/" {
		name = root + name
	}
	return path.Clean(name), true
}

// sealed tells whether an open would write to what is the host's alone: by the path as it is
// written, and as it leads there now.
func (m *Module) sealed(c *intercept.Call, dir int, name string, flags uint64) bool {
	if len(m.seals) == 0 || flags&unix.O_ACCMODE == unix.O_RDONLY {
		return false
	}
	if whole, ok := spelled(c, dir, name); !ok || m.isSealed(whole) {
		return ok
	}
	fd, err := openHost(c, dir, name)
	if err != nil {
		return false // nothing is made there
	}
	defer unix.Close(fd)
	return m.sealedFile(fd)
}

// isSealed tells whether a path of the host, clean and without links, is in a sealed directory.
func (m *Module) isSealed(path string) bool {
	return slices.ContainsFunc(m.seals, func(at string) bool { return strings.HasPrefix(path, at+"/") })
}

// sealedFile is isSealed of an open file.
func (m *Module) sealedFile(fd int) bool {
	host, err := readlink(procFD(fd))
	return err == nil && m.isSealed(host)
}

// openHost opens, with O_PATH, what a path leads the kernel to when the calling thread uses it.
func openHost(c *intercept.Call, dir int, name string) (int, error) {
	const flags = unix.O_PATH | unix.O_CLOEXEC
	base := "root"
	rest, own := strings.CutPrefix(name, "/proc/self/")
	switch {
	case own:
		name = strings.TrimPrefix(taskFile(c.Task.TGID(), rest), "/")
	case strings.HasPrefix(name, "/"):
		name = "./" + name
	case dir == unix.AT_FDCWD:
		base = "cwd"
	default:
		base = fmt.Sprintf("fd/%d", dir)
	}
	at, err := unix.Open(taskFile(c.TID, base), flags, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(at)
	return unix.Openat(at, name, flags, 0)
}

// openDevice answers an open of a device, unless the host's file is the right one.
func openDevice(d Device, flags uint64) (intercept.Action, bool) {
	switch {
	case flags&(unix.O_CREAT|unix.O_EXCL) == unix.O_CREAT|unix.O_EXCL:
		return intercept.Fail(unix.EEXIST), true
	case flags&unix.O_DIRECTORY != 0:
		return intercept.Fail(unix.ENOTDIR), true
	}
	fd, err := d.Open(int(flags))
	switch {
	case errors.Is(err, ErrHost):
		return intercept.Action{}, false
	case err != nil:
		return intercept.Fail(intercept.Errno(err)), true
	}
	return intercept.InstallFD(fd, flags&unix.O_CLOEXEC != 0), true
}
