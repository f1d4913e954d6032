// SPDX-License-Identifier: Apache-2.0

// Servers that bind to an address before it is there.

package netmod_test

import (
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func init() { targets["freebind"] = freebind }

func freebind(w *transcript) {
	at := &unix.SockaddrInet4{Port: 7300, Addr: [4]byte{10, 99, 0, 1}}
	socket := func(typ, level, name int) int {
		fd, err := unix.Socket(unix.AF_INET, typ, 0)
		w.must("socket", err)
		w.result("bind without it", unix.Bind(fd, at))
		w.result("FREEBIND", unix.SetsockoptInt(fd, level, name, 1))
		w.result("bind", unix.Bind(fd, at))
		w.result("again", unix.Bind(fd, at))
		return fd
	}
	l := socket(unix.SOCK_STREAM, unix.IPPROTO_IP, unix.IP_FREEBIND)
	w.result("listen", unix.Listen(l, 5))
	u := socket(unix.SOCK_DGRAM, unix.IPPROTO_IP, unix.IP_FREEBIND)
	w.result("sendto", unix.Sendto(u, []byte("x"), 0, loopback4))
	other, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	w.must("socket", err)
	w.result("a second one", unix.SetsockoptInt(other, unix.IPPROTO_IP, unix.IP_FREEBIND, 1))
	w.result("bind", unix.Bind(other, at))
	unix.Close(other)
	connect := func(when string) int {
		c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		w.must("socket", err)
		w.say("%s: connect: %v", when, unix.Connect(c, at))
		return c
	}
	unix.Close(connect("before"))
	w.must("ip addr", exec.Command("ip", "addr", "add", "10.99.0.1/32", "dev", "lo").Run())
	c := connect("with the address")
	a, _, err := unix.Accept(l)
	w.result("accept", err)
	_, err = unix.Write(c, []byte("hello"))
	w.result("write", err)
	b := make([]byte, 10)
	n, err := unix.Read(a, b)
	w.say("read %q %v", b[:max(n, 0)], err)
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	w.must("socket", err)
	w.result("sendto", unix.Sendto(s, []byte("datagram"), 0, at))
	n, _, err = unix.Recvfrom(u, b, 0)
	w.say("recvfrom %q %v", b[:max(n, 0)], err)
	w.result("sendto", unix.Sendto(u, []byte("x"), 0, loopback4))
	for _, fd := range []int{l, u, c, a, s} {
		unix.Close(fd)
	}

	six := &unix.SockaddrInet6{Port: 7301, Addr: [16]byte{0: 0xfd, 1: 0x99, 15: 1}}
	l, err = unix.Socket(unix.AF_INET6, unix.SOCK_STREAM, 0)
	w.must("socket", err)
	w.result("IPv6: bind without it", unix.Bind(l, six))
	const ipv6Freebind = 78
	w.result("IPV6_FREEBIND", unix.SetsockoptInt(l, unix.IPPROTO_IPV6, ipv6Freebind, 1))
	v, err := unix.GetsockoptInt(l, unix.IPPROTO_IP, unix.IP_FREEBIND)
	w.say("IP_FREEBIND: %d %v", v, err)
	w.result("bind", unix.Bind(l, six))
	w.result("listen", unix.Listen(l, 5))
	w.must("ip addr", exec.Command("ip", "addr", "add", "fd99::1/128", "dev", "lo", "nodad").Run())
	w.await("the address", func() bool { // Linux has more to do, from a work queue
		out, _ := exec.Command("ip", "-6", "route", "show", "table", "local").Output()
		return strings.Contains(string(out), "local fd99::1 ")
	})
	c, err = unix.Socket(unix.AF_INET6, unix.SOCK_STREAM, 0)
	w.must("socket", err)
	w.result("connect", unix.Connect(c, six))
	unix.Close(c)
	unix.Close(l)
}

func TestFreebind(t *testing.T) {
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("ip is not installed")
	}
	compareChanges(t, "freebind")
}
