// SPDX-License-Identifier: Apache-2.0

// Datagrams through SOCKS5: UDP ASSOCIATE, RFC 1928 §7.

package proxy

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

// An association is a UDP port at the proxy, which lives as long as the connection
// that asked for it. Datagrams go to and from the proxy in a header that names the
// other end.
type association struct {
	control *net.TCPConn
	relay   *net.UDPConn // connected: nobody but the proxy is heard
	rc      syscall.RawConn
	only    netip.AddrPort // in the view; the zero AddrPort: any
	u       *Upstream

	closed atomic.Bool
	once   sync.Once
	gone   chan struct{} // closed when control has ended
}

// Apart reports whether dst stands for a name: answers come from addresses that
// only the proxy knows.
func (u *Upstream) Apart(dst netip.AddrPort) bool {
	if u.conf.Names == nil {
		return false
	}
	_, ok := u.conf.Names.Name(dst.Addr())
	return ok
}

// ListenPacket opens a UDP port at the proxy, see [stacks.Upstream]. Only SOCKS5
// has any.
func (u *Upstream) ListenPacket(ctx context.Context, dst netip.AddrPort) (stacks.UpstreamPackets, error) {
	s, ok := u.carrier.(*socks5)
	if !ok {
		return nil, &refusal{unix.ENETUNREACH, "the protocol has none"}
	}
	if dst.IsValid() {
		if _, err := u.target(dst); err != nil {
			return nil, err
		}
	}
	ctx, cancel := u.bound(ctx)
	defer cancel()
	a, err := s.associate(ctx, dst)
	var un *UnusableError
	if errors.As(err, &un) {
		u.tell(target{}, err)
	}
	if err != nil {
		return nil, err
	}
	return a, nil
}

// ProbePackets finds out whether the proxy carries datagrams. The error is an
// [UnusableError], or the context's.
func (u *Upstream) ProbePackets(ctx context.Context) error {
	p, err := u.ListenPacket(ctx, netip.AddrPort{})
	var no *refusal
	if errors.As(err, &no) {
		return &UnusableError{Proxy: u.String(), Cause: NoPackets, Err: errors.New(no.text)}
	}
	if err != nil {
		return err
	}
	return p.Close()
}

// associate asks for an association. What the proxy refuses is unreachable,
// whatever it says of the command.
func (s *socks5) associate(ctx context.Context, only netip.AddrPort) (*association, error) {
	control, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	family := netip.IPv4Unspecified()
	if local, ok := control.LocalAddr().(*net.TCPAddr); ok && local.AddrPort().Addr().Unmap().Is6() {
		family = netip.IPv6Unspecified()
	}
	bound, err := s.request(ctx, control, cmdAssociate, target{addr: family}) // from anywhere
	if err != nil {
		var no *refusal
		if errors.As(err, &no) {
			err = &refusal{unix.ENETUNREACH, no.text}
		}
		return nil, err
	}
	relay, err := relayAddr(bound, control.RemoteAddr())
	if err != nil {
		control.Close()
		return nil, s.u.cut(err)
	}
	// Connecting a datagram socket waits for nothing.
	udp, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(relay))
	if err != nil {
		control.Close()
		return nil, &UnusableError{Proxy: s.u.String(), Cause: Silent, Err: err}
	}
	rc, err := udp.SyscallConn()
	if err != nil {
		control.Close()
		udp.Close()
		return nil, err
	}
	a := &association{control: control, relay: udp, rc: rc, only: only, u: s.u, gone: make(chan struct{})}
	go a.watch()
	return a, nil
}

// relayAddr is where datagrams go: the address that the proxy names. Where it names
// none, its own; and no other that has a meaning on this machine only, lest a proxy
// leads the program's datagrams to what listens here.
func relayAddr(bound netip.AddrPort, proxy net.Addr) (netip.AddrPort, error) {
	tcp, ok := proxy.(*net.TCPAddr)
	if !ok || bound.Port() == 0 {
		return netip.AddrPort{}, errors.New("it names no port for datagrams")
	}
	own := tcp.AddrPort().Addr().Unmap()
	switch a := bound.Addr(); {
	case !a.IsValid(), a.IsUnspecified(), a == own:
		return netip.AddrPortFrom(own, bound.Port()), nil
	case !a.IsGlobalUnicast():
		return netip.AddrPort{}, fmt.Errorf("it wants datagrams to be sent to %s", bound)
	}
	return bound, nil
}

