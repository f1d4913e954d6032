// SPDX-License-Identifier: Apache-2.0

// Placeholders of datagram sockets, and how they come to show an error.

package netmod

import (
	"bytes"
	"fmt"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A placeholder that can show errors is an AF_UNIX datagram socket, connected with
// the module's end both ways. When a datagram socket that has unread datagrams
// leaves its peer, and the peer was connected to it, the kernel throws the
// datagrams away and sets ECONNRESET on the peer (net/unix/af_unix.c:
// unix_dgram_disconnected): pollers see POLLERR, and whoever waits in recv(2)
// wakes up. So to show an error the module's end disconnects, and connects again
// to the name of the program's end. For this to work at any time, the last
// datagram that the program wrote stays in the queue, marked as dealt with: the
// module reads ahead of it (SO_PEEK_OFF). The first one, a filler, is written
// through the program's end by the module.
//
// What the kernel shows is always ECONNRESET. The errno is told by the calls that
// trap.

// fillerLen is the length of the filler, in bytes. It is random, so that it can be
// told from what the program writes.
const fillerLen = 16

// Sizes in bytes. What stays behind counts against the program's send buffer, and
// poll(2) says that a socket is writable while a quarter of it is used. So the buffer
// is made as large as an ordinary user may have it by default, and where that fails,
// only small datagrams stay behind.
const (
	sendBuffer = 2 * 212992
	leaveSmall = 2048
)

// pair makes the placeholder, and returns the program's end. Without inotify, which
// has limits for each user, and for netlink it is a SOCK_SEQPACKET pair, which hangs
// up by itself and cannot show errors.
func (s *packet) pair(nonblock int) (fd int, err error) {
	flags := unix.SOCK_CLOEXEC | nonblock
	if s.family != unix.AF_NETLINK {
		if fd, err = s.shown(flags); err == nil {
			return fd, nil
		}
		s.m.warnOnce("closes", "errors are not shown to programs that wait for datagrams in recv(2) and poll(2)", "err", err)
	}
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|flags, 0)
	if err != nil {
		return -1, err
	}
	fd, s.peer = ends[0], ends[1]
	if err := markDatagrams(s.peer); err != nil {
		unix.Close(fd)
		s.dropPeer()
		return -1, err
	}
	return fd, nil
}

// shown makes a placeholder that can show errors.
func (s *packet) shown(flags int) (fd int, err error) {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|flags, 0)
	if err != nil {
		return -1, err
	}
	fd, s.peer = ends[0], ends[1]
	defer func() {
		if err != nil {
			unix.Close(ends[0])
			s.dropPeer()
		}
	}()
	if err := unix.Bind(fd, &unix.SockaddrUnix{}); err != nil { // the kernel picks a name
		return -1, fmt.Errorf("bind: %w", err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return -1, fmt.Errorf("getsockname: %w", err)
	}
	if err := unix.SetsockoptInt(s.peer, unix.SOL_SOCKET, unix.SO_PEEK_OFF, 0); err != nil {
		return -1, fmt.Errorf("SO_PEEK_OFF: %w", err)
	}
	s.leaveMax = leaveSmall
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer/2); err == nil { // it is doubled
		if n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF); err == nil && n >= sendBuffer {
			s.leaveMax = datagramMax
		}
	}
	if err := s.m.closes.add(s, fd); err != nil {
		return -1, err
	}
	s.end = name
	s.fill(fd)
	return fd, nil
}

// fill puts the filler into the queue of the module's end, through a descriptor of
// the program's.
func (s *packet) fill(fd int) {
	_ = send(fd, s.m.filler[:]) // without it an error is shown after the program's next write
}

// scoopLen is how many datagrams are read at once.
const scoopLen = 8

// A scoop is what is read at once.
type scoop struct {
	hdrs [scoopLen]struct {
		unix.Msghdr
		n uint32
		_ uint32
	}
	iovs [scoopLen]unix.Iovec
	data [scoopLen][datagramMax]byte
}

var scoops = sync.Pool{New: func() any { return new(scoop) }}

// recv receives at most n datagrams, and returns how many. Without keep they are
// taken out of the queue, and not looked at.
func (b *scoop) recv(fd, n int, keep bool) int {
	flags := unix.MSG_DONTWAIT
	if keep {
		flags |= unix.MSG_PEEK
	}
	for i := range n {
		h := &b.hdrs[i]
		h.Msghdr, h.n = unix.Msghdr{}, 0
		if keep {
			b.iovs[i].Base = &b.data[i][0]
			b.iovs[i].SetLen(datagramMax)
			h.Iov = &b.iovs[i]
			h.SetIovlen(1)
		}
	}
	for {
		got, _, e := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.hdrs)), uintptr(n), uintptr(flags), 0, 0)
		switch e {
		case 0:
			return int(got)
		case unix.EINTR:
			continue
		}
		return 0
	}
}

