// SPDX-License-Identifier: Apache-2.0

// SOCKS5, byte by byte.

package proxy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSOCKS5Dialogue: what is sent for names and addresses, with and without a
// password, and that nothing behind the reply is taken.
func TestSOCKS5Dialogue(t *testing.T) {
	names := NewNames(1)[0]
	onion := names.Addrs("abc.onion")
	for _, tt := range []struct {
		name       string
		conf       Config
		dst        netip.AddrPort
		choice     string // the proxy's answer to the greeting
		greeting   string
		credential string
		request    string
	}{
		{name: "IPv4", dst: literal, choice: "\x05\x00", greeting: "\x05\x01\x00", request: "\x05\x01\x00\x01\xc0\x00\x02\x07\x01\xbb"},
		{name: "IPv6", dst: netip.MustParseAddrPort("[2001:db8::1]:80"), choice: "\x05\x00", greeting: "\x05\x01\x00",
			request: "\x05\x01\x00\x04\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x01\x00\x50"},
		{name: "name", dst: netip.AddrPortFrom(onion[0], 80), choice: "\x05\x00", greeting: "\x05\x01\x00", request: "\x05\x01\x00\x03\x09abc.onion\x00\x50"},
		{name: "name by IPv6", dst: netip.AddrPortFrom(onion[1], 80), choice: "\x05\x00", greeting: "\x05\x01\x00", request: "\x05\x01\x00\x03\x09abc.onion\x00\x50"},
		{name: "password", conf: Config{User: "me", Password: "pw1"}, dst: literal, choice: "\x05\x02", greeting: "\x05\x02\x00\x02",
			credential: "\x01\x02me\x03pw1", request: "\x05\x01\x00\x01\xc0\x00\x02\x07\x01\xbb"},
		{name: "password not wanted", conf: Config{User: "me", Password: "pw1"}, dst: literal, choice: "\x05\x00", greeting: "\x05\x02\x00\x02",
			request: "\x05\x01\x00\x01\xc0\x00\x02\x07\x01\xbb"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			at := serve(t, func(c *net.TCPConn) {
				if got := read(c, len(tt.greeting)); got != tt.greeting {
					t.Errorf("greeting %q, want %q", got, tt.greeting)
				}
				io.WriteString(c, tt.choice)
				if tt.credential != "" {
					if got := read(c, len(tt.credential)); got != tt.credential {
						t.Errorf("credentials %q, want %q", got, tt.credential)
					}
					io.WriteString(c, "\x01\x00")
				}
				if got := read(c, len(tt.request)); got != tt.request {
					t.Errorf("request %q, want %q", got, tt.request)
				}
				io.WriteString(c, "\x05\x00\x00\x03\x04host\x12\x34first words")
				io.Copy(c, c)
			})
			tt.conf.Names = names
			u := open(t, at, tt.conf)
			c, err := u.DialStream(deadline(t), tt.dst)
			if err != nil {
				t.Fatal(err)
			}
			talk(t, c)
		})
	}
}

// TestSOCKS5Errors: what the proxy says is the errno of connect; what is wrong with
// the proxy is an unreachable network.
func TestSOCKS5Errors(t *testing.T) {
	reply := func(code byte) string {
		return "\x05\x00" + "\x05" + string([]byte{code}) + "\x00\x01\x00\x00\x00\x00\x00\x00"
	}
	for _, tt := range []struct {
		name  string
		says  string
		user  string
		errno unix.Errno
		cause Cause
	}{
		{name: "general", says: reply(1), errno: unix.EHOSTUNREACH, cause: -1},
		{name: "rules", says: reply(2), errno: unix.EACCES, cause: -1},
		{name: "network", says: reply(3), errno: unix.ENETUNREACH, cause: -1},
		{name: "host", says: reply(4), errno: unix.EHOSTUNREACH, cause: -1},
		{name: "refused", says: reply(5), errno: unix.ECONNREFUSED, cause: -1},
		{name: "TTL", says: reply(6), errno: unix.EHOSTUNREACH, cause: -1},
		{name: "command", says: reply(7), errno: unix.ENETUNREACH, cause: -1},
		{name: "address type", says: reply(8), errno: unix.ENETUNREACH, cause: -1},
		{name: "unknown code", says: reply(99), errno: unix.EHOSTUNREACH, cause: -1},
		{name: "short refusal", says: "\x05\x00\x05\x05\x00\x00", errno: unix.ECONNREFUSED, cause: -1},
		{name: "no reply", says: "\x05\x00", errno: unix.EHOSTUNREACH, cause: -1},
		{name: "nothing", says: "", errno: unix.ENETUNREACH, cause: Broken},
		{name: "HTTP", says: "HTTP/1.1 400 Bad Request\r\n\r\n", errno: unix.ENETUNREACH, cause: Broken},
		{name: "cut reply", says: "\x05\x00\x05\x00\x00\x01\x00", errno: unix.ENETUNREACH, cause: Broken},
		{name: "other method", says: "\x05\x01", errno: unix.ENETUNREACH, cause: Broken},
		{name: "wants a password", says: "\x05\xff", errno: unix.ENETUNREACH, cause: WantsAuth},
		{name: "takes no password", says: "\x05\xff", user: "me", errno: unix.ENETUNREACH, cause: BadAuth},
		{name: "wrong password", says: "\x05\x02\x01\x01", user: "me", errno: unix.ENETUNREACH, cause: BadAuth},
	} {
		t.Run(tt.name, func(t *testing.T) {
			at := serve(t, func(c *net.TCPConn) {
				read(c, 2)
				io.WriteString(c, tt.says)
				c.CloseWrite()
				io.Copy(io.Discard, c)
			})
			u := open(t, at, Config{User: tt.user, Password: "swordfish"})
			if tt.user == "" {
				u.conf.Password = ""
			}
			_, err := u.DialStream(deadline(t), literal)
			if !errors.Is(err, tt.errno) {
				t.Errorf("%v, want %v", err, tt.errno)
			}
			var un *UnusableError
			if errors.As(err, &un) != (tt.cause >= 0) || un != nil && un.Cause != tt.cause {
				t.Errorf("%v: %+v, want the cause %d", err, un, tt.cause)
			}
			if err != nil && strings.Contains(err.Error(), "swordfish") {
				t.Errorf("the password is in %q", err)
			}
		})
	}
}

