// SPDX-License-Identifier: Apache-2.0

// The kernel behind the contract: non-blocking sockets of this machine.

package stacktest

import (
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

// Kernel is a stack made of the sockets of the network namespace that the
// program runs in. It is a test double: sockets are never reused after Close,
// and Close of the stack does nothing.
type Kernel struct{}

var _ stacks.Stack = Kernel{}

// State returns an empty state: nobody configured anything.
func (Kernel) State() stacks.State { return stacks.State{} }

// Close does nothing.
func (Kernel) Close() error { return nil }

// Socket is socket(2).
func (Kernel) Socket(family, typ, proto int) (stacks.Socket, error) {
	fd, err := unix.Socket(family, typ|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return nil, err
	}
	if typ == unix.SOCK_STREAM {
		return &kernelStream{kernelSocket{fd: fd, family: family}}, nil
	}
	for _, o := range []struct{ family, level, name int }{
		{unix.AF_INET, unix.IPPROTO_IP, unix.IP_PKTINFO},
		{unix.AF_INET, unix.IPPROTO_IP, unix.IP_RECVTTL},
		{unix.AF_INET, unix.IPPROTO_IP, unix.IP_RECVTOS},
		{unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO},
		{unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT},
		{unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS},
	} {
		if o.family == family {
			if err := unix.SetsockoptInt(fd, o.level, o.name, 1); err != nil {
				unix.Close(fd)
				return nil, err
			}
		}
	}
	return &kernelPacket{kernelSocket{fd: fd, family: family}}, nil
}

type kernelSocket struct {
	fd, family int
	close      sync.Once
}

func (k *kernelSocket) sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	sa := &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
	if z, err := strconv.Atoi(a.Addr().Zone()); err == nil {
		sa.ZoneId = uint32(z)
	}
	return sa
}

func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		a := netip.AddrFrom16(sa.Addr)
		if sa.ZoneId != 0 {
			a = a.WithZone(fmt.Sprint(sa.ZoneId))
		}
		return netip.AddrPortFrom(a, uint16(sa.Port))
	}
	return netip.AddrPort{}
}

func (k *kernelSocket) Bind(a netip.AddrPort) error { return unix.Bind(k.fd, k.sockaddr(a)) }

func (k *kernelSocket) Connect(a netip.AddrPort) error {
	if !a.IsValid() {
		sa := unix.RawSockaddr{Family: unix.AF_UNSPEC}
		_, _, e := unix.Syscall(unix.SYS_CONNECT, uintptr(k.fd), uintptr(unsafe.Pointer(&sa)), unsafe.Sizeof(sa))
		if e != 0 {
			return e
		}
		return nil
	}
	return unix.Connect(k.fd, k.sockaddr(a))
}

func (k *kernelSocket) Names() (local, remote netip.AddrPort) {
	if sa, err := unix.Getsockname(k.fd); err == nil {
		local = addrPort(sa)
	}
	if sa, err := unix.Getpeername(k.fd); err == nil {
		remote = addrPort(sa)
	}
	return local, remote
}

func (k *kernelSocket) Shutdown(how int) error { return unix.Shutdown(k.fd, how) }

func (k *kernelSocket) SetOption(level, name int, v []byte) error {
	var p unsafe.Pointer
	if len(v) > 0 {
		p = unsafe.Pointer(&v[0])
	}
	_, _, e := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(k.fd), uintptr(level), uintptr(name), uintptr(p), uintptr(len(v)), 0)
	if e != 0 {
		return e
	}
	return nil
}

func (k *kernelSocket) Option(level, name int, v []byte) (int, error) {
	n := uint32(len(v))
	var p unsafe.Pointer
	if n > 0 {
		p = unsafe.Pointer(&v[0])
	}
	_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(k.fd), uintptr(level), uintptr(name), uintptr(p), uintptr(unsafe.Pointer(&n)), 0)
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}

func (k *kernelSocket) Poll() stacks.Events {
	p := []unix.PollFd{{Fd: int32(k.fd), Events: unix.POLLIN | unix.POLLOUT | unix.POLLPRI | unix.POLLRDHUP}}
	if _, err := unix.Poll(p, 0); err != nil {
		return 0
	}
	return stacks.Events(uint16(p[0].Revents))
}

// Watch runs a goroutine on an edge-triggered epoll instance until stop.
func (k *kernelSocket) Watch(mask stacks.Events, f func(stacks.Events)) (stop func()) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		panic(err) // a test machine without descriptors
	}
	ev, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		panic(err)
	}
	for _, e := range []unix.EpollEvent{
		{Events: uint32(mask) | unix.EPOLLET, Fd: int32(k.fd)},
		{Events: unix.EPOLLIN, Fd: int32(ev)},
	} {
		if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, int(e.Fd), &e); err != nil {
			panic(err)
		}
	}
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		got := make([]unix.EpollEvent, 2)
		for {
			n, err := unix.EpollWait(ep, got, -1)
			if err != nil && err != unix.EINTR {
				return
			}
			for _, e := range got[:max(n, 0)] {
				if int(e.Fd) == ev {
					return
				}
				f(stacks.Events(e.Events))
			}
		}
	}()
	var once sync.Once
	return func() {
		once.Do(func() {
			unix.Write(ev, []byte{1, 0, 0, 0, 0, 0, 0, 0})
			wg.Wait()
			unix.Close(ep)
			unix.Close(ev)
		})
	}
}

