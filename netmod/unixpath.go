// SPDX-License-Identifier: Apache-2.0

// AF_UNIX sockets in a view that has files of its own: their names are paths of the view.

package netmod

import (
	"bytes"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// Paths tells where the paths of AF_UNIX addresses lead, in a view in which the kernel would
// find other files by them.
type Paths interface {
	// OpenSocket opens, with O_PATH, what a path means to the calling thread. The caller
	// closes it.
	OpenSocket(c *intercept.Call, path string) (fd int, err error)

	// BindSocket gives fd, a socket of the calling thread's, a path that means to the
	// thread what path does.
	BindSocket(c *intercept.Call, fd int, path string) error

	// SocketName is the path in the view of one that the kernel tells of a socket.
	SocketName(path string) string

	// As runs f with the rights of the calling thread over files.
	As(c *intercept.Call, f func()) error
}

// UsePaths has the paths of AF_UNIX addresses be p's to find. It is called before
// [Module.Rules].
//
// The calls that name a socket are then made here, on a duplicate of the program's, with
// an address that holds what was judged: the kernel never reads the program's, which may
// have changed by then. What the one who is called learns of the caller is the caller's
// user and groups, and our process.
func (m *Module) UsePaths(p Paths) { m.paths = p }

// unixRules are those of a kernel stack, whose other sockets are left alone.
func (m *Module) unixRules() intercept.Rules {
	if m.paths == nil {
		return nil
	}
	return intercept.Rules{
		on(unix.SYS_CONNECT, m.kernelUnix(m.handleUnixConnect)),
		on(unix.SYS_BIND, m.kernelUnix(m.bindUnix)),
		on(unix.SYS_GETSOCKNAME, m.kernelUnix(m.nameUnix)),
		on(unix.SYS_GETPEERNAME, m.kernelUnix(m.nameUnix)),
		on(unix.SYS_SENDTO, m.kernelUnix(m.sendtoUnix), intercept.ArgNonZero(4)),
		m.passing(on(unix.SYS_SENDMSG, m.kernelUnix(m.sendmsgUnix))),
		m.passing(on(unix.SYS_SENDMMSG, m.kernelUnix(m.sendmmsgUnix))),
	}
}

// kernelUnix answers calls on AF_UNIX sockets by f, and has the others go on.
func (m *Module) kernelUnix(f func(*intercept.Call, intercept.FD) intercept.Action) func(*intercept.Call) intercept.Action {
	return func(c *intercept.Call) intercept.Action {
		d, err := c.DupFD(int(int32(c.Args[0])))
		if err != nil {
			return intercept.Fail(intercept.Errno(err))
		}
		defer d.Close()
		if isUnix(d) {
			return f(c, d)
		}
		if d.Key.Cookie != 0 && !m.strangers.knows(c, d) {
			m.strangers.meet(d.Key.Cookie)
		}
		return intercept.Continue()
	}
}

// withUnix is [Module.with], but that AF_UNIX sockets are foreign's in a view with paths of
// its own.
func (m *Module) withUnix(c *intercept.Call, foreign func(*intercept.Call, intercept.FD) intercept.Action, f func(s socket, d *held) intercept.Action) intercept.Action {
	if m.paths == nil {
		return m.with(c, f)
	}
	fd, err := m.dup(c)
	if err != nil {
		return intercept.Fail(intercept.Errno(err))
	}
	d := &held{FD: fd}
	defer d.drop()
	if s := m.find(fd); s != nil {
		return f(s, d)
	}
	if isUnix(fd) {
		c.About(aboutUnix)
		return foreign(c, fd)
	}
	if !fd.IsSocket() {
		return intercept.Fail(unix.ENOTSOCK) // of the kernel it could be one by now (dup2)
	}
	return m.foreign(c, fd)
}

// isUnix reports whether d is an AF_UNIX socket.
func isUnix(d intercept.FD) bool {
	if d.Key.Cookie == 0 {
		return false
	}
	domain, err := unix.GetsockoptInt(d.N, unix.SOL_SOCKET, unix.SO_DOMAIN)
	return err == nil && domain == unix.AF_UNIX
}

// isUnixDatagram reports whether d, an AF_UNIX socket, takes the address of a message.
func isUnixDatagram(d intercept.FD) bool {
	typ, err := unix.GetsockoptInt(d.N, unix.SOL_SOCKET, unix.SO_TYPE)
	return err == nil && typ == unix.SOCK_DGRAM
}

// socketPath is the path in a sockaddr_un; ok is false if it has none, or the kernel takes
// it for malformed: unix(7), net/unix/af_unix.c:unix_validate_addr.
func socketPath(sa []byte) (path string, ok bool) {
	if len(sa) <= 2 || len(sa) > unix.SizeofSockaddrUnix || sockaddrFamily(sa) != unix.AF_UNIX || sa[2] == 0 {
		return "", false
	}
	p := sa[2:]
	if i := bytes.IndexByte(p, 0); i >= 0 {
		p = p[:i]
	}
	return string(p), true
}

// unixAddress is the sockaddr_un of a path.
func unixAddress(path string) []byte {
	return append(append(native.AppendUint16(nil, unix.AF_UNIX), path...), 0)
}

// unixTo judges the destination of a call, and returns the address to use in its place. The
// file in it, if there is one, is to be closed.
func (m *Module) unixTo(c *intercept.Call, sa []byte) (to []byte, file int, err error) {
	path, ok := socketPath(sa)
	if !ok {
		if m.conf.Doors != nil {
			err = m.conf.Doors.Judge(c.Task, sa)
		}
		return sa, -1, err
	}
	if file, err = m.paths.OpenSocket(c, path); err != nil {
		return nil, -1, err
	}
	if m.conf.Doors != nil {
		if err = m.conf.Doors.JudgeFile(file); err != nil {
			unix.Close(file)
			return nil, -1, err
		}
	}
	return unixAddress("/proc/self/fd/" + strconv.Itoa(file)), file, nil
}

func (m *Module) handleUnixConnect(c *intercept.Call, d intercept.FD) intercept.Action {
	sa, err := readSockaddr(c, intercept.Addr(c.Args[1]), int32(c.Args[2]))
	if err != nil {
		return intercept.Fail(intercept.Errno(err))
	}
	return m.connectUnix(c, d, sa)
}

// connectUnix is connect(2) of an AF_UNIX socket.
func (m *Module) connectUnix(c *intercept.Call, d intercept.FD, sa []byte) intercept.Action {
	c.About(aboutUnix)
	to, file, err := m.unixTo(c, sa)
	if err != nil {
		return intercept.Fail(intercept.Errno(err))
	}
	return m.untilDone(c, d, []int{file}, func(fd int) (n int64, err error) {
		if e := m.paths.As(c, func() { err = connectAtOnce(fd, to) }); e != nil {
			err = e
		}
		return 0, err
	})
}

// connectAtOnce connects fd, or says EAGAIN where it would have to wait. Until a
// stream is connected there is nothing else that its O_NONBLOCK is asked for.
func connectAtOnce(fd int, to []byte) error {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return err
	}
	if flags&unix.O_NONBLOCK == 0 {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags|unix.O_NONBLOCK); err != nil {
			return err
		}
		defer unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags)
	}
	return nameCall(unix.SYS_CONNECT, fd, to)
}