// upPair sends what the program wrote natively, and leaves the last datagram where
// it is. It returns false when nothing is left.
func (s *packet) upPair() (again bool) {
	b := scoops.Get().(*scoop)
	defer scoops.Put(b)
	for range 64 / scoopLen {
		n := b.recv(s.peer, scoopLen, true)
		leave := false
		for i := range n {
			p := b.data[i][:b.hdrs[i].n]
			cut := b.hdrs[i].Flags&unix.MSG_TRUNC != 0
			rest := s.cut // of a datagram that is too long for any network, and was refused
			s.cut = cut
			if leave = !cut && !rest && len(p) <= s.leaveMax; !cut {
				s.dealt++
			}
			if s.probes() {
				s.wrote = time.Now()
			}
			if !rest && !bytes.Equal(p, s.m.filler[:]) && (len(s.held) > 0 || !s.sendNative(p)) {
				s.held = append(s.held, append([]byte(nil), p...))
			}
		}
		left := 0
		if leave || n == 0 && s.dealt == 1 {
			left = 1
		}
		for s.dealt > left {
			k := b.recv(s.peer, min(s.dealt-left, scoopLen), false)
			if k == 0 {
				break
			}
			s.dealt -= k
		}
		if n < scoopLen {
			return false
		}
	}
	return true
}

// showErrors makes an error that is pending, or a queue of errors, visible to poll(2)
// and to native calls: each that comes, since a native call may have taken the one
// before. The mutex is held.
func (s *packet) showErrors() {
	if s.end == nil || !s.unshown || s.gone {
		return
	}
	if !s.troubled() {
		s.unshown = false
		return
	}
	s.upPair() // what is in the queue will be lost
	if s.hush() {
		return
	}
	if s.dealt == 0 {
		return // the next datagram that the program sends makes it possible
	}
	unspec := unix.RawSockaddr{Family: unix.AF_UNSPEC}
	_, _, e := unix.Syscall(unix.SYS_CONNECT, uintptr(s.peer), uintptr(unsafe.Pointer(&unspec)), 2)
	if e != 0 {
		s.m.log.Error("show an error", "errno", e)
		return
	}
	s.marked, s.unshown, s.dealt, s.cut = true, false, 0, false
	err := unix.SetsockoptInt(s.peer, unix.SOL_SOCKET, unix.SO_PEEK_OFF, 0)
	if err == nil {
		err = unix.Connect(s.peer, s.end)
	}
	s.m.closes.read()
	if err != nil || s.closed.Load() { // whoever has that name, it is not the program
		s.lost = true
		s.m.pump.schedule(&s.job, appHup)
	}
}

// proberPause is how long a prober does nothing with its socket before an error is
// shown to it.
const proberPause = 20 * time.Millisecond

// probes tells whether the socket looks like one of a program that sends probes and
// reads from the error queue what became of them: traceroute sends several, by calls
// that do not trap, and takes EHOSTUNREACH for an answer that it will read, but not
// ECONNRESET.
func (s *packet) probes() bool {
	return s.typ == unix.SOCK_RAW || s.proto == unix.IPPROTO_ICMP || s.proto == unix.IPPROTO_ICMPV6
}

// hush puts off what is to be shown to a prober that may send at any moment.
func (s *packet) hush() bool {
	if !s.probes() {
		return false
	}
	if s.hear(); len(s.errors) == 0 { // a receive may have met what is pending first
		return false
	}
	wait := proberPause - time.Since(s.wrote)
	if wait <= 0 {
		return false
	}
	if !s.hushed {
		s.hushed = true
		time.AfterFunc(wait, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.hushed = false
			s.showErrors()
		})
	}
	return true
}

// troubled tells whether there is something to show. What only the write itself
// would have told natively is not.
func (s *packet) troubled() bool { return s.soErr != 0 && !s.quiet || len(s.errors) > 0 }

// clearError takes back what the placeholder shows, before a call that traps tells
// it. fd is a duplicate of the program's end. If a native call has told it already,
// it is no longer pending.
func (s *packet) clearError(fd int) {
	if s.end == nil || fd < 0 {
		return
	}
	if s.probes() {
		s.wrote = time.Now()
	}
	if s.marked {
		s.marked, s.unshown = false, true // what will be left of it
		if v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); err == nil && v == 0 {
			s.soErr = 0
		}
	}
	if s.dealt == 0 && !s.lost {
		if s.upPair(); s.dealt == 0 {
			s.fill(fd)
			s.upPair()
		}
	}
}

// takeError returns the error that SO_ERROR reports, and clears it.
func (s *packet) takeError(fd int) unix.Errno {
	s.hear()
	s.clearError(fd)
	defer s.showErrors()
	return s.base.takeError(fd)
}

// answers tells whether a socket that is not closed has the name of the program's
// end. It is asked only when events were lost.
func (s *packet) answers() bool {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return true
	}
	defer unix.Close(fd)
	return unix.Connect(fd, s.end) == unix.EPERM // it is connected to the module's end, as only itself can be
}