// watch waits for the end of the control connection. It ends by Close.
func (a *association) watch() {
	defer close(a.gone)
	_, _ = io.Copy(io.Discard, a.control)
	_ = a.relay.Close()
}

// Close ends the association.
func (a *association) Close() error {
	a.closed.Store(true)
	a.once.Do(func() {
		_ = a.control.Close()
		_ = a.relay.Close()
	})
	<-a.gone
	return nil
}

// datagrams are buffers for what is sent and received.
var datagrams = sync.Pool{New: func() any { return new([65535]byte) }}

// WriteTo sends a datagram.
func (a *association) WriteTo(p []byte, dst netip.AddrPort) error {
	to, err := a.u.target(dst)
	if err != nil {
		return err
	}
	buf := datagrams.Get().(*[65535]byte)
	defer datagrams.Put(buf)
	msg, err := appendTarget(append(buf[:0], 0, 0, 0), to) // RSV, RSV, FRAG
	if err != nil {
		return err
	}
	msg = append(msg, p...)
	var errno error
	err = a.rc.Write(func(fd uintptr) bool {
		_, errno = unix.SendmsgN(int(fd), msg, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		return true
	})
	switch {
	case err != nil:
		return unix.EAGAIN // closed this moment: lost, as datagrams are
	case errno == unix.ECONNREFUSED:
		_ = a.relay.Close() // the proxy's port is gone, whatever its connection says
		return unix.EAGAIN
	case errno != nil:
		return unix.EAGAIN // too long with the header, or no way to the proxy right now
	}
	return nil
}

// ReadFrom waits for a datagram.
func (a *association) ReadFrom(p []byte) (int, netip.AddrPort, error) {
	buf := datagrams.Get().(*[65535]byte)
	defer datagrams.Put(buf)
	for {
		n, err := a.relay.Read(buf[:])
		if err != nil {
			if a.closed.Load() {
				err = net.ErrClosed
			}
			return 0, netip.AddrPort{}, err
		}
		src, payload, err := parseDatagram(buf[:n])
		if err != nil {
			a.u.log.Debug("datagram of the proxy", "err", err)
			continue
		}
		switch {
		case a.only.IsValid():
			// The other end of a name is at whatever address the name has there.
			if src.Port() == 0 {
				src = a.only
			}
			src = netip.AddrPortFrom(a.only.Addr(), src.Port())
		case !src.Addr().IsGlobalUnicast():
			continue // a name, or an address without a meaning behind a proxy
		}
		return copy(p, payload), src, nil
	}
}

// parseDatagram reads the header of RFC 1928 §7. The address is the zero one where
// the header has a name. Fragments are refused, as the RFC allows.
func parseDatagram(b []byte) (src netip.AddrPort, payload []byte, err error) {
	const front = 4 // RSV, RSV, FRAG, ATYP
	if len(b) < front {
		return src, nil, io.ErrUnexpectedEOF
	}
	if b[2] != 0 {
		return src, nil, errors.New("a fragment")
	}
	rest := b[front:]
	var size int
	switch b[3] {
	case atypIPv4:
		size = 4
	case atypIPv6:
		size = 16
	case atypDomain:
		if len(rest) < 1 {
			return src, nil, io.ErrUnexpectedEOF
		}
		size, rest = int(rest[0]), rest[1:]
	default:
		return src, nil, fmt.Errorf("an address of the type %d", b[3])
	}
	if len(rest) < size+2 {
		return src, nil, io.ErrUnexpectedEOF
	}
	var a netip.Addr
	if b[3] != atypDomain {
		a, _ = netip.AddrFromSlice(rest[:size])
	}
	return netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(rest[size:])), rest[size+2:], nil
}

var _ stacks.UpstreamPackets = (*association)(nil)
