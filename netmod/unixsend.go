// SPDX-License-Identifier: Apache-2.0

// Datagrams to the addresses of AF_UNIX sockets, in a view that has files of its own.

package netmod

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

func (m *Module) sendtoUnix(c *intercept.Call, d intercept.FD) intercept.Action {
	if !isUnixDatagram(d) || c.Args[4] == 0 {
		return intercept.Continue() // which looks at no path
	}
	x := &transfer{flags: int(int32(c.Args[3]))}
	if err := x.span(c.Args[1], c.Args[2]); err != nil {
		return intercept.Fail(intercept.Errno(err))
	}
	var err error
	if x.to, err = readSockaddr(c, intercept.Addr(c.Args[4]), int32(c.Args[5])); err != nil {
		return intercept.Fail(intercept.Errno(err))
	}
	return m.sendUnix(c, d, x)
}

func (m *Module) sendmsgUnix(c *intercept.Call, d intercept.FD) intercept.Action {
	if !isUnixDatagram(d) {
		return m.passUnix(c, d)
	}
	x, err := readSend(c, intercept.Addr(c.Args[1]), int(int32(c.Args[2])))
	if err != nil {
		return intercept.Fail(intercept.Errno(err))
	}
	return m.sendUnix(c, d, x)
}

// passUnix lets a call go on that looks at no path.
func (m *Module) passUnix(c *intercept.Call, d intercept.FD) intercept.Action {
	if !m.strangers.knows(c, d) {
		m.strangers.meet(d.Key.Cookie)
	}
	return intercept.Continue()
}

// sendUnix is sendmsg(2) of a datagram to an address.
func (m *Module) sendUnix(c *intercept.Call, d intercept.FD, x *transfer) intercept.Action {
	if len(x.to) == 0 {
		return intercept.Continue()
	}
	send, files, err := m.unixMessage(c, d, x)
	if err != nil {
		return intercept.Fail(intercept.Errno(err))
	}
	if x.flags&unix.MSG_DONTWAIT == 0 {
		return m.untilDone(c, d, files, send)
	}
	n, err := send(d.N)
	closeFiles(files)
	return counted(n, err)
}

// addressed reports whether one of n messages has an address. Their headers have size bytes,
// and begin with msg_name, of word bytes, and msg_namelen.
func addressed(c *intercept.Call, at intercept.Addr, n, size, word int) (bool, error) {
	head := make([]byte, word+4)
	for i := range n {
		if err := c.ReadMem(at+intercept.Addr(i*size), head); err != nil {
			if i > 0 {
				return false, nil // the kernel comes no further, either
			}
			return false, err
		}
		if native.Uint32(head[word:]) != 0 && !bytes.Equal(head[:word], make([]byte, word)) {
			return true, nil
		}
	}
	return false, nil
}

// sendmmsgUnix sends until a message fails or would wait.
func (m *Module) sendmmsgUnix(c *intercept.Call, d intercept.FD) intercept.Action {
	if !isUnixDatagram(d) {
		return m.passUnix(c, d)
	}
	n := min(int(uint32(c.Args[2])), iovMax)
	switch named, err := addressed(c, intercept.Addr(c.Args[1]), n, sizeofMmsghdr, 8); {
	case err != nil:
		return intercept.Fail(intercept.Errno(err))
	case !named:
		return intercept.Continue()
	}
	for i := range n {
		hdr := intercept.Addr(c.Args[1] + uint64(i)*sizeofMmsghdr)
		x, err := readSend(c, hdr, int(int32(c.Args[3])))
		var sent int64
		if err == nil {
			var send func(int) (int64, error)
			var files []int
			if send, files, err = m.unixMessage(c, d, x); err == nil {
				sent, err = send(d.N)
				if err == unix.EAGAIN && i == 0 && x.flags&unix.MSG_DONTWAIT == 0 {
					return m.untilDone(c, d, files, func(fd int) (int64, error) {
						n, err := send(fd)
						if err != nil {
							return 0, err
						}
						return 1, writeSent(c, hdr, n)
					})
				}
				closeFiles(files)
			}
		}
		if err == nil {
			err = writeSent(c, hdr, sent)
		}
		if err != nil {
			if i > 0 {
				return intercept.Return(int64(i))
			}
			return intercept.Fail(intercept.Errno(err))
		}
	}
	return intercept.Return(int64(n))
}

// writeSent stores msg_len of a struct mmsghdr.
func writeSent(c *intercept.Call, hdr intercept.Addr, n int64) error {
	var v [4]byte
	native.PutUint32(v[:], uint32(n))
	return c.WriteMem(hdr+sizeofMsghdr, v[:])
}

