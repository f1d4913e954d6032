// SPDX-License-Identifier: Apache-2.0

// What a stream has taken, and the kernel had no room for yet.

package kernel_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

// TestTaken: what Send took arrives, whatever the sender does next.
func TestTaken(t *testing.T) {
	st := newStack(t)
	for name, next := range map[string]func(stacks.StreamSocket) error{
		"nothing":  func(stacks.StreamSocket) error { return nil },
		"shutdown": func(s stacks.StreamSocket) error { return s.Shutdown(unix.SHUT_WR) },
		"close":    func(s stacks.StreamSocket) error { return s.Close() },
		"both":     func(s stacks.StreamSocket) error { return errors.Join(s.Shutdown(unix.SHUT_RDWR), s.Close()) },
	} {
		t.Run(name, func(t *testing.T) {
			l, s := newStream(t, st), newStream(t, st)
			at := netip.MustParseAddrPort("127.0.0.1:7")
			// The kernel looks for room between segments, which are half as long as the
			// peer's window, so that it often takes a part.
			small := binary.NativeEndian.AppendUint32(nil, 4000)
			if err := errors.Join(l.SetOption(unix.SOL_SOCKET, unix.SO_RCVBUF, small), l.SetOption(unix.SOL_SOCKET, unix.SO_REUSEADDR, binary.NativeEndian.AppendUint32(nil, 1)),
				s.SetOption(unix.SOL_SOCKET, unix.SO_SNDBUF, small), l.Bind(at), l.Listen(1)); err != nil {
				t.Fatal(err)
			}
			c := connected(t, s, l, at)
			sent := 0
			for {
				n, err := s.Send(bytes.NewReader(make([]byte, 64<<10)))
				sent += n
				if errors.Is(err, unix.EAGAIN) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if err := next(s); err != nil {
				t.Error(err)
			}
			closed := name == "close" || name == "both"
			if b, n := st.Undelivered(); (n == 1) != closed || (b > 0) != closed {
				t.Errorf("undelivered: %d bytes of %d on %d connections", b, sent, n)
			}
			if b, done := s.(stacks.Unacked).Unacked(); b == 0 || done {
				t.Errorf("before anything was read %d bytes are on their way, done: %v", b, done)
			}
			got := 0
			eventually(t, "all has arrived", func() bool {
				n, err := c.Recv(io.Discard, 64<<10)
				got += n
				return errors.Is(err, io.EOF) || name == "nothing" && got == sent
			})
			if got != sent {
				t.Errorf("%d of %d bytes have arrived", got, sent)
			}
			eventually(t, "all is acknowledged", func() bool { _, done := s.(stacks.Unacked).Unacked(); return done })
		})
	}
}

// TestRecvAtOnce: what one reader gets no other one gets as well.
func TestRecvAtOnce(t *testing.T) {
	st := newStack(t)
	l, s := newStream(t, st), newStream(t, st)
	at := netip.MustParseAddrPort("127.0.0.1:8")
	if err := errors.Join(l.Bind(at), l.Listen(1)); err != nil {
		t.Fatal(err)
	}
	c := connected(t, s, l, at)
	const total = 4 << 20
	var got atomic.Int64
	var wg sync.WaitGroup
	deadline := time.Now().Add(20 * time.Second)
	for range 4 {
		wg.Go(func() {
			for got.Load() < total && time.Now().Before(deadline) {
				n, err := c.Recv(io.Discard, 1000)
				got.Add(int64(n))
				if err != nil && !errors.Is(err, unix.EAGAIN) || n > 0 && err != nil {
					t.Errorf("%d bytes and %v", n, err)
					return
				}
			}
		})
	}
	for sent := 0; sent < total && time.Now().Before(deadline) && !t.Failed(); {
		n, err := s.Send(bytes.NewReader(make([]byte, min(64<<10, total-sent))))
		sent += n
		if err != nil && !errors.Is(err, unix.EAGAIN) {
			t.Error(err)
			break
		}
	}
	wg.Wait()
	if n := got.Load(); n != total {
		t.Errorf("%d bytes of %d received", n, total)
	}
}

func newStream(t *testing.T, st stacks.Stack) stacks.StreamSocket {
	t.Helper()
	s, err := st.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s.(stacks.StreamSocket)
}

// connected has s connect to l, which listens at an address, and returns l's end.
func connected(t *testing.T, s, l stacks.StreamSocket, at netip.AddrPort) (c stacks.StreamSocket) {
	t.Helper()
	eventually(t, "connected", func() bool { err := s.Connect(at); return err == nil || errors.Is(err, unix.EISCONN) })
	eventually(t, "accepted", func() bool {
		var err error
		c, err = l.Accept()
		return err == nil
	})
	t.Cleanup(func() { c.Close() })
	return c
}
