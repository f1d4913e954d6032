// SPDX-License-Identifier: Apache-2.0

// Plugs that are one datagram socket: udp:// and ptp://.

package vde

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

// A dgram is a plug whose frames are the datagrams of one connected socket. A peer that
// is not there yet, or no more, loses what is sent to it.
type dgram struct {
	*sock
	mtu     int
	rx      batch // Read's
	batches sync.Pool
	release func() // after the socket is closed
	once    sync.Once
	err     error

	// lost is told that the peer does not take frames (ECONNREFUSED and the like), and
	// connects again, true: there is another peer. nil: nothing is to be done.
	lost func() bool
}

var _ stacks.TryWriter = (*dgram)(nil)

func newDgram(s *sock, mtu int) *dgram {
	d := &dgram{sock: s, mtu: mtu, release: func() {}}
	d.batches.New = func() any { return new(batch) }
	return d
}

func (*dgram) Type() stacks.LinkType { return stacks.LinkEthernet }
func (d *dgram) MTU() int            { return d.mtu }
func (*dgram) BatchSize() int        { return batchSize }

// Read implements [stacks.Link].
func (d *dgram) Read(bufs [][]byte, sizes []int) (int, error) {
	for {
		n, err := d.readFrames(&d.rx, bufs, sizes)
		switch {
		case n > 0:
			return n, nil
		case err == net.ErrClosed:
			return 0, err
		}
		// An error of the path, told once: the next frame may get through.
	}
}

// Write implements [stacks.Link].
func (d *dgram) Write(bufs [][]byte) (int, error) { return d.write(bufs, true) }

// TryWrite implements [stacks.TryWriter].
func (d *dgram) TryWrite(bufs [][]byte) int {
	n, _ := d.write(bufs, false)
	return n
}

func (d *dgram) write(bufs [][]byte, wait bool) (int, error) {
	b := d.batches.Get().(*batch)
	defer d.batches.Put(b)
	for done := 0; ; {
		n, err := d.writeFrames(b, bufs[done:], wait)
		done += n
		switch {
		case err == nil || err == unix.EAGAIN && !wait:
			return done, nil
		case err == net.ErrClosed:
			return done, err
		}
		// Nobody takes it, or an error that an earlier frame has brought.
		if d.lost != nil && d.lost() {
			n, err = d.writeFrames(b, bufs[done:done+1], wait)
			done += n
			if err == nil || err == unix.EAGAIN && !wait {
				continue
			}
		}
		if done++; done >= len(bufs) {
			return len(bufs), nil
		}
	}
}

// Close implements [stacks.Link].
func (d *dgram) Close() error {
	d.once.Do(func() {
		d.err = d.sock.close()
		d.release()
	})
	return d.err
}

// splitUDP reads [HOST:]PORT->HOST:PORT.
func splitUDP(arg string) (src, dst string, err error) {
	src, dst, ok := strings.Cut(arg, "->")
	if !ok {
		return "", "", errors.New("there is no -> in it")
	}
	if !strings.Contains(src, ":") {
		src = ":" + src
	}
	for _, a := range []string{src, dst} {
		host, port, err := net.SplitHostPort(a)
		if err != nil {
			return "", "", errors.New("an address is HOST:PORT, one of IPv6 [ADDRESS]:PORT")
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return "", "", fmt.Errorf("%q is no port", port)
		}
		if host == "" && a == dst {
			return "", "", errors.New("there is no host behind ->")
		}
	}
	return src, dst, nil
}

func checkUDP(u *URL) error {
	_, _, err := splitUDP(u.Arg)
	return err
}

// openUDP connects to the other end: unlike vdeplug, which takes frames from whoever
// sends some.
func openUDP(ctx context.Context, u *URL, o Options) (stacks.Link, error) {
	src, dst, err := splitUDP(u.Arg)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", u, err)
	}
	to, err := resolveUDP(ctx, dst, netip.Addr{})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", u, err)
	}
	from, err := resolveUDP(ctx, src, to.Addr())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", u, err)
	}
	s, err := socket(family(to.Addr()), unix.SOCK_DGRAM, u.String())
	if err != nil {
		return nil, err
	}
	err = s.control(func(fd int) error {
		if err := unix.Bind(fd, sockaddrOf(from)); err != nil {
			return fmt.Errorf("bind %s: %w", from, err)
		}
		if err := unix.Connect(fd, sockaddrOf(to)); err != nil {
			return fmt.Errorf("connect to %s: %w", to, err)
		}
		return nil
	})
	if err != nil {
		s.close()
		return nil, fmt.Errorf("%s: %w", u, err)
	}
	return newDgram(s, o.MTU), nil
}

