// SPDX-License-Identifier: Apache-2.0

// Messages that are sent from here, on duplicates of the program's sockets: see duplicate.go.

package netmod

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// A layout is that of messages in memory.
type layout struct {
	read  func(c *intercept.Call, hdr intercept.Addr, flags int) (*transfer, error)
	size  uint64 // of a struct mmsghdr
	lenAt uint64 // of msg_len in it
}

var nativeLayout = layout{read: readSend, size: sizeofMmsghdr, lenAt: sizeofMsghdr}

// sendtoCopy is sendto(2) with an address, or with arguments in memory (socketcall(2)).
func (m *Module) sendtoCopy(c *intercept.Call, d intercept.FD) intercept.Action {
	return m.sendto(c, d, c.Args)
}

// sendto is sendtoCopy with its arguments.
func (m *Module) sendto(c *intercept.Call, d intercept.FD, a [6]uint64) intercept.Action {
	inMemory := c.Arch == intercept.I386 && c.NR == i386Socketcall
	if a[4] == 0 && !inMemory {
		return intercept.Continue() // there is no address, and there can be none
	}
	x := &transfer{flags: int(int32(a[3]))}
	if err := x.span(a[1], a[2]); err != nil {
		return intercept.Fail(intercept.Errno(err))
	}
	if a[4] != 0 {
		var err error
		if x.to, err = readSockaddr(c, intercept.Addr(a[4]), int32(a[5])); err != nil {
			return intercept.Fail(intercept.Errno(err))
		}
	}
	if action, ok := m.byThread(c, d, a[0], x); ok {
		return action
	}
	return m.sendCopy(c, d, x)
}

func (m *Module) sendmsgCopy(c *intercept.Call, d intercept.FD) intercept.Action {
	return m.sendmsg(c, d, &nativeLayout, c.Args)
}

// sendmsg is sendmsg(2) with its arguments.
func (m *Module) sendmsg(c *intercept.Call, d intercept.FD, l *layout, a [6]uint64) intercept.Action {
	x, err := l.read(c, intercept.Addr(a[1]), int(int32(a[2])))
	if err != nil {
		return intercept.Fail(intercept.Errno(err))
	}
	if action, ok := m.byThread(c, d, a[0], x); ok {
		return action
	}
	return m.sendCopy(c, d, x)
}

func (m *Module) sendmmsgCopy(c *intercept.Call, d intercept.FD) intercept.Action {
	return m.sendmmsg(c, d, &nativeLayout, c.Args)
}

// sendmmsg is sendmmsg(2) with its arguments: it sends until a message fails, or has to wait
// while others were sent.
func (m *Module) sendmmsg(c *intercept.Call, d intercept.FD, l *layout, a [6]uint64) intercept.Action {
	n := min(int(uint32(a[2])), iovMax)
	for i := range n {
		hdr := a[1] + uint64(i)*l.size
		sent := func(bytes int64, err error) (int64, error) {
			if err == nil {
				var v [4]byte
				native.PutUint32(v[:], uint32(bytes))
				err = c.WriteMem(intercept.Addr(hdr+l.lenAt), v[:])
			}
			if err != nil && i > 0 {
				return int64(i), nil
			}
			return int64(i) + 1, err
		}
		x, err := l.read(c, intercept.Addr(hdr), int(int32(a[3])))
		var s *sending
		if err == nil {
			s, err = m.newSending(c, d, x)
		}
		if err != nil {
			return counted(sent(0, err))
		}
		bytes, err := s.once(d)
		switch {
		case s.waits(d, err) && (i == 0 || bytes > 0):
			return m.mayWait(c, d, s.files, func(fd int) (int64, error) { return sent(s.whole(fd)) })
		case err != nil && bytes == 0, s.x.left() > 0, i == n-1:
			closeFiles(s.files)
			return counted(sent(s.ended(err)))
		}
		closeFiles(s.files)
		if _, err := sent(bytes, nil); err != nil {
			return counted(sent(0, err))
		}
	}
	return intercept.Return(0)
}

// sendCopy sends a message that was read.
func (m *Module) sendCopy(c *intercept.Call, d intercept.FD, x *transfer) intercept.Action {
	s, err := m.newSending(c, d, x)
	if err != nil {
		return intercept.Fail(intercept.Errno(err))
	}
	if _, err = s.once(d); s.waits(d, err) {
		return m.mayWait(c, d, s.files, s.whole)
	}
	closeFiles(s.files)
	return counted(s.ended(err))
}

