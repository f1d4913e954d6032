// SPDX-License-Identifier: Apache-2.0

// Tests of what connections leave behind.

package netstack

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

// count returns how many connections are followed.
func (q *sendQueues) count() (n int) {
	q.m.Range(func(any, any) bool { n++; return true })
	return n
}

func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("gave up waiting for %s", what)
		}
	}
}

// TestNothingStays makes connections that end in every way and sees that none of
// them is followed afterwards.
func TestNothingStays(t *testing.T) {
	st, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	newTCP := func() *stream {
		s, err := st.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		return s.(*stream)
	}
	l := newTCP()
	defer l.Close()
	if err := l.Listen(100); err != nil {
		t.Fatal(err)
	}
	local, _ := l.Names()
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), local.Port())
	refused := netip.AddrPortFrom(addr.Addr(), 1)
	dial := func() (*stream, stacks.StreamSocket) {
		c := newTCP()
		if err := c.Connect(addr); err != unix.EINPROGRESS {
			t.Fatal(err)
		}
		await(t, "connection", func() bool { return c.Poll()&unix.POLLOUT != 0 && l.Poll()&unix.POLLIN != 0 })
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return c, s
	}
	for _, tt := range []struct {
		name string
		end  func()
		stay int // connections that TIME-WAIT keeps for a minute
	}{
		{"refused", func() {
			c := newTCP()
			c.Connect(refused)
			await(t, "refusal", func() bool { return c.Poll()&unix.POLLERR != 0 })
			c.Close()
		}, 0},
		{"refused often", func() {
			c := newTCP()
			for range 20 {
				c.Connect(refused)
				await(t, "refusal", func() bool { return c.Poll()&unix.POLLERR != 0 })
				if err := c.Connect(refused); err != unix.ECONNREFUSED {
					t.Errorf("connect: %v", err)
				}
			}
			c.Close()
		}, 0},
		{"client aborts", func() { c, s := dial(); c.Abort(); s.Close() }, 0},
		{"server aborts", func() { c, s := dial(); s.Abort(); c.Close() }, 0},
		{"disconnected", func() { c, s := dial(); c.Connect(netip.AddrPort{}); c.Close(); s.Close() }, 0},
		{"unread data", func() {
			c, s := dial()
			c.Send(strings.NewReader("x"))
			await(t, "data", func() bool { return s.Poll()&unix.POLLIN != 0 })
			s.Close()
			c.Close()
		}, 0},
		{"both close", func() {
			c, s := dial()
			c.Close()
			await(t, "FIN", func() bool { return s.Poll()&unix.POLLRDHUP != 0 })
			s.Close()
		}, 1},
	} {
		before := st.queues.count()
		tt.end()
		await(t, tt.name+" to be forgotten", func() bool { return st.queues.count() <= before+tt.stay })
	}
}

// TestManyConnections makes connections one after another, each of them closed
// by the client, and sees that all of them work.
func TestManyConnections(t *testing.T) {
	st, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	ls, _ := st.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	l := ls.(*stream)
	if err := l.Listen(100); err != nil {
		t.Fatal(err)
	}
	local, _ := l.Names()
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), local.Port())
	wake := make(chan struct{}, 1)
	note := func(stacks.Events) {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
	defer l.Watch(unix.POLLIN, note)()
	const total = 3000
	for i := range total {
		cs, err := st.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		c := cs.(*stream)
		stop := c.Watch(unix.POLLOUT, note)
		if err := c.Connect(addr); err != unix.EINPROGRESS {
			t.Fatalf("connection %d: %v", i, err)
		}
		deadline := time.After(10 * time.Second)
		for c.Poll() != unix.POLLOUT || l.Poll() != unix.POLLIN {
			select {
			case <-wake:
			case <-deadline:
				t.Fatalf("connection %d: client %#x, listener %#x", i, c.Poll(), l.Poll())
			}
		}
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		stop()
		c.Close()
		s.Close()
	}
}