// nameCall is connect(2) or bind(2) with a sockaddr as it is.
func nameCall(nr uintptr, fd int, sa []byte) error {
	var p unsafe.Pointer
	if len(sa) > 0 {
		p = unsafe.Pointer(&sa[0])
	}
	if _, _, errno := unix.Syscall(nr, uintptr(fd), uintptr(p), uintptr(len(sa))); errno != 0 {
		return errno
	}
	return nil
}

// bindUnix is bind(2) of an AF_UNIX socket.
func (m *Module) bindUnix(c *intercept.Call, d intercept.FD) intercept.Action {
	sa, err := readSockaddr(c, intercept.Addr(c.Args[1]), int32(c.Args[2]))
	if err != nil {
		return intercept.Fail(intercept.Errno(err))
	}
	return m.bindUnixTo(c, d, sa)
}

// bindUnixTo is bindUnix with the address.
func (m *Module) bindUnixTo(c *intercept.Call, d intercept.FD, sa []byte) intercept.Action {
	c.About(aboutUnix)
	path, ok := socketPath(sa)
	if !ok {
		return result(nameCall(unix.SYS_BIND, d.N, sa))
	}
	err := m.paths.BindSocket(c, d.N, path)
	if intercept.Errno(err) == unix.EEXIST {
		err = unix.EADDRINUSE
	}
	return result(err)
}

