// SPDX-License-Identifier: Apache-2.0

// Ports of the host that lead into the view.

package nat_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"

	"umrun/stacks/nat"
)

// listen serves a TCP port of the view: a connection is told who it comes from, a line,
// and then gets back what it sends.
func (v *view) listen(addr string) {
	v.t.Helper()
	fa, proto := full(addr)
	ln, err := gonet.ListenTCP(v.s, fa, proto)
	if err != nil {
		v.t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				fmt.Fprintln(c, c.RemoteAddr())
				io.Copy(c, c)
			})
		}
	})
	v.t.Cleanup(func() {
		ln.Close()
		wg.Wait()
	})
}

// publish publishes a port for the length of the test.
func (v *view) publish(proto, host, to string) *nat.Publication {
	v.t.Helper()
	var at netip.AddrPort
	if to[0] == ':' {
		var port uint16
		fmt.Sscan(to[1:], &port)
		at = netip.AddrPortFrom(netip.Addr{}, port)
	} else {
		at = netip.MustParseAddrPort(to)
	}
	p, err := v.link.Publish(proto, netip.MustParseAddrPort(host), at)
	if err != nil {
		v.t.Fatal(err)
	}
	v.t.Cleanup(func() { p.Close() })
	return p
}

// clients are who writes to a published port, and how the view sees them.
var clients = []struct{ family, from, to, seen string }{
	{"4", "198.51.100.2", "198.51.100.2", "198.51.100.2"},
	{"4", "127.0.0.1", "127.0.0.1", "10.0.2.2"},
	{"4", "127.0.0.7", "127.0.0.9", "10.0.2.2"},
	{"4", "10.255.0.1", "198.51.100.2", "10.255.0.1"},
	{"6", "2001:db8::2", "2001:db8::2", "2001:db8::2"},
	{"6", "::1", "::1", "fd00:2::2"},
}

func TestPublishTCP(t *testing.T) {
	v := open(t, nat.Options{})
	v.listen("10.0.2.15:80")
	v.listen("[fd00:2::15]:80")
	ports := map[string]uint16{
		"4": v.publish("tcp", "0.0.0.0:0", ":80").Addr().Port(),
		"6": v.publish("tcp", "[::]:0", ":80").Addr().Port(),
	}
	data := make([]byte, 3<<20)
	rand.Read(data)
	for _, tc := range clients {
		t.Run(tc.from, func(t *testing.T) {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(tc.from)}, Timeout: 10 * time.Second}
			nc, err := d.Dial("tcp", netip.AddrPortFrom(netip.MustParseAddr(tc.to), ports[tc.family]).String())
			if err != nil {
				t.Fatal(err)
			}
			c := nc.(*net.TCPConn)
			defer c.Close()
			c.SetDeadline(time.Now().Add(20 * time.Second))
			want := netip.AddrPortFrom(netip.MustParseAddr(tc.seen), uint16(c.LocalAddr().(*net.TCPAddr).Port)).String() + "\n"
			line := make([]byte, len(want))
			if _, err := io.ReadFull(c, line); err != nil || string(line) != want {
				t.Fatalf("the view sees %q, %v; want %q", line, err, want)
			}
			sent := make(chan error, 1)
			go func() {
				_, err := c.Write(data)
				sent <- errors.Join(err, c.CloseWrite())
			}()
			got, err := io.ReadAll(c)
			if err := errors.Join(err, <-sent); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes came back of %d, %v", len(got), len(data), err)
			}
		})
	}
}

// TestPublishSamePort: two clients on the host that would look alike to the view are
// told apart.
func TestPublishSamePort(t *testing.T) {
	v := open(t, nat.Options{})
	v.listen("10.0.2.15:80")
	p := v.publish("tcp", "0.0.0.0:0", ":80")
	seen := map[string]bool{}
	for _, from := range []string{"127.0.0.1", "127.0.0.2", "127.0.0.3"} {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from), Port: 4321}, Timeout: 10 * time.Second}
		c, err := d.Dial("tcp", fmt.Sprint("127.0.0.1:", p.Addr().Port()))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(10 * time.Second))
		var line string
		if _, err := fmt.Fscanln(c, &line); err != nil {
			t.Fatal(err)
		}
		seen[line] = true
	}
	if len(seen) != 3 || !seen["10.0.2.2:4321"] {
		t.Errorf("the view sees %v", seen)
	}
}

