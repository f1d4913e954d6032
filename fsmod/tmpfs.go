// SPDX-License-Identifier: Apache-2.0

// A tmpfs that a program mounts: one of the kernel's, where umrun may mount, and else a directory.

package fsmod

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// tmpfsOptions are those of a tmpfs (tmpfs(5)).
type tmpfsOptions struct {
	mode     uint32
	uid, gid int    // -1: ours
	data     string // as the program has them
	bound    string // the first that bounds it; empty: none does
}

// tmpfsOptions reads the options that this package knows. Others, and bounds, are for the kernel:
// err is then what there is without it.
func (m *Module) tmpfsOptions(c *intercept.Call, data string) (o tmpfsOptions, err error) {
	o = tmpfsOptions{mode: 0o1777, uid: -1, gid: -1, data: data}
	if m.mixed.Load() || os.Geteuid() == 0 {
		cr, err := taskCredentials(strconv.Itoa(c.TID))
		if err != nil {
			return o, err
		}
		o.uid, o.gid = int(cr.uid), int(cr.gid)
	}
	for word := range strings.SplitSeq(data, ",") {
		key, value, _ := strings.Cut(word, "=")
		base := 10
		switch key {
		case "":
			continue
		case "mode":
			base = 8
		case "uid", "gid":
		case "size", "nr_blocks", "nr_inodes":
			if value == "0" { // no limit
				continue
			}
			if _, ok := parseSize(value); o.bound == "" && (ok || strings.HasSuffix(value, "%")) { // else the kernel would refuse it, too
				o.bound = word
			}
			err = unix.EINVAL
			continue
		default:
			err = unix.EINVAL
			continue
		}
		n, e := strconv.ParseUint(value, base, 32)
		switch {
		case e != nil:
			err = unix.EINVAL
		case key == "mode":
			o.mode = uint32(n) & 0o7777
		case os.Geteuid() != 0 && (key == "uid" && int(n) != os.Geteuid() || key == "gid" && int(n) != os.Getegid()):
			err = unix.EINVAL // as for an id that a user namespace does not have
		case key == "uid":
			o.uid = int(n)
		default:
			o.gid = int(n)
		}
	}
	return o, err
}

// create makes the directory, for openPrivate.
func (o tmpfsOptions) create(root string) error {
	if err := os.Mkdir(root, 0o700); err != nil {
		return err
	}
	if err := unix.Lchown(root, o.uid, o.gid); err != nil {
		return err
	}
	return unix.Chmod(root, o.mode)
}

// openMade makes the tree of a tmpfs. without is the error of the options if there is none of the
// kernel's.
func (m *Module) openMade(o tmpfsOptions, without error) (FS, error) {
	fs, err := openKernelTmpfs(o)
	if !errors.Is(err, errNoMounts) {
		return fs, err
	}
	if without != nil {
		m.unboundable(o)
		return nil, without
	}
	return openPrivate(o.create)
}

// unboundable says why there is no tmpfs with a bound.
func (m *Module) unboundable(o tmpfsOptions) {
	if o.bound == "" {
		return
	}
	m.unbounded.Do(func() {
		m.log.Warn("a tmpfs that the program mounts is refused (EINVAL), as umrun cannot bound it, which takes CAP_SYS_ADMIN: --fs-engine ns can, and 0 asks for no bound", "option", o.bound)
	})
}

// errNoMounts says that umrun may not mount.
var errNoMounts = errors.New("umrun may not mount here")

// openKernelTmpfs mounts one in a mount namespace that has nothing else and that nobody is in, so
// that nobody finds it, and it ends with umrun at the latest. It is below the path of a private
// directory, by which its files are known from others.
func openKernelTmpfs(o tmpfsOptions) (FS, error) {
	place, gone, err := Private()
	if err != nil {
		return nil, err
	}
	root, options := filepath.Join(place, "root"), "mode=1777"
	if o.uid >= 0 {
		options += fmt.Sprintf(",uid=%d,gid=%d", o.uid, o.gid)
	}
	var ns *os.File
	fd := -1
	intercept.OnThread(func() {
		if ns, err = aloneWith(place, root); err != nil {
			err = fmt.Errorf("%w: %w", errNoMounts, err)
			return
		}
		if err = unix.Mount("none", root, "tmpfs", 0, options+","+o.data); err == nil {
			fd, err = unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		}
	})
	var d *dirFS
	if err == nil {
		d, err = newDirFS(fd)
	}
	if err != nil {
		if ns != nil {
			ns.Close()
		}
		return nil, errors.Join(err, gone())
	}
	d.own = func() error { return errors.Join(ns.Close(), gone()) }
	d.apart = &apart{ns: ns, root: root}
	return d, nil
}

// apart is where a mount is that no path of ours leads to.
type apart struct {
	ns   *os.File
	root string // there
}

// enter goes there with the thread, which ends soon.
func (a *apart) enter() error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	return unix.Setns(int(a.ns.Fd()), unix.CLONE_NEWNS)
}

// remount is mount(2) with MS_REMOUNT.
func (a *apart) remount(data string) (err error) {
	intercept.OnThread(func() {
		if err = a.enter(); err == nil {
			err = unix.Mount("none", a.root, "", unix.MS_REMOUNT, data)
		}
	})
	return err
}

// aloneWith gives the thread, which ends soon, a mount namespace that has nothing but a directory
// root and those above, on a tmpfs that is mounted at first at the directory at. It returns the
// namespace.
func aloneWith(at, root string) (_ *os.File, err error) {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return nil, fmt.Errorf("a mount namespace: %w", err)
	}
	ns, err := os.Open("/proc/thread-self/ns/mnt")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			ns.Close()
		}
	}()
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("propagation of /: %w", err)
	}
	if err := unix.Mount("none", at, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=700"); err != nil {
		return nil, fmt.Errorf("a tmpfs at %s: %w", at, err)
	}
	if err := os.MkdirAll(at+root, 0o700); err != nil {
		return nil, err
	}
	if err := unix.Chdir(at); err != nil {
		return nil, fmt.Errorf("chdir to %s: %w", at, err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return nil, fmt.Errorf("pivot_root to %s: %w", at, err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return nil, fmt.Errorf("unmount what was /: %w", err)
	}
	return ns, nil
}