// TestDown: that the proxy's own port refuses says nothing of the destination.
func TestDown(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := ln.Addr().(*net.TCPAddr).AddrPort()
	ln.Close()
	for _, kind := range []Kind{SOCKS5, HTTP, SSH} {
		u := open(t, at, Config{Kind: kind})
		_, err := u.DialStream(deadline(t), literal)
		var un *UnusableError
		if !errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.ECONNREFUSED) || !errors.As(err, &un) || un.Cause != Silent {
			t.Errorf("%v: %v", kind, err)
		}
	}
}

// TestMeaningless: addresses that mean something on this machine alone, and
// stand-ins without a name, do not reach the proxy.
func TestMeaningless(t *testing.T) {
	at := serve(t, func(c *net.TCPConn) { t.Error("the proxy was asked") })
	u := open(t, at, Config{Names: NewNames(1)[0]})
	for _, dst := range []string{"127.0.0.1:80", "[::1]:80", "169.254.1.1:80", "[fe80::1%eth0]:80", "224.0.0.1:80", "0.0.0.0:80",
		"[::ffff:127.0.0.1]:80", "198.18.0.9:80", "198.19.255.255:80", "[fd00:198:18::c612:9]:80", "[fd00:198:18::1]:80"} {
		if _, err := u.DialStream(deadline(t), netip.MustParseAddrPort(dst)); !errors.Is(err, unix.EHOSTUNREACH) {
			t.Errorf("%s: %v", dst, err)
		}
	}
}

// relay is a SOCKS5 proxy that takes one association; f gets what arrives at its
// port and returns what is sent back.
func relay(t *testing.T, f func([]byte) [][]byte) netip.AddrPort {
	return serve(t, func(c *net.TCPConn) {
		read(c, 3)
		io.WriteString(c, "\x05\x00")
		if got := read(c, 10); got != "\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00" {
			t.Errorf("request %q", got)
		}
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Error(err)
			return
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			buf := make([]byte, 65536)
			for {
				n, from, err := pc.ReadFrom(buf)
				if err != nil {
					return
				}
				for _, b := range f(buf[:n]) {
					pc.WriteTo(b, from)
				}
			}
		}()
		port := pc.LocalAddr().(*net.UDPAddr).Port
		c.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, byte(port >> 8), byte(port)})
		io.Copy(io.Discard, c)
		pc.Close()
		<-done
	})
}

