// SPDX-License-Identifier: Apache-2.0

// Sockets of the namespace that umrun itself uses: the contract of package stacks over
// non-blocking descriptors.

package kernel

import (
	"errors"
	"io"
	"net/netip"
	"strconv"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

// A socket is what streams and datagrams have in common.
type socket struct {
	st     *Stack
	family int

	mu     sync.RWMutex // held for writing by Close, for reading by what uses fd
	fd     int          // -1: closed
	cookie uint64       // SO_COOKIE, once it is closed

	stopsMu sync.Mutex
	stops   []func() // of Watch, which Close ends: each keeps a duplicate
}

// Socket makes a socket, see [stacks.Stack].
func (s *Stack) Socket(family, typ, proto int) (stacks.Socket, error) {
	if typ == unix.SOCK_RAW && !s.private {
		return nil, unix.EPERM // for whoever it is, it would be by our privileges
	}
	fd, err := s.SocketFD(family, typ, proto)
	if err != nil {
		return nil, err
	}
	err = unix.SetNonblock(fd, true)
	if s.private && err == nil { // see ListenNames
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, ownMark)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	if typ == unix.SOCK_STREAM {
		return &stream{socket: socket{st: s, fd: fd, family: family}}, nil
	}
	p := &packet{socket: socket{st: s, fd: fd, family: family}}
	p.tellAll()
	return p, nil
}

// do calls f with the descriptor; EBADF once it is closed.
func (k *socket) do(f func(fd int) error) error {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.fd < 0 {
		return unix.EBADF
	}
	for {
		if err := f(k.fd); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// sockaddr is a as the kernel takes it.
func (k *socket) sockaddr(a netip.AddrPort) unix.Sockaddr {
	if k.family == unix.AF_INET {
		sa := &unix.SockaddrInet4{Port: int(a.Port())}
		if ip := a.Addr().Unmap(); ip.Is4() {
			sa.Addr = ip.As4()
		}
		return sa
	}
	sa := &unix.SockaddrInet6{Port: int(a.Port())}
	if a.Addr().IsValid() {
		sa.Addr = a.Addr().As16()
	}
	if z, err := strconv.ParseUint(a.Addr().Zone(), 10, 32); err == nil {
		sa.ZoneId = uint32(z)
	}
	return sa
}

// addrPort is what the kernel says.
func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		a := netip.AddrFrom16(sa.Addr)
		if sa.ZoneId != 0 {
			a = a.WithZone(strconv.FormatUint(uint64(sa.ZoneId), 10))
		}
		return netip.AddrPortFrom(a, uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// Bind is bind(2).
func (k *socket) Bind(a netip.AddrPort) error {
	return k.do(func(fd int) error { return unix.Bind(fd, k.sockaddr(a)) })
}

// Connect is connect(2).
func (k *socket) Connect(a netip.AddrPort) error {
	return k.do(func(fd int) error {
		if a.IsValid() {
			return unix.Connect(fd, k.sockaddr(a))
		}
		sa := unix.RawSockaddr{Family: unix.AF_UNSPEC}
		_, _, e := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&sa)), unsafe.Sizeof(sa))
		return asError(e)
	})
}

// asError is e, or nil for none.
func asError(e unix.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

// Names is getsockname(2) and getpeername(2).
func (k *socket) Names() (local, remote netip.AddrPort) {
	_ = k.do(func(fd int) error {
		if sa, err := unix.Getsockname(fd); err == nil {
			local = addrPort(sa)
		}
		if sa, err := unix.Getpeername(fd); err == nil {
			remote = addrPort(sa)
		}
		return nil
	})
	return local, remote
}

// Shutdown is shutdown(2).
func (k *socket) Shutdown(how int) error {
	return k.do(func(fd int) error { return unix.Shutdown(fd, how) })
}

// SetOption is setsockopt(2).
func (k *socket) SetOption(level, name int, v []byte) error {
	return k.do(func(fd int) error {
		_, _, e := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name), uintptr(unsafe.Pointer(unsafe.SliceData(v))), uintptr(len(v)), 0)
		return asError(e)
	})
}

