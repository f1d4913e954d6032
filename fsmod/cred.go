// SPDX-License-Identifier: Apache-2.0

// Whose rights a call is made with, and its umask.

package fsmod

import (
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// Credentials decide what a task may do with files.
type credentials struct {
	uid, gid uint32 // of the file system: setfsuid(2)
	groups   []uint32
	caps     uint64 // effective
	umask    uint32

	uids, gids [4]uint32 // real, effective, saved, of the file system
	permitted  uint64    // capabilities
	within     uint64    // effective ones in the task's own user namespace, whichever that is
}

// real are the credentials that access(2) asks with (fs/open.c:access_override_creds).
func (cr credentials) real() credentials {
	cr.uid, cr.gid, cr.caps = cr.uids[0], cr.gids[0], 0
	if cr.uid == 0 {
		cr.caps = cr.permitted
	}
	return cr
}

// taskCredentials reads those of a task (proc_pid_status(5)).
func taskCredentials(task string) (credentials, error) {
	var cr credentials
	var buf [procSize]byte
	b, err := intercept.ReadProc("/proc/"+task+"/status", buf[:])
	if err != nil {
		return cr, unix.ESRCH
	}
	seen := 0
	for line := range bytes.Lines(b) {
		name, rest, _ := bytes.Cut(line, []byte(":"))
		f := bytes.Fields(rest)
		number := func(i, base int) uint64 {
			if i >= len(f) {
				return 0
			}
			n, e := strconv.ParseUint(string(f[i]), base, 64)
			if e != nil {
				err = fmt.Errorf("%s of task %s: %w", name, task, unix.EIO)
			}
			return n
		}
		switch string(name) {
		case "Uid":
			for i := range cr.uids {
				cr.uids[i] = uint32(number(i, 10))
			}
			cr.uid = cr.uids[3]
		case "Gid":
			for i := range cr.gids {
				cr.gids[i] = uint32(number(i, 10))
			}
			cr.gid = cr.gids[3]
		case "Groups":
			for i := range f {
				cr.groups = append(cr.groups, uint32(number(i, 10)))
			}
		case "CapPrm":
			cr.permitted = number(0, 16)
		case "CapEff":
			cr.caps = number(0, 16)
		case "Umask":
			cr.umask = uint32(number(0, 8))
		default:
			continue
		}
		seen++
	}
	if seen != 6 && err == nil {
		err = unix.EIO
	}
	cr.within = cr.caps
	// Capabilities in a user namespace of the program's own are none over the host's files,
	// but for those of users who are mapped there, which we do not follow.
	if cr.caps|cr.permitted != 0 && task != "self" && !ownUserNamespace(task) {
		cr.caps, cr.permitted = 0, 0
	}
	return cr, err
}

// ownUserNamespace reports whether a task is in the user namespace that we are in.
func ownUserNamespace(task string) bool {
	var ours, its unix.Stat_t
	return unix.Stat("/proc/self/ns/user", &ours) == nil && unix.Stat("/proc/"+task+"/ns/user", &its) == nil &&
		inodeOf(&ours) == inodeOf(&its)
}

// Capabilities that are kept whoever we act for, without which we could not look at the
// task itself, nor go back: CAP_SETGID, CAP_SETUID, CAP_SYS_PTRACE (linux/capability.h).
// What procfs shows to those who may trace a task is asked for without the last, see
// [Module.guarded].
const (
	capPtrace = 1 << unix.CAP_SYS_PTRACE
	fileCaps  = ^uint64(1<<unix.CAP_SETGID | 1<<unix.CAP_SETUID | capPtrace)
)

func (cr *credentials) same(o *credentials) bool {
	return cr.uid == o.uid && cr.gid == o.gid && cr.caps&fileCaps == o.caps&fileCaps && slices.Equal(cr.groups, o.groups)
}

// as runs f with the credentials of the calling task, where tasks may have other ones than
// we have (mixed). An ordinary user's supervisor has them: what its target may become is the
// same to the host's files. A privileged one asks from the first time on that some task has
// changed its own.
func (m *Module) as(c *intercept.Call, f func() intercept.Action) intercept.Action {
	r, err := m.rightsOf(c)
	if err != nil {
		return intercept.Fail(unix.EACCES)
	}
	cr, ours := &r.credentials, r.ours
	if asksReal(c) {
		cr, ours = &r.asked, r.ask
	}
	if ours {
		return f()
	}
	var a intercept.Action
	if err := m.creds.during(cr, func() { a = f() }); err != nil {
		m.log.Error("act with the program's credentials", "uid", cr.uid, "gid", cr.gid, "err", err)
		return intercept.Fail(unix.EACCES)
	}
	return a
}

// during runs f on a thread that has cr instead of its own credentials, which are own's.
// The goroutine is locked to the thread meanwhile. A thread that cannot go back is
// never used again.
func (own *credentials) during(cr *credentials, f func()) (err error) {
	runtime.LockOSThread()
	back := false
	defer func() {
		if back {
			runtime.UnlockOSThread()
		} // else it ends with the goroutine, which no other is mixed up with
	}()
	caps := own.caps&^fileCaps | cr.caps&fileCaps&own.caps
	now := cr // what the thread has
	if err = cr.become(caps, own); err == nil {
		f()
	} else {
		now = nil
		if e := setCaps(own.caps); e != nil {
			panic(fmt.Sprintf("fsmod: capabilities cannot be had back: %v", e))
		}
	}
	if e := own.become(own.caps, now); e != nil {
		panic(fmt.Sprintf("fsmod: credentials cannot be had back: %v", e))
	}
	back = true
	return err
}

// become changes the calling thread's credentials, and no other's, from now on; nil: they are
// not known. What is the same is left as it is, since each call takes about as long as a look at
// a file.
func (cr *credentials) become(caps uint64, now *credentials) error {
	if now == nil || !slices.Equal(cr.groups, now.groups) {
		var p unsafe.Pointer
		if len(cr.groups) > 0 {
			p = unsafe.Pointer(&cr.groups[0])
		}
		if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(cr.groups)), uintptr(p), 0); errno != 0 {
			return fmt.Errorf("setgroups: %w", errno)
		}
	}
	// With the effective ones, which procfs asks for (user_namespaces(7), uid_map), those of the
	// file system change; the real ones stay ours, by which we look at tasks.
	const same = ^uintptr(0)
	for _, id := range []struct {
		effective, fs uintptr
		id            uint32
		is            bool
	}{
		{unix.SYS_SETRESGID, unix.SYS_SETFSGID, cr.gid, now != nil && cr.gid == now.gid},
		{unix.SYS_SETRESUID, unix.SYS_SETFSUID, cr.uid, now != nil && cr.uid == now.uid},
	} {
		if id.is {
			continue
		}
		_, _, errno := unix.RawSyscall(id.effective, same, uintptr(id.id), same)
		if now, _, _ := unix.RawSyscall(id.fs, same, 0, 0); errno != 0 || uint32(now) != id.id {
			return fmt.Errorf("setresuid or setresgid to %d: %w", id.id, unix.EPERM)
		}
	}
	return setCaps(caps)
}

