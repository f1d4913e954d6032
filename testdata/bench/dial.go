// SPDX-License-Identifier: Apache-2.0

// How an agent connects: directly, or through a proxy that it speaks to itself.

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"

	"golang.org/x/sys/unix"
)

// A viaProxy is where an agent's connections go, and what is spoken there.
type viaProxy struct {
	http bool // CONNECT; else SOCKS5 without a password
	at   netip.AddrPort
}

// via is the agent's proxy, nil for none. It is set before anything is measured.
var via *viaProxy

func parseProxy(s string) (*viaProxy, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, err
	}
	if u.Scheme != "http" && u.Scheme != "socks5" {
		return nil, fmt.Errorf("%s: neither http:// nor socks5://", s)
	}
	at, err := netip.ParseAddrPort(u.Host)
	return &viaProxy{u.Scheme == "http", at}, err
}

func dial(a netip.Addr, port uint16) (*net.TCPConn, error) {
	to := netip.AddrPortFrom(a, port)
	if via == nil {
		return net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(to))
	}
	c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(via.at))
	if err != nil {
		return nil, err
	}
	if err := via.ask(c, to); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func destination(a netip.Addr, port uint16) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4(), Port: int(port)}
	}
	return &unix.SockaddrInet6{Addr: a.As16(), Port: int(port)}
}

func connect(a netip.Addr, port uint16) (int, error) {
	fd, err := unix.Socket(family(a), unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := reach(fd, a, port); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// reach connects a socket, by the proxy if there is one.
func reach(fd int, a netip.Addr, port uint16) error {
	to := netip.AddrPortFrom(a, port)
	first := to
	if via != nil {
		first = via.at
	}
	if err := unix.Connect(fd, destination(first.Addr(), first.Port())); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	if via != nil {
		return via.ask(descriptor(fd), to)
	}
	return nil
}

// ask has the proxy connect c to an address. Of an HTTP proxy's answer what the server
// said at once goes with it.
func (p *viaProxy) ask(c io.ReadWriter, to netip.AddrPort) error {
	if p.http {
		return connectHTTP(c, to)
	}
	return connectSOCKS(c, to)
}

func connectHTTP(c io.ReadWriter, to netip.AddrPort) error {
	if _, err := fmt.Fprintf(c, "CONNECT %v HTTP/1.1\r\nHost: %[1]v\r\n\r\n", to); err != nil {
		return err
	}
	var b [4096]byte
	for got := 0; got < len(b); {
		n, err := c.Read(b[got:])
		if n == 0 {
			return fmt.Errorf("the proxy's answer: %q, %w", b[:got], errors.Join(err, io.ErrUnexpectedEOF))
		}
		if got += n; bytes.Contains(b[:got], []byte("\r\n\r\n")) {
			if status := bytes.Fields(b[:got]); len(status) > 1 && string(status[1]) == "200" {
				return nil
			}
			break
		}
	}
	line, _, _ := bytes.Cut(b[:], []byte("\r\n"))
	return fmt.Errorf("the proxy says %q", line)
}

// connectSOCKS is RFC 1928, without authentication.
func connectSOCKS(c io.ReadWriter, to netip.AddrPort) error {
	var b [4 + 16 + 2]byte
	if _, err := c.Write([]byte{5, 1, 0}); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, b[:2]); err != nil || b[0] != 5 || b[1] != 0 {
		return fmt.Errorf("the proxy's greeting: % x, %w", b[:2], err)
	}
	kinds := map[int]byte{4: 1, 16: 4}
	a := to.Addr().AsSlice()
	ask := append([]byte{5, 1, 0, kinds[len(a)]}, a...)
	if _, err := c.Write(binary.BigEndian.AppendUint16(ask, to.Port())); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, b[:4]); err != nil || b[1] != 0 {
		return fmt.Errorf("the proxy's answer: % x, %w", b[:4], err)
	}
	rest := 4 + 2
	if b[3] == kinds[16] {
		rest = 16 + 2
	}
	_, err := io.ReadFull(c, b[:rest])
	return err
}

// A descriptor is a socket that is read and written by plain calls.
type descriptor int

func (d descriptor) Write(b []byte) (int, error) { return unix.Write(int(d), b) }

func (d descriptor) Read(b []byte) (int, error) {
	n, err := unix.Read(int(d), b)
	if n == 0 && err == nil {
		err = io.EOF
	}
	return max(n, 0), err
}