// TestAssociate: datagrams have headers both ways, answers to a name come from its
// stand-in, and fragments and what means nothing here are dropped.
func TestAssociate(t *testing.T) {
	names := NewNames(1)[0]
	name := netip.AddrPortFrom(names.Addrs("far.example")[1], 53)
	for _, tt := range []struct {
		name   string
		only   netip.AddrPort
		dst    netip.AddrPort
		header string
		from   netip.AddrPort
	}{
		{"address", netip.AddrPort{}, literal, "\x00\x00\x00\x01\xc0\x00\x02\x07\x01\xbb", netip.MustParseAddrPort("203.0.113.9:9")},
		{"name", name, name, "\x00\x00\x00\x03\x0bfar.example\x00\x35", netip.AddrPortFrom(name.Addr(), 9)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			at := relay(t, func(b []byte) [][]byte {
				if want := tt.header + "ping"; string(b) != want {
					t.Errorf("sent %q, want %q", b, want)
				}
				return [][]byte{
					[]byte("\x00\x00\x01\x01\xcb\x00\x71\x09\x00\x09fragment"),
					[]byte("\x00\x00\x00\x01\xcb\x00"),
					[]byte("\x00\x00\x00\x01\xcb\x00\x71\x09\x00\x09pong"),
				}
			})
			u := open(t, at, Config{Names: names})
			if got := u.Apart(tt.dst); got != tt.only.IsValid() {
				t.Errorf("Apart(%v) is %v", tt.dst, got)
			}
			p, err := u.ListenPacket(deadline(t), tt.only)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			if err := p.WriteTo([]byte("ping"), tt.dst); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 100)
			if n, from, err := p.ReadFrom(buf); err != nil || string(buf[:n]) != "pong" || from != tt.from {
				t.Errorf("got %q from %v, %v", buf[:max(n, 0)], from, err)
			}
		})
	}
}

// TestAssociationEnds: with the connection that asked for it, and by Close.
func TestAssociationEnds(t *testing.T) {
	u := open(t, relay(t, nil), Config{})
	p, err := u.ListenPacket(deadline(t), netip.AddrPort{})
	if err != nil {
		t.Fatal(err)
	}
	p.(*association).control.CloseWrite() // the proxy closes its end
	if _, _, err := p.ReadFrom(make([]byte, 9)); err == nil {
		t.Error("a datagram came")
	}
	p.Close()
	if _, _, err := p.ReadFrom(make([]byte, 9)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if err := p.WriteTo([]byte("x"), literal); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("WriteTo after Close: %v", err)
	}
}

// TestRelayAddr: a proxy cannot lead datagrams to what listens on this machine.
func TestRelayAddr(t *testing.T) {
	proxy := &net.TCPAddr{IP: net.ParseIP("192.0.2.1"), Port: 1080}
	for bound, want := range map[string]string{
		"0.0.0.0:9": "192.0.2.1:9", "[::]:9": "192.0.2.1:9", "192.0.2.1:9": "192.0.2.1:9", "192.0.2.2:9": "192.0.2.2:9",
		"127.0.0.1:9": "", "[::1]:9": "", "224.0.0.1:9": "", "169.254.0.1:9": "", "192.0.2.1:0": "",
	} {
		got, err := relayAddr(netip.MustParseAddrPort(bound), proxy)
		if want == "" != (err != nil) || err == nil && got != netip.MustParseAddrPort(want) {
			t.Errorf("%s: %v, %v, want %q", bound, got, err, want)
		}
	}
	if got, err := relayAddr(netip.MustParseAddrPort("127.0.0.1:9"), &net.TCPAddr{IP: net.ParseIP("127.0.0.1")}); err != nil || got.Port() != 9 {
		t.Errorf("a proxy on loopback: %v, %v", got, err)
	}
}

// FuzzReadReply: a reply is read to its end and no further.
func FuzzReadReply(f *testing.F) {
	f.Add([]byte("\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x50rest"))
	f.Add([]byte("\x05\x00\x00\x03\x04host\x00\x50rest"))
	f.Add([]byte("\x05\x05\x00\x04"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		code, bound, err := readReply(r)
		if err != nil || code != 0 {
			return
		}
		used := len(b) - r.Len()
		want := map[byte]int{atypIPv4: 10, atypIPv6: 22}[b[3]]
		if b[3] == atypDomain {
			want = 7 + int(b[4])
		}
		if used != want {
			t.Errorf("%d bytes of %x were read for %v", used, b, bound)
		}
	})
}

// FuzzDatagram: what is read of a header is what appendTarget writes.
func FuzzDatagram(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x01\x7f\x00\x00\x01\x00\x50payload"))
	f.Add([]byte("\x00\x00\x00\x03\x04host\x00\x50payload"))
	f.Add([]byte("\x00\x00\x01\x04"))
	f.Fuzz(func(t *testing.T, b []byte) {
		src, payload, err := parseDatagram(b)
		if err != nil || !src.Addr().IsValid() || src.Addr().Is4() != (b[3] == atypIPv4) {
			return
		}
		again, err := appendTarget([]byte{b[0], b[1], 0}, target{addr: src.Addr(), port: src.Port()})
		if err != nil || !bytes.Equal(append(again, payload...), b) {
			t.Errorf("%x is read as %v %x", b, src, payload)
		}
	})
}
