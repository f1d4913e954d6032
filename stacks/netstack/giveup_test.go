// SPDX-License-Identifier: Apache-2.0

// A peer that vanishes.

package netstack

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"umrun/stacks"
	"umrun/stacks/pipe"
)

// chunk is a stacks.Payload.
type chunk struct{ *bytes.Reader }

// TestGiveUp pulls the plug of a connection. What waits for an acknowledgement then
// gives up in time; what waits for nothing goes on.
func TestGiveUp(t *testing.T) {
	const giveUp = time.Second
	for _, tt := range []struct {
		name string
		do   func(t *testing.T, s stacks.StreamSocket)
		ends bool
	}{
		{"data", func(t *testing.T, s stacks.StreamSocket) {
			if _, err := s.Send(chunk{bytes.NewReader([]byte("lost"))}); err != nil {
				t.Fatal(err)
			}
		}, true},
		{"fin", func(t *testing.T, s stacks.StreamSocket) {
			if err := s.Shutdown(unix.SHUT_WR); err != nil {
				t.Fatal(err)
			}
		}, true},
		{"idle", func(*testing.T, stacks.StreamSocket) {}, false},
		{"user timeout", func(t *testing.T, s stacks.StreamSocket) {
			if err := s.SetOption(unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, bytesOf(60_000)); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Send(chunk{bytes.NewReader([]byte("lost"))}); err != nil {
				t.Fatal(err)
			}
		}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			near, far := pipe.New(pipe.Config{})
			side := func(l stacks.Link, a string) *Stack {
				st, err := New(Config{Links: []stacks.LinkConfig{{Name: "p0", Link: l, Addrs: []netip.Prefix{netip.MustParsePrefix(a)}}}, giveUp: giveUp})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { st.Close() })
				return st
			}
			a, b := side(near, "10.0.0.1/24"), side(far, "10.0.0.2/24")
			newTCP := func(st *Stack) stacks.StreamSocket {
				s, err := st.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { s.Close() })
				return s.(stacks.StreamSocket)
			}
			l := newTCP(b)
			if err := l.Bind(netip.MustParseAddrPort("10.0.0.2:80")); err != nil {
				t.Fatal(err)
			}
			if err := l.Listen(1); err != nil {
				t.Fatal(err)
			}
			c := newTCP(a)
			to := netip.MustParseAddrPort("10.0.0.2:80")
			if err := c.Connect(to); err != unix.EINPROGRESS {
				t.Fatal(err)
			}
			await(t, "the connection", func() bool { return c.Poll()&unix.POLLOUT != 0 })
			if err := c.Connect(to); err != nil {
				t.Fatal(err)
			}
			far.Close()
			start := time.Now()
			tt.do(t, c)
			if !tt.ends {
				time.Sleep(2 * giveUp)
				if ev := c.Poll(); ev&(unix.POLLERR|unix.POLLHUP) != 0 {
					t.Errorf("poll %#x after %v", ev, time.Since(start))
				}
				return
			}
			await(t, "the end", func() bool { return c.Poll()&unix.POLLERR != 0 })
			if d := time.Since(start); d < giveUp || d > 2*giveUp {
				t.Errorf("gave up after %v", d)
			}
			const dead = unix.POLLIN | unix.POLLOUT | unix.POLLERR | unix.POLLHUP | unix.POLLRDHUP
			if ev := c.Poll(); ev != dead {
				t.Errorf("poll %#x, want %#x", ev, dead)
			}
			if _, err := c.Recv(new(bytes.Buffer), 1); err != unix.ETIMEDOUT {
				t.Errorf("receive: %v, want ETIMEDOUT", err)
			}
			if _, err := c.Send(chunk{bytes.NewReader([]byte("x"))}); err != unix.EPIPE {
				t.Errorf("send: %v, want EPIPE", err)
			}
		})
	}
}