// nameUnix is getsockname(2) and getpeername(2) of an AF_UNIX socket.
func (m *Module) nameUnix(c *intercept.Call, d intercept.FD) intercept.Action {
	return m.nameOfUnix(c, d, c.NR, intercept.Addr(c.Args[1]), intercept.Addr(c.Args[2]))
}

// nameOfUnix is nameUnix with its arguments; nr is the number of the call.
func (m *Module) nameOfUnix(c *intercept.Call, d intercept.FD, nr int, addr, lenAddr intercept.Addr) intercept.Action {
	sa := make([]byte, sockaddrMax)
	size := uint32(len(sa))
	if _, _, errno := unix.RawSyscall(uintptr(nr), uintptr(d.N), uintptr(unsafe.Pointer(&sa[0])), uintptr(unsafe.Pointer(&size))); errno != 0 {
		return intercept.Continue() // the kernel has the errno
	}
	path, ok := socketPath(sa[:min(int(size), unix.SizeofSockaddrUnix)])
	if !ok {
		return intercept.Continue()
	}
	name := m.paths.SocketName(path)
	if name == path {
		return intercept.Continue()
	}
	return result(writeSockaddr(c, addr, lenAddr, unixAddress(name)))
}

// unixRetry bounds how long a call that waits for room is not tried again. Whoever makes
// the room does not tell us.
const (
	unixRetryMin = time.Millisecond
	unixRetryMax = 10 * time.Millisecond
)

// untilDone answers by attempt, which is repeated as long as it says EAGAIN to a socket
// that would wait. d stays the caller's; files are closed at the end.
func (m *Module) untilDone(c *intercept.Call, d intercept.FD, files []int, attempt func(fd int) (int64, error)) intercept.Action {
	n, err := attempt(d.N)
	if err != unix.EAGAIN || nonblocking(d.N) {
		closeFiles(files)
		return counted(n, err)
	}
	fd, e := unix.FcntlInt(uintptr(d.N), unix.F_DUPFD_CLOEXEC, 0)
	if e != nil {
		closeFiles(files)
		return intercept.Fail(intercept.Errno(e))
	}
	var deadline <-chan time.Time
	limit, e := unix.GetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO)
	limited := e == nil && (limit.Sec != 0 || limit.Usec != 0)
	if limited {
		deadline = time.After(time.Duration(limit.Nano()))
	}
	stop := make(chan struct{})
	m.wg.Go(func() { // ends with the call, or the module
		defer closeFiles(files)
		defer unix.Close(fd)
		for pause := unixRetryMin; ; pause = min(2*pause, unixRetryMax) {
			select {
			case <-stop:
				return
			case <-m.ctx.Done():
				return
			case <-deadline:
				c.Complete(intercept.Fail(unix.EAGAIN))
				return
			case <-time.After(pause):
			}
			if n, err := attempt(fd); err != unix.EAGAIN {
				c.Complete(counted(n, err))
				return
			}
		}
	})
	return c.Park(func(intercept.Reason) intercept.Action {
		close(stop)
		if limited {
			return intercept.Fail(unix.EINTR) // signal(7)
		}
		return intercept.Restart()
	})
}

// counted answers a call that returns a number, or fails.
func counted(n int64, err error) intercept.Action {
	if err != nil {
		return intercept.Fail(intercept.Errno(err))
	}
	return intercept.Return(n)
}

// closeFiles closes descriptors, of which -1 is none.
func closeFiles(files []int) {
	for _, fd := range files {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}
