// SPDX-License-Identifier: Apache-2.0

// mount(2) and umount2(2) of a program, in the supervisor.
//
// They trap, and of what uses the mounts nothing does, since a program has no capability in its view, and is to be
// able to mount all the same. Who is in a user or mount namespace of its own mounts there, by the
// kernel: such a call goes on, which the program cannot change while it waits.

package nsmount

import (
	"errors"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"umrun/fsmod"
	"umrun/intercept"
)

// Calls answers mount(2) and umount2(2) of a view's programs.
type Calls struct {
	Namespace func() (*Namespace, error) // of the view; it may wait for it

	// Image begins to serve the image that a program mounts.
	Image func(c *intercept.Call, call *Call) (Images, error)

	// Unmounted is told when a program has removed the last of its mounts of a file system, as
	// Done was told it, before the program hears of it itself.
	Unmounted func(device string)

	Log *slog.Logger

	domains atomic.Bool // a program has asked for a Landlock domain, see sandbox.go
	warned  sync.Once

	mu   sync.Mutex
	free map[int]string // threads that have shown to be in none, and when they began. Guarded by mu
}

// Images serve what one mount needs.
type Images interface {
	Link() *os.File // for the child, which has it for asking; nil: there is nobody to ask
	Disk() bool     // the source is one of the view's own, and open

	// Done tells what became of the mount, and which file system it shows. It returns the error
	// that the program gets.
	Done(device string, err error) error
}

// newer are the calls of which programs go back to mount(2), as mount(8) does, if there are none.
var newer = []int{
	unix.SYS_OPEN_TREE, unix.SYS_MOVE_MOUNT, unix.SYS_FSOPEN, unix.SYS_FSPICK, unix.SYS_MOUNT_SETATTR, sysOpenTreeAttr,
}

// parts are the calls by which a mount namespace is made that holds a part of its maker's, or nothing:
// there the directories above a mount could be moved, see pin.go, and the mount's place, too. A
// kernel that does not know them answers the same; clone3(2), whose flags are in memory, it does
// not have then, and programs go back to clone(2).
var parts = []struct {
	nr, i386 int
	arg      int // that of the flags
	flag     uint64
	errno    unix.Errno
}{
	{unix.SYS_OPEN_TREE, unix.SYS_OPEN_TREE, 2, openTreeNamespace, unix.EINVAL},
	{unix.SYS_FSMOUNT, unix.SYS_FSMOUNT, 1, fsmountNamespace, unix.EINVAL},
	{unix.SYS_UNSHARE, i386Unshare, 0, unshareEmptyMounts, unix.EINVAL},
	{unix.SYS_CLONE3, unix.SYS_CLONE3, 0, 0, unix.ENOSYS},
}

const (
	// linux/mount.h and linux/sched.h, v7.1
	openTreeNamespace  = 1 << 1
	fsmountNamespace   = 1 << 1
	unshareEmptyMounts = 1 << 20

	sysOpenTreeAttr = 467

	// Of the i386 entry; the newer calls have the same numbers at both.
	i386Mount   = 21
	i386Umount  = 22
	i386Umount2 = 52
	i386Unshare = 310
)

// Rules are the rules of these calls.
func (k *Calls) Rules() intercept.Rules {
	var rules intercept.Rules
	add := func(arch intercept.Arch, nr int, args []intercept.Arg, f func(*Namespace, *intercept.Call) error) {
		rules = append(rules, intercept.Rule{Arch: arch, NR: nr, Args: args, Do: intercept.Notify, Handler: k.handler(f)})
	}
	add(intercept.Native, unix.SYS_MOUNT, nil, k.mount)
	add(intercept.I386, i386Mount, nil, k.mount)
	umount2 := func(n *Namespace, c *intercept.Call) error { return k.umount(n, c, uint32(c.Args[1])) }
	add(intercept.Native, unix.SYS_UMOUNT2, nil, umount2)
	add(intercept.I386, i386Umount2, nil, umount2)
	add(intercept.I386, i386Umount, nil, func(n *Namespace, c *intercept.Call) error { return k.umount(n, c, 0) })
	for _, arch := range []intercept.Arch{intercept.Native, intercept.I386} {
		rules = append(rules, intercept.Rule{Arch: arch, NR: unix.SYS_LANDLOCK_RESTRICT_SELF, Do: intercept.Notify, Handler: intercept.HandlerFunc(k.restrict)})
	}
	for _, nr := range newer {
		var args []intercept.Arg
		if nr == unix.SYS_OPEN_TREE { // else it is an open
			args = []intercept.Arg{intercept.ArgMasked(2, unix.OPEN_TREE_CLONE, unix.OPEN_TREE_CLONE)}
		}
		for _, arch := range []intercept.Arch{intercept.Native, intercept.I386} {
			add(arch, nr, args, nil)
		}
	}
	for _, p := range parts {
		args := []intercept.Arg{intercept.ArgMasked(p.arg, p.flag, p.flag)}
		rules = append(rules, intercept.Rule{NR: p.nr, Args: args, Do: intercept.Deny(p.errno)},
			intercept.Rule{Arch: intercept.I386, NR: p.i386, Args: args, Do: intercept.Deny(p.errno)})
	}
	return rules
}