// TestPublishRefused: where nobody listens in the view, and where the port cannot be had.
func TestPublishRefused(t *testing.T) {
	v := open(t, nat.Options{})
	p := v.publish("tcp", "198.51.100.2:0", ":81")
	c, err := net.DialTimeout("tcp", p.Addr().String(), 10*time.Second)
	if err == nil {
		c.SetDeadline(time.Now().Add(10 * time.Second))
		_, err = c.Read(make([]byte, 1))
		c.Close()
	}
	if !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("nobody listens in the view: %v", err)
	}
	for _, proto := range []string{"tcp", "udp"} {
		p := v.publish(proto, "198.51.100.2:0", ":82")
		if _, err := v.link.Publish(proto, p.Addr(), netip.AddrPortFrom(netip.Addr{}, 82)); !errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("%s twice: %v", proto, err)
		}
		if _, err := v.link.Publish(proto, netip.MustParseAddrPort("192.0.2.200:5000"), netip.AddrPortFrom(netip.Addr{}, 82)); !errors.Is(err, unix.EADDRNOTAVAIL) {
			t.Errorf("%s at an address that is not the host's: %v", proto, err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if err := p.Close(); err != nil {
			t.Error("the second time: ", err)
		}
		again, err := v.link.Publish(proto, p.Addr(), netip.AddrPortFrom(netip.Addr{}, 82))
		if err != nil {
			t.Errorf("%s after Close: %v", proto, err)
			continue
		}
		again.Close()
	}
	for _, view := range []string{"10.0.2.2:80", "10.0.2.3:80", "192.0.2.1:80", "[fd00:2::15]:80", "10.0.2.15:0"} {
		if _, err := v.link.Publish("tcp", netip.MustParseAddrPort("198.51.100.2:0"), netip.MustParseAddrPort(view)); !errors.Is(err, unix.EINVAL) {
			t.Errorf("to %s: %v", view, err)
		}
	}
}

func TestPublishUDP(t *testing.T) {
	v := open(t, nat.Options{})
	for _, family := range []struct {
		name, any, own string
		proto          tcpip.NetworkProtocolNumber
	}{{"4", "0.0.0.0:0", "10.0.2.15:53", ipv4.ProtocolNumber}, {"6", "[::]:0", "[fd00:2::15]:53", ipv6.ProtocolNumber}} {
		fa, _ := full(family.own)
		u, err := gonet.DialUDP(v.s, &fa, nil, family.proto)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			for b := make([]byte, 2000); ; {
				n, from, err := u.ReadFrom(b)
				if err != nil {
					return
				}
				u.WriteTo(fmt.Appendf(nil, "%s %s", from, b[:n]), from)
			}
		})
		defer wg.Wait()
		defer u.Close()
		port := v.publish("udp", family.any, ":53").Addr().Port()
		for _, tc := range clients {
			if tc.family != family.name {
				continue
			}
			t.Run(tc.from, func(t *testing.T) {
				// A connected socket: the answer must come from where the question went.
				c, err := net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(tc.from)}, &net.UDPAddr{IP: net.ParseIP(tc.to), Port: int(port)})
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				c.SetDeadline(time.Now().Add(10 * time.Second))
				c.Write([]byte("hello"))
				b := make([]byte, 2000)
				n, err := c.Read(b)
				want := fmt.Sprintf("%s hello", netip.AddrPortFrom(netip.MustParseAddr(tc.seen), uint16(c.LocalAddr().(*net.UDPAddr).Port)))
				if string(b[:n]) != want || err != nil {
					t.Errorf("got %q, %v; want %q", b[:n], err, want)
				}
			})
		}
	}
}

// TestPublishOpensNothing: the view may answer clients on the host's loopback, and
// nobody else there.
func TestPublishOpensNothing(t *testing.T) {
	v := open(t, nat.Options{})
	victim, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer victim.Close()
	fa, proto := full("10.0.2.15:5000")
	u, err := gonet.DialUDP(v.s, &fa, nil, proto)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	p := v.publish("udp", "0.0.0.0:0", ":5000")
	client, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(p.Addr().Port())})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	client.Write([]byte("question"))
	u.SetDeadline(time.Now().Add(10 * time.Second))
	b := make([]byte, 100)
	n, from, err := u.ReadFrom(b)
	if err != nil || string(b[:n]) != "question" {
		t.Fatalf("%q, %v", b[:n], err)
	}
	u.WriteTo([]byte("attack"), &net.UDPAddr{IP: net.IPv4(10, 0, 2, 2), Port: victim.LocalAddr().(*net.UDPAddr).Port})
	u.WriteTo([]byte("answer"), from)
	client.SetDeadline(time.Now().Add(10 * time.Second))
	if n, err := client.Read(b); err != nil || string(b[:n]) != "answer" {
		t.Errorf("%q, %v", b[:n], err)
	}
	// What was sent first would be there by now.
	victim.SetDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := victim.Read(b); err == nil {
		t.Errorf("the host's loopback got %q", b[:n])
	}
}
