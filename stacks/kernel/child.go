// SPDX-License-Identifier: Apache-2.0

// The helper's side: a process in the namespace that makes sockets for its parent.

package kernel

import (
	"errors"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	childName  = "umrun-netns"       // argv[0]
	childEnv   = "UMRUN_NETNS"       // number of the control socket
	childPath  = "UMRUN_NETNS_FD"    // number of the namespace to enter; unset: it is there already
	childSpawn = "UMRUN_NETNS_SPAWN" // set: start the helper, in new namespaces, and wait for it
)

// ChildMain is to be called first thing in main, and in TestMain of packages that
// make stacks: in a helper it serves and does not return, in every other process it
// returns at once.
func ChildMain() {
	if os.Args[0] != childName {
		return
	}
	fd, err := strconv.Atoi(os.Getenv(childEnv))
	if err != nil {
		return
	}
	unix.CloseOnExec(fd)
	if os.Getenv(childSpawn) != "" {
		spawn(fd)
	} else {
		serve(fd)
	}
	unix.Exit(0)
}

// spawn starts the helper from a process that is dumpable, as its parent is not any
// more: else the maps of the new user namespace would be root's to write
// (proc(5), "dumpable").
func spawn(control int) {
	sys := newNamespaces()
	pid, err := syscall.ForkExec("/proc/self/exe", []string{childName}, &syscall.ProcAttr{
		Dir: "/", Env: childEnvironment(), Files: []uintptr{0, 1, 2, uintptr(control)}, Sys: sys,
	})
	if err != nil {
		_ = answer(control, failed("clone", err), nil)
		return
	}
	unix.Close(control) // its end is seen when the helper's is closed
	for {
		if _, err := unix.Wait4(pid, nil, 0, nil); !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// serve answers requests until the parent closes its end, or dies.
func serve(control int) {
	// The namespace may be that of this one thread.
	runtime.LockOSThread()
	// Nobody but the kernel's administrator looks into us, or takes the control socket.
	// An ordinary user's program could, since its user owns our user namespace, and
	// would be where any process of that user is, with a network that leads nowhere else.
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	_ = unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	if answer(control, arrive(), nil) != nil {
		return
	}
	buf := make([]byte, requestMax)
	for {
		n, _, err := unix.Recvfrom(control, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return
		}
		var q request
		var r reply
		var fds []int
		if q.decode(buf[:n]) {
			r, fds = q.perform()
		} else {
			r = failed("request", unix.EBADMSG)
		}
		if answer(control, r, fds) != nil {
			return
		}
	}
}

// arrive enters the namespace, if one is named, and tells which it is.
func arrive() reply {
	if s := os.Getenv(childPath); s != "" {
		fd, err := strconv.Atoi(s)
		if err != nil {
			return failed("setns", unix.EINVAL)
		}
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			return failed("setns", err)
		}
		unix.Close(fd)
	}
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		return failed("stat", err)
	}
	return reply{value: st.Ino}
}

// answer sends descriptors, which it closes, and then the reply: who has that knows that
// nobody else has the descriptors, so that a close of theirs is the last.
func answer(control int, r reply, fds []int) error {
	if len(fds) > 0 {
		err := send(control, []byte{0}, unix.UnixRights(fds...))
		closeAll(fds)
		if err != nil {
			return err
		}
	}
	return send(control, r.encode(), nil)
}

func send(control int, b, oob []byte) error {
	for {
		err := unix.Sendmsg(control, b, oob, nil, unix.MSG_NOSIGNAL)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// perform does what is asked for.
func (q *request) perform() (reply, []int) {
	switch q.op {
	case opSockets:
		return q.sockets()
	case opTUN:
		fd, err := openTUN(q.text, uint16(q.a))
		if err != nil {
			return failed(err.step, err.errno), nil
		}
		return reply{}, []int{fd}
	case opWrite:
		// The path is below /proc/sys/net, which shows the namespace of the thread.
		name, value, _ := cut(q.text)
		if err := os.WriteFile(name, []byte(value), 0); err != nil {
			return failed(name, err), nil
		}
		return reply{}, nil
	}
	return failed("request", unix.ENOSYS), nil
}

// sockets makes as many as it can of those that are asked for: the error is that of
// the first.
func (q *request) sockets() (reply, []int) {
	var fds []int
	for range min(q.n, batchMax) {
		fd, err := unix.Socket(int(q.a), int(q.b)|unix.SOCK_CLOEXEC, int(q.c))
		if err != nil && len(fds) == 0 {
			return failed("socket", err), nil
		}
		if err != nil {
			break
		}
		fds = append(fds, fd)
	}
	return reply{}, fds
}

// tunDevice is where TUN and TAP devices are made.
const tunDevice = "/dev/net/tun"

// A stepError is a step that failed.
type stepError struct {
	step  string
	errno unix.Errno
}

// openTUN makes a device in the namespace of the thread.
func openTUN(name string, flags uint16) (int, *stepError) {
	fd, err := unix.Open(tunDevice, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, &stepError{tunDevice, errno(err)}
	}
	ifr, err := unix.NewIfreq(name)
	if err == nil {
		ifr.SetUint16(flags)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	}
	if err != nil {
		unix.Close(fd)
		return -1, &stepError{"TUNSETIFF " + name, errno(err)}
	}
	return fd, nil
}

// cut splits "name\x00value".
func cut(s string) (name, value string, ok bool) {
	for i := range s {
		if s[i] == 0 {
			return s[:i], s[i+1:], true
		}
	}
	return s, "", false
}

// errno is the number in err; EIO if there is none.
func errno(err error) unix.Errno {
	var e unix.Errno
	if errors.As(err, &e) {
		return e
	}
	return unix.EIO
}