// unixMessage copies a message; send sends it, without waiting, and files are to be closed
// after the last time.
func (m *Module) unixMessage(c *intercept.Call, d intercept.FD, x *transfer) (send func(fd int) (int64, error), files []int, err error) {
	defer func() {
		if err != nil {
			closeFiles(files)
			files = nil
		}
	}()
	room, err := unix.GetsockoptInt(d.N, unix.SOL_SOCKET, unix.SO_SNDBUF)
	if err != nil {
		return nil, nil, err
	}
	size := uint64(0)
	for _, v := range x.iov {
		if size += v[1]; size > uint64(room) {
			return nil, nil, unix.EMSGSIZE
		}
	}
	data := make([]byte, size)
	if _, err := x.gather(c, data); err != nil {
		return nil, nil, err
	}
	var to []byte // none: to whom it is connected
	if len(x.to) > 0 {
		var file int
		if to, file, err = m.unixTo(c, x.to); err != nil {
			return nil, nil, err
		}
		if file >= 0 {
			files = append(files, file)
		}
	}
	who, own := c.Task.TGID(), os.Getpid()
	users, groups, err := taskIDs(c)
	if err != nil {
		return nil, files, err
	}
	cred := unix.Ucred{Pid: int32(who), Uid: users[0], Gid: groups[0]} // net/core/scm.c:scm_set_cred
	messages, err := unix.ParseSocketControlMessage(x.ancillary)
	if err != nil {
		return nil, files, unix.EINVAL
	}
	var control []byte
	for i := range messages {
		msg := &messages[i]
		switch { // as net/core/scm.c:__scm_send
		case msg.Header.Level != unix.SOL_SOCKET:
		case msg.Header.Type == unix.SCM_RIGHTS:
			fds, err := unix.ParseUnixRights(msg)
			if err != nil {
				return nil, files, unix.EINVAL
			}
			var ours []int
			for _, fd := range fds {
				dup, err := c.DupFD(fd)
				if err != nil {
					return nil, files, err
				}
				files, ours = append(files, dup.N), append(ours, dup.N)
			}
			control = append(control, unix.UnixRights(ours...)...)
		case msg.Header.Type == unix.SCM_CREDENTIALS:
			theirs, err := unix.ParseUnixCredentials(msg)
			if err != nil {
				return nil, files, unix.EINVAL
			}
			if !mayClaim(c, theirs, users, groups) {
				return nil, files, unix.EPERM
			}
			cred = *theirs
		default:
			return nil, files, unix.EINVAL
		}
	}
	send = func(fd int) (n int64, err error) {
		e := m.paths.As(c, func() {
			n, err = sendAtOnce(fd, data, append(control[:len(control):len(control)], unix.UnixCredentials(&cred)...), to, x.flags)
			if err == unix.EPERM && cred.Pid == int32(who) {
				// Only who has CAP_SYS_ADMIN speaks for another process (unix(7)).
				cred.Pid = int32(own)
				n, err = sendAtOnce(fd, data, append(control[:len(control):len(control)], unix.UnixCredentials(&cred)...), to, x.flags)
			}
		})
		if e != nil {
			err = e
		}
		return n, err
	}
	return send, files, nil
}

// sendAtOnce is sendmsg(2) that does not wait.
func sendAtOnce(fd int, data, control, to []byte, flags int) (int64, error) {
	var hdr unix.Msghdr
	var iov unix.Iovec
	if len(data) > 0 {
		iov.Base = &data[0]
		iov.SetLen(len(data))
		hdr.Iov = &iov
		hdr.SetIovlen(1)
	}
	if len(to) > 0 {
		hdr.Name, hdr.Namelen = &to[0], uint32(len(to))
	}
	hdr.Control = &control[0]
	hdr.SetControllen(len(control))
	n, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&hdr)), uintptr(flags|unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL))
	if errno != 0 {
		return 0, errno
	}
	return int64(n), nil
}

// ids are the real, the effective and the saved user or group of a thread.
type ids [3]uint32

// taskIDs are those of the calling thread.
func taskIDs(c *intercept.Call) (users, groups ids, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.TID))
	if err != nil || !c.Valid() { // else the number is the thread's that waits
		return users, groups, errors.Join(intercept.ErrGone, err)
	}
	read := func(name string) (v ids) {
		_, rest, _ := bytes.Cut(status, []byte("\n"+name+":"))
		line, _, _ := bytes.Cut(rest, []byte("\n"))
		words := bytes.Fields(line)
		for i := range v {
			if i >= len(words) {
				err = unix.EIO
				break
			}
			n, e := strconv.ParseUint(string(words[i]), 10, 32)
			if e != nil {
				err = unix.EIO
			}
			v[i] = uint32(n)
		}
		return v
	}
	users, groups = read("Uid"), read("Gid")
	return users, groups, err
}

// mayClaim reports whether the calling thread may say that it is cred
// (net/core/scm.c:scm_check_creds). The kernel asks us, who may more.
func mayClaim(c *intercept.Call, cred *unix.Ucred, users, groups ids) bool {
	return (int(cred.Pid) == c.Task.TGID() || capable(c, unix.CAP_SYS_ADMIN)) &&
		(slices.Contains(users[:], cred.Uid) || capable(c, unix.CAP_SETUID)) &&
		(slices.Contains(groups[:], cred.Gid) || capable(c, unix.CAP_SETGID))
}