// Option is getsockopt(2).
func (k *socket) Option(level, name int, v []byte) (int, error) {
	n := uint32(len(v))
	err := k.do(func(fd int) error {
		_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name), uintptr(unsafe.Pointer(unsafe.SliceData(v))), uintptr(unsafe.Pointer(&n)), 0)
		return asError(e)
	})
	if err != nil {
		return 0, err
	}
	return int(n), nil
}

// Poll is poll(2).
func (k *socket) Poll() (ev stacks.Events) {
	_ = k.do(func(fd int) error {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | unix.POLLOUT | unix.POLLPRI | unix.POLLRDHUP}}
		_, err := unix.Poll(p, 0)
		ev = stacks.Events(uint16(p[0].Revents))
		return err
	})
	return ev
}

// Watch has f called when events begin to hold, see [stacks.Socket].
func (k *socket) Watch(mask stacks.Events, f func(stacks.Events)) (stop func()) {
	err := k.do(func(fd int) (err error) {
		stop, err = k.st.watch.add(fd, mask, func(_ int, ev stacks.Events) { f(ev) })
		return err
	})
	if err != nil {
		// No descriptors are left, or it is closed: whoever waits finds out by itself.
		f(mask)
		return func() {}
	}
	k.stopsMu.Lock()
	defer k.stopsMu.Unlock()
	k.stops = append(k.stops, stop)
	return stop
}

// Close closes the socket.
func (k *socket) Close() error {
	k.mu.Lock()
	if k.fd >= 0 {
		k.cookie, _ = unix.GetsockoptUint64(k.fd, unix.SOL_SOCKET, unix.SO_COOKIE)
		unix.Close(k.fd)
		k.fd = -1
	}
	k.mu.Unlock()
	k.stopsMu.Lock()
	defer k.stopsMu.Unlock()
	for _, stop := range k.stops {
		stop()
	}
	k.stops = nil
	return nil
}

// A stream is a TCP socket.
type stream struct {
	socket

	sending sync.Mutex // before mu
	rest    []byte     // was taken by Send, and not yet by the kernel; +checklocks:sending
	shut    bool       // SHUT_WR follows rest; +checklocks:sending
	later   *later     // who sends rest; nil: nobody; +checklocks:sending

	receiving sync.Mutex // from the look at what is there until it is taken; before mu
}

// A later sends what is left of a stream once there is room. The watcher's descriptor is
// one more of the connection, so that this goes on when the socket is closed, and the
// FIN comes behind.
type later struct{ stop func() }

// Listen is listen(2).
func (k *stream) Listen(backlog int) error {
	return k.do(func(fd int) error { return unix.Listen(fd, backlog) })
}