func (k *kernelSocket) Close() error {
	k.close.Do(func() { unix.Close(k.fd) })
	return nil
}

type kernelStream struct{ kernelSocket }

func (k *kernelStream) Listen(backlog int) error { return unix.Listen(k.fd, backlog) }

func (k *kernelStream) Accept() (stacks.StreamSocket, error) {
	fd, _, err := unix.Accept4(k.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	if err != nil {
		return nil, err
	}
	return &kernelStream{kernelSocket{fd: fd, family: k.family}}, nil
}

func (k *kernelStream) Send(p stacks.Payload) (int, error) {
	// Looked at first, since what was read from p cannot be put back: with
	// little room in the send buffer the kernel would take a part.
	b := make([]byte, min(p.Len(), 4096))
	listening, _ := unix.GetsockoptInt(k.fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if listening == 0 && k.Poll()&unix.POLLOUT == 0 {
		return 0, unix.EAGAIN
	}
	if _, err := io.ReadFull(p, b); err != nil {
		return 0, err
	}
	n, err := unix.SendmsgN(k.fd, b, nil, nil, unix.MSG_NOSIGNAL)
	if err == nil && n < len(b) {
		return n, fmt.Errorf("kernel took %d of %d bytes of a writable socket", n, len(b))
	}
	return n, err
}

func (k *kernelStream) Recv(w io.Writer, n int) (int, error) {
	b := make([]byte, n)
	n, err := unix.Read(k.fd, b)
	switch {
	case err != nil:
		return 0, err
	case n == 0 && len(b) > 0:
		return 0, io.EOF
	}
	return w.Write(b[:n])
}

func (k *kernelStream) Abort() {
	unix.SetsockoptLinger(k.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	k.Close()
}

// Unacked is SIOCOUTQ of tcp(7).
func (k *kernelStream) Unacked() (int, bool) {
	n, err := unix.IoctlGetInt(k.fd, unix.SIOCOUTQ)
	return n, err != nil || n == 0
}

type kernelPacket struct{ kernelSocket }

func (k *kernelPacket) SendMsg(p []byte, m stacks.Message) error {
	var to unix.Sockaddr
	if m.Peer.IsValid() {
		to = k.sockaddr(m.Peer)
	}
	var oob []byte
	if m.TTL > 0 {
		if k.family == unix.AF_INET {
			oob = append(oob, intCmsg(unix.IPPROTO_IP, unix.IP_TTL, m.TTL)...)
		} else {
			oob = append(oob, intCmsg(unix.IPPROTO_IPV6, unix.IPV6_HOPLIMIT, m.TTL)...)
		}
	}
	if m.TOS > 0 {
		if k.family == unix.AF_INET {
			oob = append(oob, intCmsg(unix.IPPROTO_IP, unix.IP_TOS, m.TOS)...)
		} else {
			oob = append(oob, intCmsg(unix.IPPROTO_IPV6, unix.IPV6_TCLASS, m.TOS)...)
		}
	}
	_, err := unix.SendmsgN(k.fd, p, oob, to, 0)
	return err
}

func intCmsg(level, typ, v int) []byte {
	b := make([]byte, unix.CmsgSpace(4))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = int32(level), int32(typ)
	h.SetLen(unix.CmsgLen(4))
	*(*int32)(unsafe.Pointer(&b[unix.CmsgLen(0)])) = int32(v)
	return b
}

func (k *kernelPacket) RecvMsg(p []byte, peek bool) (n, size int, m stacks.Message, err error) {
	flags := unix.MSG_TRUNC
	if peek {
		flags |= unix.MSG_PEEK
	}
	oob := make([]byte, 512)
	size, oobn, _, from, err := unix.Recvmsg(k.fd, p, oob, flags)
	if err != nil {
		return 0, 0, m, err
	}
	m = stacks.Message{Peer: addrPort(from), TTL: -1, TOS: -1}
	cmsgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return 0, 0, m, err
	}
	for _, c := range cmsgs {
		switch [2]int32{c.Header.Level, c.Header.Type} {
		case [2]int32{unix.IPPROTO_IP, unix.IP_TTL}, [2]int32{unix.IPPROTO_IPV6, unix.IPV6_HOPLIMIT}:
			m.TTL = int(*(*int32)(unsafe.Pointer(&c.Data[0])))
		case [2]int32{unix.IPPROTO_IP, unix.IP_TOS}:
			m.TOS = int(c.Data[0])
		case [2]int32{unix.IPPROTO_IPV6, unix.IPV6_TCLASS}:
			m.TOS = int(*(*int32)(unsafe.Pointer(&c.Data[0])))
		case [2]int32{unix.IPPROTO_IP, unix.IP_PKTINFO}:
			i := (*unix.Inet4Pktinfo)(unsafe.Pointer(&c.Data[0]))
			m.Local, m.IfIndex = netip.AddrFrom4(i.Addr), int(i.Ifindex)
		case [2]int32{unix.IPPROTO_IPV6, unix.IPV6_PKTINFO}:
			i := (*unix.Inet6Pktinfo)(unsafe.Pointer(&c.Data[0]))
			m.Local, m.IfIndex = netip.AddrFrom16(i.Addr), int(i.Ifindex)
		}
	}
	return min(size, len(p)), size, m, nil
}
