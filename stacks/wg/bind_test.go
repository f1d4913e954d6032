// SPDX-License-Identifier: Apache-2.0

// Tests of the bind against the kernel's own segmentation.

package wg

import (
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
)

// groListener listens on loopback and takes in coalesced datagrams.
func groListener(t *testing.T) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var gro error
	if err := raw.Control(func(fd uintptr) {
		gro = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_GRO, 1)
	}); err != nil {
		t.Fatal(err)
	}
	if gro != nil {
		t.Skipf("the kernel has no UDP_GRO: %v", gro)
	}
	c.SetReadBuffer(4 << 20)
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	return c
}

// TestGSOStaysWhole sends a batch of the datagram size of which 46 fit a UDP
// datagram but not the interface's gso_max_size. All of it must arrive in as few
// reads as there are messages.
func TestGSOStaysWhole(t *testing.T) {
	c := groListener(t)
	b := newBind(func() {}, func(int) {})
	if _, _, err := b.Open(0); err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if !udpSegment(t) {
		t.Skip("the kernel has no UDP_SEGMENT")
	}
	ep, err := b.ParseEndpoint(c.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	const size, count = 1424, batch
	bufs := make([][]byte, count)
	for i := range bufs {
		bufs[i] = make([]byte, size, 65535) // as the device's messages
		bufs[i][0] = 4
	}
	if err := b.Send(bufs, ep); err != nil {
		t.Fatal(err)
	}
	got, reads, p := 0, 0, make([]byte, 65536)
	for got < size*count {
		n, _, _, _, err := c.ReadMsgUDP(p, nil)
		if err != nil {
			t.Fatalf("after %d of %d bytes: %v", got, size*count, err)
		}
		got += n
		reads++
	}
	if want := (count + maxGSO/size - 1) / (maxGSO / size); reads != want {
		t.Errorf("%d datagrams came in %d reads, want %d", count, reads, want)
	}
}

// udpSegment reports whether the kernel segments UDP, udp(7).
func udpSegment(t *testing.T) bool {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	_, err = unix.GetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT)
	return err == nil
}

// TestCounts: handshakes are counted by endpoint, responses only where one was
// asked for.
func TestCounts(t *testing.T) {
	b := newBind(func() {}, func(int) {})
	ep := func(s string) conn.Endpoint {
		t.Helper()
		e, err := b.ParseEndpoint(s)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	here, there := ep("192.0.2.1:1"), ep("[::ffff:192.0.2.2]:2")
	b.initiated(here, nil)
	b.initiated(here, unix.ENETUNREACH)
	if c := b.count(netip.MustParseAddrPort("192.0.2.1:1")); c != (count{sent: 2, since: 2, err: unix.ENETUNREACH}) {
		t.Errorf("after two initiations: %+v", c)
	}
	b.received(here)
	b.received(there)
	if c := b.count(netip.MustParseAddrPort("192.0.2.1:1")); c.replies != 1 || c.since != 0 || c.sent != 2 {
		t.Errorf("after a response: %+v", c)
	}
	if c := b.count(netip.MustParseAddrPort("192.0.2.2:2")); c != (count{}) {
		t.Errorf("a response that nobody asked for counts: %+v", c)
	}
	for i := range 2 * maxTracked {
		b.initiated(ep(netip.AddrPortFrom(netip.MustParseAddr("192.0.2.3"), uint16(i+1)).String()), nil)
	}
	if len(b.counts) != maxTracked {
		t.Errorf("%d endpoints tracked, want %d", len(b.counts), maxTracked)
	}
}

// TestSocketsCloseOnExec: a program that the process starts inherits none.
func TestSocketsCloseOnExec(t *testing.T) {
	b := newBind(func() {}, func(int) {})
	_, port, err := b.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	found := 0
	for fd := range 1024 {
		sa, err := unix.Getsockname(fd)
		if err != nil {
			continue
		}
		mine := false
		switch sa := sa.(type) {
		case *unix.SockaddrInet4:
			mine = sa.Port == int(port)
		case *unix.SockaddrInet6:
			mine = sa.Port == int(port)
		}
		if !mine {
			continue
		}
		found++
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || flags&syscall.FD_CLOEXEC == 0 {
			t.Errorf("descriptor %d: flags %#x, %v", fd, flags, err)
		}
	}
	if found == 0 {
		t.Error("found no socket of the bind")
	}
}