// Accept is accept(2).
func (k *stream) Accept() (stacks.StreamSocket, error) {
	var child int
	err := k.do(func(fd int) (err error) {
		child, _, err = unix.Accept4(fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &stream{socket: socket{st: k.st, fd: child, family: k.family}}, nil
}

// sendChunk is how many bytes are offered to the kernel at once. What was read from a
// payload cannot be put back, so it is little.
const sendChunk = 16 << 10

// Send queues bytes, see [stacks.StreamSocket].
func (k *stream) Send(p stacks.Payload) (int, error) {
	k.sending.Lock()
	defer k.sending.Unlock()
	if k.shut {
		return 0, unix.EPIPE
	}
	if err := k.flushLocked(); err != nil {
		return 0, err
	}
	var listens [4]byte
	_, _ = k.Option(unix.SOL_SOCKET, unix.SO_ACCEPTCONN, listens[:]) // it is never ready, and says why
	if k.Poll()&(unix.POLLOUT|unix.POLLERR|unix.POLLHUP) == 0 && listens == [4]byte{} {
		return 0, unix.EAGAIN
	}
	k.rest = make([]byte, min(p.Len(), sendChunk))
	n, err := io.ReadFull(p, k.rest)
	k.rest = k.rest[:n]
	if err != nil {
		k.rest = nil
		return 0, err
	}
	if err := k.flushLocked(); err != nil && !errors.Is(err, unix.EAGAIN) {
		return 0, err
	}
	return n, nil
}

// flushLocked gives the kernel what was taken, and sees to what it has no room for
// (EAGAIN). The mutex is held.
func (k *stream) flushLocked() error {
	err := k.do(k.pushLocked)
	if !errors.Is(err, unix.EAGAIN) {
		k.restedLocked()
		return err
	}
	if k.later == nil {
		l := &later{}
		_ = k.do(func(fd int) (err error) { // without a descriptor the next Send sees to it
			l.stop, err = k.st.watch.add(fd, unix.POLLOUT|unix.POLLERR|unix.POLLHUP, func(fd int, ev stacks.Events) { k.deliver(l, fd, ev) })
			if err == nil {
				k.later = l
			}
			return err
		})
	}
	return err
}

// pushLocked gives the kernel what it has room for. The mutex is held.
func (k *stream) pushLocked(fd int) error {
	for len(k.rest) > 0 {
		n, err := unix.SendmsgN(fd, k.rest, nil, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		k.rest = k.rest[n:]
	}
	return nil
}

// restedLocked ends what is done for the rest, of which nothing is left to be sent. The
// mutex is held.
func (k *stream) restedLocked() {
	k.rest = nil
	if k.later != nil {
		k.later.stop()
		k.later = nil
		k.st.rests.Delete(k)
	}
}

// Close is close(2); what was taken by Send goes on its way behind it.
func (k *stream) Close() error {
	k.sending.Lock()
	if k.later != nil {
		k.st.rests.Store(k, nil)
	}
	k.sending.Unlock()
	return k.socket.Close()
}

// deliver is called when there may be room for the rest.
func (k *stream) deliver(l *later, fd int, ev stacks.Events) {
	k.sending.Lock()
	defer k.sending.Unlock()
	if k.later != l {
		return // over, and so is fd
	}
	// Of a connection that is dead the cause is for Send and Recv to tell.
	if ev&(unix.POLLERR|unix.POLLHUP) == 0 {
		if err := k.pushLocked(fd); errors.Is(err, unix.EAGAIN) {
			return
		}
	}
	if k.shut {
		_ = unix.Shutdown(fd, unix.SHUT_WR)
	}
	k.restedLocked()
}

// Shutdown is shutdown(2); the end of what is sent comes behind the rest.
func (k *stream) Shutdown(how int) error {
	k.sending.Lock()
	defer k.sending.Unlock()
	switch {
	case k.later == nil || how == unix.SHUT_RD:
		return k.socket.Shutdown(how)
	case how == unix.SHUT_RDWR:
		if err := k.socket.Shutdown(unix.SHUT_RD); err != nil {
			return err
		}
	}
	k.shut = true
	return nil
}

// Recv writes received bytes to w, see [stacks.StreamSocket].
func (k *stream) Recv(w io.Writer, n int) (int, error) {
	b := make([]byte, min(n, 64<<10))
	k.receiving.Lock() // else two would have the same bytes
	defer k.receiving.Unlock()
	var got int
	err := k.do(func(fd int) (err error) {
		got, _, err = unix.Recvfrom(fd, b, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return err
	})
	switch {
	case err != nil:
		return 0, err
	case got == 0 && len(b) > 0:
		return 0, io.EOF
	}
	m, werr := w.Write(b[:got])
	if m > 0 { // only what w took goes
		err = k.do(func(fd int) error {
			_, _, err := unix.Recvfrom(fd, b[:m], unix.MSG_DONTWAIT)
			return err
		})
	}
	if errors.Is(werr, io.ErrShortWrite) {
		werr = nil
	}
	return m, errors.Join(err, werr)
}

// Abort closes with RST.
func (k *stream) Abort() {
	k.sending.Lock()
	k.restedLocked()
	k.sending.Unlock()
	_ = k.do(func(fd int) error {
		return unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	})
	k.Close()
}

// Unacked is SIOCOUTQ of tcp(7), also of a closed socket.
func (k *stream) Unacked() (bytes int, done bool) {
	k.sending.Lock()
	left := len(k.rest)
	k.sending.Unlock()
	k.mu.RLock()
	closed, cookie := k.fd < 0, k.cookie
	k.mu.RUnlock()
	if closed {
		bytes, done = k.st.leftBy(k.family, cookie)
		return bytes + left, done && left == 0
	}
	err := k.do(func(fd int) (err error) {
		bytes, err = unix.IoctlGetInt(fd, unix.SIOCOUTQ)
		return err
	})
	bytes += left
	return bytes, err != nil || bytes == 0
}