// A sending is a message on its way.
type sending struct {
	m       *Module
	c       *intercept.Call
	x       *transfer // what is left of it
	to      []byte
	control []byte
	files   []int       // to be closed at the end
	who     *unix.Ucred // that the message says it is from; nil: who sends it
	own     bool        // it says the program's process
	stream  bool
	netlink bool
	atOnce  bool // the kernel is to have all of it in one call
	sent    int64
}

// newSending copies what a message says beside its bytes.
func (m *Module) newSending(c *intercept.Call, d intercept.FD, x *transfer) (s *sending, err error) {
	s = &sending{m: m, c: c, x: x, to: x.to, control: x.ancillary}
	typ, err := unix.GetsockoptInt(d.N, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return nil, err
	}
	s.stream = typ == unix.SOCK_STREAM
	s.atOnce = x.flags&(unix.MSG_FASTOPEN|unix.MSG_ZEROCOPY) != 0 // it connects, or is counted
	switch domainOf(d) {
	case unix.AF_UNIX:
		c.About(aboutUnix)
		s.control = nil
		if m.find(d) != nil {
			break // a placeholder, whose other end wants bytes
		}
		// Of connected kinds the kernel refuses or ignores an address unseen.
		if err = s.carry(c, x); err == nil && len(x.to) > 0 && typ == unix.SOCK_DGRAM {
			var file int
			if s.to, file, err = m.unixTo(c, x.to); err == nil {
				s.files = append(s.files, file)
			}
		}
	case unix.AF_NETLINK:
		s.netlink = true
		takePort(c, d)
		s.control = nil
		err = s.carry(c, x)
	}
	if err == nil && !s.stream {
		err = s.fits(d)
	}
	if err != nil {
		closeFiles(s.files)
		return nil, err
	}
	return s, nil
}

// fits refuses what no socket of its kind sends in one piece.
func (s *sending) fits(d intercept.FD) error {
	room, err := unix.GetsockoptInt(d.N, unix.SOL_SOCKET, unix.SO_SNDBUF)
	if err == nil && s.x.left() > max(room, datagramMax) {
		return unix.EMSGSIZE
	}
	return err
}

// waits reports whether the rest of a message that ended so is to be waited for.
func (s *sending) waits(d intercept.FD, err error) bool {
	return err == unix.EAGAIN && s.x.flags&unix.MSG_DONTWAIT == 0 && !nonblocking(d.N)
}

// once sends what can be sent without waiting.
func (s *sending) once(d intercept.FD) (int64, error) {
	if s.atOnce && s.waits(d, unix.EAGAIN) {
		return 0, unix.EAGAIN
	}
	err := s.send(d.N, unix.MSG_DONTWAIT)
	return s.sent, err
}

// whole sends the rest, and waits for it.
func (s *sending) whole(fd int) (int64, error) {
	if s.netlink {
		return s.ended(s.insist(fd))
	}
	return s.ended(s.send(fd, 0))
}

// insistPause is between two attempts to send to a netlink socket that is full.
const insistPause = 5 * time.Millisecond

// insist sends until there is room. A thread with descriptors of its own (see piece) could not
// be brought back if it waited in the kernel; the next attempt finds the number to be no socket's.
func (s *sending) insist(fd int) error {
	var end time.Time
	if limit, err := unix.GetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO); err == nil && limit.Nano() > 0 {
		end = time.Now().Add(time.Duration(limit.Nano()))
	}
	for {
		err := s.send(fd, unix.MSG_DONTWAIT)
		if err != unix.EAGAIN || !end.IsZero() && time.Now().After(end) {
			return err
		}
		time.Sleep(insistPause)
	}
}

// ended is the result of a message that ended so.
func (s *sending) ended(err error) (int64, error) {
	if s.sent > 0 {
		return s.sent, nil
	}
	if err == unix.EPIPE && s.stream && s.x.flags&unix.MSG_NOSIGNAL == 0 {
		_ = unix.Tgkill(s.c.Task.TGID(), s.c.TID, unix.SIGPIPE)
	}
	return 0, err
}

// pieceMax is the most of a stream that is copied in one piece.
const pieceMax = 1 << 20

// send sends what is left, a datagram in one piece.
func (s *sending) send(fd, flags int) error {
	for first := s.sent == 0; first || s.x.left() > 0; first = false {
		size := s.x.left()
		if s.stream && !s.atOnce {
			size = min(size, pieceMax)
		}
		data, free, err := s.room(size)
		if err != nil {
			return err
		}
		if _, err = s.x.gather(s.c, data); err == nil {
			var n int
			n, err = s.piece(fd, data, flags)
			s.sent += int64(n)
			s.x.skip(n)
		}
		free()
		if err != nil || !s.stream {
			return err
		}
	}
	return nil
}

