// SPDX-License-Identifier: Apache-2.0

// Files of procfs for tasks in a user namespace of their own.

package fsmod

import (
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// procfs writes users and groups as they are called in the user namespace of who opened the
// file, and takes a mapping only from one who is in the namespace or in the one above it
// (user_namespaces(7); kernel/user_namespace.c:proc_uid_map_write). So for a task in another
// namespace than ours its files are opened from there.

// foreignProc reports whether an open of a file must be made in the caller's user namespace.
func (m *Module) foreignProc(c *intercept.Call, o *object) bool {
	return o.typ() == unix.S_IFREG && unix.Major(o.st.Dev) == 0 && isProc(o.fd) && !ownUserNamespace(strconv.Itoa(c.TID))
}

// openInNamespace opens an object of procfs in the user namespace of the calling thread,
// with the capabilities that the thread has there.
func (m *Module) openInNamespace(c *intercept.Call, o *object, flags int) (fd int, err error) {
	ns, err := unix.Open(taskFile(c.TID, "ns/user"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, unix.EACCES
	}
	defer unix.Close(ns)
	cr, err := taskCredentials(strconv.Itoa(c.TID))
	if err != nil {
		return -1, err
	}
	open := func() { fd, err = openByChild(ns, o.fd, flags|unix.O_CLOEXEC, cr.within) }
	if m.mixed.Load() {
		m.asOurselves(open) // for setns(2), after which there are no others than the task's
	} else {
		open()
	}
	return fd, err
}

// mayTrace reports whether the calling thread, which is in another user namespace than ours, may look at
// what procfs keeps for who may trace the task tid. It opens a file there for which that is asked
// and nothing else.
func (m *Module) mayTrace(c *intercept.Call, tid int) bool {
	at, err := unix.Open(taskFile(tid, "environ"), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(at)
	fd, err := m.openInNamespace(c, &object{fd: at}, unix.O_RDONLY)
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
}

// openByChild opens what a descriptor refers to in a user namespace, with some capabilities.
// Only a process of one thread can go there (setns(2)): one is made for this, a copy of ours
// that shares the descriptors. It makes five system calls and uses nothing of Go's runtime, whose
// other threads it has not got.
//
//go:norace
func openByChild(ns, fd, flags int, caps uint64) (int, error) {
	path, err := unix.BytePtrFromString(procFD(fd))
	if err != nil {
		return -1, err
	}
	var pipe [2]int
	// We have both its ends: if the child is killed, nothing ends a read that waits.
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return -1, err
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	var got int64
	size := unsafe.Sizeof(got)
	at := unix.AT_FDCWD
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	for i, half := range []uint32{uint32(caps), uint32(caps >> 32)} {
		data[i].Effective, data[i].Permitted = half, half
	}
	// Without a signal at its end, so that nobody waits for it but here.
	pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, unix.CLONE_FILES, 0, 0, 0, 0, 0)
	if errno != 0 {
		return -1, errno
	}
	if pid == 0 {
		_, _, errno := unix.RawSyscall(unix.SYS_SETNS, uintptr(ns), unix.CLONE_NEWUSER, 0)
		if errno == 0 { // all capabilities there are ours by now
			_, _, errno = unix.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&hdr)), uintptr(unsafe.Pointer(&data[0])), 0)
		}
		if errno == 0 {
			var r uintptr
			r, _, errno = unix.RawSyscall6(unix.SYS_OPENAT, uintptr(at), uintptr(unsafe.Pointer(path)), uintptr(flags), 0, 0, 0)
			got = int64(r)
		}
		if errno != 0 {
			got = -int64(errno)
		}
		_, _, _ = unix.RawSyscall(unix.SYS_WRITE, uintptr(pipe[1]), uintptr(unsafe.Pointer(&got)), size)
		for {
			_, _, _ = unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0)
		}
	}
	for {
		_, err := unix.Wait4(int(pid), nil, unix.WALL, nil)
		if err != unix.EINTR {
			break
		}
	}
	if n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(pipe[0]), uintptr(unsafe.Pointer(&got)), size); errno != 0 || n != size {
		return -1, unix.EACCES // it was killed
	}
	if got < 0 {
		return -1, unix.Errno(-got)
	}
	return int(got), nil
}