// handler answers with f's error the calls of those who are in the view's namespaces. Without f
// there are no such calls.
func (k *Calls) handler(f func(*Namespace, *intercept.Call) error) intercept.HandlerFunc {
	return func(c *intercept.Call) intercept.Action {
		c.MayWait()
		n, err := k.Namespace()
		if err != nil {
			return intercept.Fail(unix.EPERM)
		}
		if !n.Has(c.TID) || !mayMount(c) {
			return intercept.Continue() // it is for the kernel to say
		}
		if !c.Valid() { // it was not the caller's namespace
			return intercept.Fail(unix.EINTR)
		}
		if f == nil {
			return intercept.Fail(unix.ENOSYS)
		}
		c.TakesLong() // a process is started
		if a, must := k.inDomain(n, c); must {
			return a
		}
		return intercept.Fail(intercept.Errno(f(n, c)))
	}
}

func taskFile(tid int, name string) string { return "/proc/" + strconv.Itoa(tid) + "/" + name }

// mayMount reports whether a program of the view may mount: all of an ordinary user's, and those
// of root's that have the capability.
func mayMount(c *intercept.Call) bool {
	return Unprivileged() || c.Capable(unix.CAP_SYS_ADMIN)
}

// mount is mount(2). All that it points to is read once.
func (k *Calls) mount(n *Namespace, c *intercept.Call) error {
	call := Call{Flags: fsmod.MountFlags(c.Args[3])}
	for _, s := range []struct {
		at   uint64
		text *string
	}{{c.Args[2], &call.Type}, {c.Args[0], &call.Source}, {c.Args[4], &call.Data}} {
		if s.at == 0 {
			continue
		}
		var err error
		if *s.text, err = c.ReadString(intercept.Addr(s.at), pathMax); err == error(unix.ENAMETOOLONG) {
			err = unix.EINVAL // mm/util.c:strndup_user
		}
		if err != nil {
			return err
		}
	}
	image, _ := fsmod.IsImageType(call.Type)
	var err error
	if call.Target, err = c.ReadString(intercept.Addr(c.Args[1]), pathMax); err != nil {
		return err
	}
	if fd, ok := fuseFD(call.Type, call.Data); ok && !Unprivileged() {
		dup, err := c.Dup(fd)
		if err != nil {
			return unix.EINVAL // fs/fuse/inode.c:fuse_fill_super
		}
		dev := os.NewFile(uintptr(dup), "/dev/fuse")
		defer dev.Close()
		call.FUSE = true
		_, err = k.call(n, c, call, dev)
		return err
	}
	if !image || k.Image == nil || call.Flags&(unix.MS_REMOUNT|unix.MS_BIND|msPropagation) != 0 {
		_, err = k.call(n, c, call, nil)
		return err
	}
	served, err := k.Image(c, &call)
	if err != nil {
		return err
	}
	call.Disk = served.Disk()
	device, err := k.call(n, c, call, served.Link())
	return served.Done(device, err)
}

// umount is umount2(2), and umount(2) of old.
func (k *Calls) umount(n *Namespace, c *intercept.Call, flags uint32) error {
	target, err := c.ReadString(intercept.Addr(c.Args[0]), pathMax)
	if err != nil {
		return err
	}
	device, err := k.call(n, c, Call{Umount: true, Target: target, Flags: uint64(flags)}, nil)
	if device != "" && flags&unix.MNT_DETACH == 0 {
		k.Unmounted(device)
	}
	return err
}

// call has a child make the call of c. Of a new mount device is the file system, and of one that has
// gone, if no other shows it.
func (k *Calls) call(n *Namespace, c *intercept.Call, call Call, link *os.File) (device string, err error) {
	root, err := c.Task.OpenDir("root")
	if err != nil {
		return "", err
	}
	defer root.Close()
	cwd, err := c.Task.OpenDir("cwd")
	if err != nil {
		return "", err
	}
	defer cwd.Close()
	if !Unprivileged() {
		rights, err := fsmod.RightsOf(c.TID)
		if err != nil {
			return "", err
		}
		call.As = &rights
	}
	if call.PID, call.TID = c.Task.TGID(), c.TID; !c.Valid() {
		return "", unix.EINTR
	}
	device, err = n.call(call, link, root, cwd)
	var failed *ChangeError
	if err != nil && !errors.As(err, &failed) {
		k.Log.Error("a mount by the program", "target", call.Target, "err", err)
	}
	return device, err
}

// call makes a call of a program whose root and working directory these are.
func (n *Namespace) call(c Call, link, root, cwd *os.File) (device string, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	before := n.made
	if err = n.do(order{Call: &c}, link, root, cwd); err != nil {
		return "", err
	}
	has := func(made []Made, device string) bool {
		return slices.ContainsFunc(made, func(m Made) bool { return m.device() == device })
	}
	switch {
	case !c.Umount && len(n.made) > 0:
		return n.made[len(n.made)-1].device(), nil
	case c.Umount:
		for _, m := range before {
			if d := m.device(); !has(n.made, d) {
				return d, nil
			}
		}
	}
	return "", nil
}

// Made returns what programs have mounted, in the order in which it was.
func (n *Namespace) Made() (all []fsmod.Mount) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, m := range n.made {
		all = append(all, m.Mount)
	}
	return all
}