// setCaps sets the thread's effective capabilities.
func setCaps(effective uint64) error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return fmt.Errorf("capget: %w", err)
	}
	data[0].Effective, data[1].Effective = uint32(effective), uint32(effective>>32)
	if _, _, errno := unix.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&hdr)), uintptr(unsafe.Pointer(&data[0])), 0); errno != 0 {
		return fmt.Errorf("capset: %w", errno)
	}
	return nil
}

// traced reports whether a thread has a tracer, and can be made to do nothing by us.
func traced(tid int) bool {
	var buf [procSize]byte
	b, _ := intercept.ReadProc(taskFile(tid, "status"), buf[:])
	_, rest, ok := bytes.Cut(b, []byte("\nTracerPid:\t"))
	return ok && rest[0] != '0'
}

// guarded runs f, which does with procfs what the kernel allows to who may trace the task
// tid, with no more rights to that than the caller has. It is EACCES where f was not run.
func (m *Module) guarded(c *intercept.Call, tid int, f func()) error {
	if tid != c.TID && tid != c.Task.TGID() && !ownUserNamespace(strconv.Itoa(c.TID)) {
		if !m.mayTrace(c, tid) {
			return unix.EACCES
		}
		f()
		return nil
	}
	return m.unprivileged(c, tid, f)
}