// resolveUDP finds the address of HOST:PORT on the host's network, of the family of
// like if that is valid. Without a host it is the unspecified address.
func resolveUDP(ctx context.Context, s string, like netip.Addr) (netip.AddrPort, error) {
	host, port, _ := net.SplitHostPort(s) // was checked
	n, _ := strconv.ParseUint(port, 10, 16)
	if host == "" {
		if like.Is4() {
			return netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(n)), nil
		}
		return netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(n)), nil
	}
	as, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	for _, a := range as {
		if a = a.Unmap(); !like.IsValid() || a.Is4() == like.Is4() {
			return netip.AddrPortFrom(a, uint16(n)), nil
		}
	}
	return netip.AddrPort{}, fmt.Errorf("%s has no address of the family of %s", host, like)
}

func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func sockaddrOf(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16(), ZoneId: zoneID(a.Addr())}
}

func zoneID(a netip.Addr) uint32 {
	if a.Zone() == "" {
		return 0
	}
	if n, err := strconv.ParseUint(a.Zone(), 10, 32); err == nil {
		return uint32(n)
	}
	if i, err := net.InterfaceByName(a.Zone()); err == nil {
		return uint32(i.Index)
	}
	return 0
}

// openPTP takes one of the two ends of a cable: the socket at PATH, or that at PATH+
// if the first is taken; each sends to the other's. This is the ptp:// of vdeplug 4.0,
// that of Debian 12; its successor's, one SOCK_SEQPACKET socket, is told apart.
func openPTP(u *URL, o Options) (stacks.Link, error) {
	path, err := filepath.Abs(u.Arg)
	if err != nil {
		return nil, err
	}
	if _, err := sockaddr(path + "+"); err != nil {
		return nil, fmt.Errorf("%s: %w", u, err)
	}
	s, err := socket(unix.AF_UNIX, unix.SOCK_DGRAM, u.String())
	if err != nil {
		return nil, err
	}
	own, peer, err := takeEnd(s, path)
	if err != nil {
		s.close()
		return nil, fmt.Errorf("%s: %w", u, err)
	}
	d := newDgram(s, o.MTU)
	d.release = func() { os.Remove(own) }
	d.lost = func() bool { // the peer has come, or is another one after it was started anew
		return s.control(func(fd int) error { return unix.Connect(fd, &unix.SockaddrUnix{Name: peer}) }) == nil
	}
	d.lost()
	return d, nil
}

// takeEnd binds s to the first end that nobody has.
func takeEnd(s *sock, path string) (own, peer string, err error) {
	for _, end := range [][2]string{{path, path + "+"}, {path + "+", path}} {
		own, peer = end[0], end[1]
		switch err = occupied(own); err {
		case nil:
			continue
		case unix.ECONNREFUSED: // of a process that is no more
			if err := os.Remove(own); err != nil {
				return "", "", err
			}
		case unix.EPROTOTYPE:
			return "", "", fmt.Errorf("%s is a socket of another kind: the ptp:// of a vdeplug newer than 4.0 is not spoken here; use switch:// there and vde:// here", own)
		case unix.ENOENT:
		default:
			return "", "", fmt.Errorf("%s: %w", own, err)
		}
		err = s.control(func(fd int) error { return unix.Bind(fd, &unix.SockaddrUnix{Name: own}) })
		if err == unix.EADDRINUSE {
			continue // somebody plugs in the other end at this moment
		}
		if err != nil {
			return "", "", fmt.Errorf("%s: %w", own, err)
		}
		if err := os.Chmod(own, 0o700); err != nil {
			os.Remove(own)
			return "", "", err
		}
		return own, peer, nil
	}
	return "", "", fmt.Errorf("both ends are in use: %w", unix.EADDRINUSE)
}

// occupied connects to a datagram socket: nil if there is one in use. One that is
// connected to another already says EPERM, and is in use as well.
func occupied(path string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	if err == unix.EPERM {
		return nil
	}
	return err
}
