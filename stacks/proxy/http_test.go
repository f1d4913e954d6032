// SPDX-License-Identifier: Apache-2.0

// HTTP CONNECT, byte by byte.

package proxy

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// request reads up to the empty line.
func request(c io.Reader) string {
	var b strings.Builder
	for !strings.HasSuffix(b.String(), "\r\n\r\n") {
		s := read(c, 1)
		if s == "" {
			break
		}
		b.WriteString(s)
	}
	return b.String()
}

// TestConnect: what is asked, and that nothing behind the answer's header is taken,
// however it is cut into segments.
func TestConnect(t *testing.T) {
	names := NewNames(1)[0]
	name := netip.AddrPortFrom(names.Addrs("far.example")[0], 80)
	for _, tt := range []struct {
		name   string
		conf   Config
		dst    netip.AddrPort
		asked  string
		answer []string
	}{
		{"address", Config{}, literal, "CONNECT 192.0.2.7:443 HTTP/1.1\r\nHost: 192.0.2.7:443\r\n\r\n", []string{"HTTP/1.1 200 OK\r\n\r\nfirst words"}},
		{"IPv6", Config{}, netip.MustParseAddrPort("[2001:db8::1]:80"), "CONNECT [2001:db8::1]:80 HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n",
			[]string{"HTTP/1.0 200 Connection established\r\nProxy-agent: x\r\n\r\nfirst words"}},
		{"name", Config{User: "me", Password: "pw"}, name,
			"CONNECT far.example:80 HTTP/1.1\r\nHost: far.example:80\r\nProxy-Authorization: Basic bWU6cHc=\r\n\r\n",
			[]string{"HTTP/1.1 200", " OK\r", "\nA: b\r\n\r", "\nfirst", " words"}},
		{"interim", Config{}, literal, "CONNECT 192.0.2.7:443 HTTP/1.1\r\nHost: 192.0.2.7:443\r\n\r\n",
			[]string{"HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\n\r\nfirst words"}},
		{"long", Config{}, literal, "CONNECT 192.0.2.7:443 HTTP/1.1\r\nHost: 192.0.2.7:443\r\n\r\n",
			[]string{"HTTP/1.1 200 OK\r\n" + strings.Repeat("A: "+strings.Repeat("b", 100)+"\r\n", 100) + "\r\nfirst words"}},
		{"bare newlines", Config{}, literal, "CONNECT 192.0.2.7:443 HTTP/1.1\r\nHost: 192.0.2.7:443\r\n\r\n", []string{"HTTP/1.1 200 OK\n\nfirst words"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			at := serve(t, func(c *net.TCPConn) {
				if got := request(c); got != tt.asked {
					t.Errorf("asked %q, want %q", got, tt.asked)
				}
				for i, s := range tt.answer {
					if i > 0 {
						time.Sleep(5 * time.Millisecond) // so that it is a segment of its own
					}
					io.WriteString(c, s)
				}
				io.Copy(c, c)
			})
			tt.conf.Kind, tt.conf.Names = HTTP, names
			c, err := open(t, at, tt.conf).DialStream(deadline(t), tt.dst)
			if err != nil {
				t.Fatal(err)
			}
			talk(t, c)
		})
	}
}

// TestUrgent: what the proxy sends as urgent data comes as ordinary data, in its place.
func TestUrgent(t *testing.T) {
	at := serve(t, func(c *net.TCPConn) {
		request(c)
		io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\nab")
		rc, err := c.SyscallConn()
		if err != nil {
			t.Error(err)
			return
		}
		rc.Write(func(fd uintptr) bool { return unix.Send(int(fd), []byte("!"), unix.MSG_OOB) != unix.EAGAIN })
		io.WriteString(c, "cd")
	})
	c, err := open(t, at, Config{Kind: HTTP}).DialStream(deadline(t), literal)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if b, err := io.ReadAll(c); string(b) != "ab!cd" || err != nil {
		t.Errorf("read %q, %v", b, err)
	}
}

// TestConnectErrors: statuses and their errno, and what is no proxy.
func TestConnectErrors(t *testing.T) {
	for _, tt := range []struct {
		says  string
		user  string
		errno unix.Errno
		cause Cause
	}{
		{says: "HTTP/1.1 403 no\r\n\r\n", errno: unix.EACCES, cause: -1},
		{says: "HTTP/1.1 500 no\r\n\r\n", errno: unix.EHOSTUNREACH, cause: -1},
		{says: "HTTP/1.1 502 no\r\nContent-Length: 3\r\n\r\nxyz", errno: unix.EHOSTUNREACH, cause: -1},
		{says: "HTTP/1.1 503 no\r\n\r\n", errno: unix.ENETUNREACH, cause: -1},
		{says: "HTTP/1.1 504 no\r\n\r\n", errno: unix.EHOSTUNREACH, cause: -1},
		{says: "HTTP/1.1 407 no\r\n\r\n", errno: unix.ENETUNREACH, cause: WantsAuth},
		{says: "HTTP/1.1 407 no\r\n\r\n", user: "me", errno: unix.ENETUNREACH, cause: BadAuth},
		{says: "HTTP/1.1 401 no\r\n\r\n", user: "you", errno: unix.ENETUNREACH, cause: BadAuth},
		{says: "", errno: unix.ENETUNREACH, cause: Broken},
		{says: "\x05\xff", errno: unix.ENETUNREACH, cause: Broken},
		{says: "SSH-2.0-x\r\n", errno: unix.ENETUNREACH, cause: Broken},
		{says: "HTTP/1.1 200 OK\r\n" + strings.Repeat("A: b\r\n", 20_000), errno: unix.ENETUNREACH, cause: Broken},
	} {
		t.Run(tt.says[:min(len(tt.says), 12)]+tt.user, func(t *testing.T) {
			at := serve(t, func(c *net.TCPConn) {
				request(c)
				io.WriteString(c, tt.says)
				c.CloseWrite()
				io.Copy(io.Discard, c)
			})
			u := open(t, at, Config{Kind: HTTP, User: tt.user})
			if tt.user != "" {
				u.conf.Password = "swordfish"
			}
			_, err := u.DialStream(deadline(t), literal)
			if !errors.Is(err, tt.errno) {
				t.Errorf("%v, want %v", err, tt.errno)
			}
			var un *UnusableError
			if errors.As(err, &un) != (tt.cause >= 0) || un != nil && un.Cause != tt.cause {
				t.Errorf("%v: %+v, want the cause %d", err, un, tt.cause)
			}
			// A probe asks for what is not there: any refusal shows that the proxy is.
			if err := u.Probe(deadline(t)); (err == nil) != (tt.cause < 0) {
				t.Errorf("probe: %v", err)
			}
			if _, err := u.ListenPacket(deadline(t), literal); !errors.Is(err, unix.ENETUNREACH) {
				t.Errorf("datagrams: %v", err)
			}
		})
	}
}

// FuzzHeaderEnd: the end is found wherever the header is cut.
func FuzzHeaderEnd(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\n\r\nrest"), 3)
	f.Add([]byte("HTTP/1.1 200 OK\n\r\nrest"), 16)
	f.Add([]byte("HTTP/1.1 200 OK\n\nrest"), 99)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		whole := headerEnd(b, 0)
		if cut < 0 || cut > len(b) || whole != 0 && cut >= whole {
			return
		}
		if got := headerEnd(b, cut); got != whole {
			t.Errorf("%q: %d, with %d known %d", b, whole, cut, got)
		}
	})
}