// room is memory for a piece of the message. What the kernel sends from where it is
// (MSG_ZEROCOPY) it keeps when the memory is unmapped.
func (s *sending) room(size int) (data []byte, free func(), err error) {
	switch {
	case s.x.flags&unix.MSG_ZEROCOPY != 0 && size > 0:
		data, err = unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err != nil {
			return nil, nil, fmt.Errorf("memory for a message: %w", unix.ENOBUFS)
		}
		return data, func() { _ = unix.Munmap(data) }, nil
	case size <= datagramMax:
		buf := getBuffer()
		return (*buf)[:size], func() { putBuffer(buf) }, nil
	}
	return make([]byte, size), func() {}, nil
}

// piece is sendmsg(2), with the rights of the calling thread. A netlink message may name files
// by numbers of descriptors, as ip-link(8) does a namespace, which are looked up where it is
// sent: so that is a thread that has no others.
func (s *sending) piece(fd int, data []byte, flags int) (n int, err error) {
	if !s.netlink {
		return s.pieceBy(fd, data, flags, func() error { return nil })
	}
	s.c.MayWait()
	intercept.OnThread(func() { n, err = s.pieceBy(fd, data, flags, func() error { return keepOnly(fd) }) })
	return n, err
}

// keepOnly gives the thread descriptors of its own, of which it closes all but one, and those by
// which Go's runtime waits: it may do so on any thread, as at the end of a collection, and gives
// the process up if it cannot. No message means anything by them.
func keepOnly(fd int) error {
	kept, err := waitedBy("/proc/self/fd")
	if err == nil {
		err = unix.Unshare(unix.CLONE_FILES)
	}
	if err == nil {
		err = closeBut(append(kept, fd))
	}
	if err == nil { // a number may have become another file's before the table was the thread's
		var still []int
		still, err = waitedBy("/proc/thread-self/fd")
		if err == nil {
			err = closeBut(append(still, fd))
		}
	}
	if err != nil {
		return fmt.Errorf("descriptors of a thread: %w", unix.ENOBUFS)
	}
	return nil
}

// waitedBy returns the descriptors of epoll(7) and eventfd(2) in a directory of descriptors.
func waitedBy(dir string) (fds []int, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		name, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil || name != "anon_inode:[eventpoll]" && name != "anon_inode:[eventfd]" {
			continue // that of the directory is closed by now
		}
		if fd, err := strconv.Atoi(e.Name()); err == nil {
			fds = append(fds, fd)
		}
	}
	return fds, nil
}

// closeBut closes all of the thread's descriptors but these.
func closeBut(fds []int) error {
	slices.Sort(fds)
	first := 0
	for _, fd := range slices.Compact(fds) {
		if fd > first {
			if err := unix.CloseRange(uint(first), uint(fd-1), 0); err != nil {
				return err
			}
		}
		first = fd + 1
	}
	return unix.CloseRange(uint(first), math.MaxUint32, 0)
}

// pieceBy is piece on a thread that was made ready.
func (s *sending) pieceBy(fd int, data []byte, flags int, ready func() error) (n int, err error) {
	flags |= s.x.flags | unix.MSG_NOSIGNAL
	e := s.m.paths.As(s.c, func() {
		if err = ready(); err != nil {
			return
		}
		n, err = sendPiece(fd, data, s.introduced(), s.to, flags)
		if err == unix.EPERM && s.who != nil && s.own {
			// Only who has CAP_SYS_ADMIN speaks for another process (unix(7)).
			s.who.Pid, s.own = int32(os.Getpid()), false
			n, err = sendPiece(fd, data, s.introduced(), s.to, flags)
		}
	})
	if e != nil {
		err = e
	}
	if err == nil {
		s.control = nil // goes with the first piece
	}
	return n, err
}

// introduced are the control messages.
func (s *sending) introduced() []byte {
	if s.who == nil {
		return s.control
	}
	return append(s.control[:len(s.control):len(s.control)], unix.UnixCredentials(s.who)...)
}

// sendPiece is sendmsg(2).
func sendPiece(fd int, data, control, to []byte, flags int) (int, error) {
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
	if len(control) > 0 {
		hdr.Control = &control[0]
		hdr.SetControllen(len(control))
	}
	n, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&hdr)), uintptr(flags))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