// unprivileged runs f, which opens a file of procfs that is the task tid's, without the capabilities that
// we have and the caller has not. What is opened keeps those that it was opened with, which count
// when a user namespace is mapped (user_namespaces(7)). It is EACCES where f was not run.
func (m *Module) unprivileged(c *intercept.Call, tid int, f func()) error {
	if !m.mixed.Load() {
		f()
		return nil
	}
	r, err := m.rightsOf(c)
	if err != nil {
		return unix.EACCES
	}
	its := r.caps
	if tid == c.TID || tid == c.Task.TGID() {
		its |= capPtrace
	}
	withCaps(func(now uint64) uint64 { return now & (fileCaps | its) }, f)
	return nil
}

// guardedFile is guarded for a file of procfs, of any other f alone. Where nobody has changed
// credentials only links matter: files are opened in the caller's user namespace (userns.go).
func (m *Module) guardedFile(c *intercept.Call, o *object, f func()) error {
	dir := o.typ() == unix.S_IFDIR
	if m.mixed.Load() || o.typ() == unix.S_IFLNK {
		tasks, _ := procTasks(o)
		switch {
		case len(tasks) == 0:
		case dir && m.ownFDs(c, o.view):
			m.asOurselves(f)
			return nil
		case dir: // which is for who may, by its owner and mode
			return m.unprivileged(c, tasks[0], f)
		default:
			return m.guarded(c, tasks[0], f)
		}
	}
	f()
	return nil
}

// ownFDs reports whether a path is of the caller's descriptors in procfs, which are its to
// see whoever owns the directory: that is root when the task has changed its user.
func (m *Module) ownFDs(c *intercept.Call, path string) bool {
	rest, ok := strings.CutPrefix(path, "/proc/"+strconv.Itoa(c.Task.TGID()))
	if !ok || !m.mixed.Load() {
		return false
	}
	rest = strings.TrimPrefix(rest, "/task/"+strconv.Itoa(c.TID))
	rest, ok = strings.CutPrefix(rest, "/fd")
	return ok && (rest == "" || rest[0] == '/' && numeric(rest[1:]))
}

// asOurselves runs f with all capabilities that we have.
func (m *Module) asOurselves(f func()) {
	withCaps(func(uint64) uint64 { return m.creds.caps }, f)
}

// withCaps runs f on a thread with the effective capabilities that are made of those that it
// has now.
func withCaps(of func(now uint64) uint64, f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	caps, err := effectiveCaps()
	if err == nil {
		err = setCaps(of(caps))
	}
	if err == nil {
		f()
		err = setCaps(caps)
	}
	if err != nil {
		panic(fmt.Sprintf("fsmod: capabilities: %v", err))
	}
}

// effectiveCaps are those of the calling thread.
func effectiveCaps() (uint64, error) {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return 0, fmt.Errorf("capget: %w", err)
	}
	return uint64(data[0].Effective) | uint64(data[1].Effective)<<32, nil
}

// umasking is held while the process has another umask than its own, which all threads
// share.
var umasking sync.Mutex

// create runs f, which makes a file, with the umask of the calling task. That is nearly
// always the one that we have too, as the first task got it from us.
func (m *Module) create(c *intercept.Call, mode uint32, f func(mode uint32) error) error {
	if !m.umasked.Load() {
		return f(mode &^ m.creds.umask)
	}
	cr, err := taskCredentials(strconv.Itoa(c.TID))
	if err != nil {
		return err
	}
	umasking.Lock()
	defer umasking.Unlock()
	old := unix.Umask(int(cr.umask))
	defer unix.Umask(old)
	return f(mode &^ cr.umask)
}

// privileged reports whether we could do more than a task that has changed its credentials.
func (m *Module) privileged() bool { return m.creds.caps&fileCaps != 0 || m.creds.uid == 0 }

// noteUmask sees a task change its umask.
func (m *Module) noteUmask(*intercept.Call) intercept.Action {
	m.umasked.Store(true)
	return intercept.Next()
}
