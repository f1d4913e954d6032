// SPDX-License-Identifier: Apache-2.0

// Benchmarks: bulk, round trips, connections, idle memory.

package netstack_test

import (
	"bytes"
	"io"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"umrun/stacks"
	"umrun/stacks/pipe"
	"umrun/stacks/stacktest"
)

// A blocker waits for events of a stream, as the pump does.
type blocker struct {
	stacks.StreamSocket
	wake chan struct{}
	stop func()
}

func newBlocker(s stacks.StreamSocket) *blocker {
	b := &blocker{StreamSocket: s, wake: make(chan struct{}, 1)}
	b.stop = s.Watch(unix.POLLIN|unix.POLLOUT|unix.POLLRDHUP, func(stacks.Events) {
		select {
		case b.wake <- struct{}{}:
		default:
		}
	})
	return b
}

func (b *blocker) sendAll(p []byte) error {
	r := bytes.NewReader(p)
	for r.Len() > 0 {
		_, err := b.Send(r)
		if err == unix.EAGAIN {
			<-b.wake
		} else if err != nil {
			return err
		}
	}
	return nil
}

func (b *blocker) recvSome(w io.Writer, n int) (int, error) {
	for {
		got, err := b.Recv(w, n)
		if err != unix.EAGAIN {
			return got, err
		}
		<-b.wake
	}
}

// connectPair joins two stacks by wrap of a pipe and connects them.
func connectPair(t testing.TB, c pipe.Config, wrap func(a, b stacks.Link) (stacks.Link, stacks.Link)) (client, server *blocker) {
	return dialPair(t, newPair(t, c, wrap))()
}

// benchPair returns a function that connects two stacks.
func benchPair(b *testing.B, c pipe.Config) (dial func() (client, server *blocker)) {
	return dialPair(b, newPair(b, c, nil))
}

// dialPair makes a listener of B and returns a function that connects A to it.
func dialPair(b testing.TB, p stacktest.Pair) (dial func() (client, server *blocker)) {
	s, err := p.B.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		b.Fatal(err)
	}
	l := newBlocker(s.(stacks.StreamSocket))
	if err := l.Listen(100); err != nil {
		b.Fatal(err)
	}
	local, _ := l.Names()
	return func() (*blocker, *blocker) {
		s, err := p.A.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			b.Fatal(err)
		}
		c := newBlocker(s.(stacks.StreamSocket))
		c.SetOption(unix.IPPROTO_TCP, unix.TCP_NODELAY, []byte{1, 0, 0, 0})
		if err := c.Connect(netip.AddrPortFrom(p.B4, local.Port())); err != unix.EINPROGRESS {
			b.Fatal(err)
		}
		for c.Poll()&unix.POLLOUT == 0 {
			<-c.wake
		}
		for {
			a, err := l.Accept()
			if err == nil {
				return c, newBlocker(a)
			}
			if err != unix.EAGAIN {
				b.Fatal(err)
			}
			<-l.wake
		}
	}
}

func BenchmarkBulk(b *testing.B) {
	for _, tt := range []struct {
		name string
		cfg  pipe.Config
	}{{"offload", pipe.Config{Offload: true}}, {"plain", pipe.Config{}}} {
		b.Run(tt.name, func(b *testing.B) {
			dial := benchPair(b, tt.cfg)
			c, s := dial()
			chunk := make([]byte, 48<<10)
			b.SetBytes(int64(len(chunk)))
			b.ResetTimer()
			done := make(chan error, 1)
			go func() {
				for range b.N {
					if err := c.sendAll(chunk); err != nil {
						done <- err
						return
					}
				}
				done <- nil
			}()
			for got := 0; got < b.N*len(chunk); {
				n, err := s.recvSome(io.Discard, 1<<20)
				if err != nil {
					b.Fatal(err)
				}
				got += n
			}
			if err := <-done; err != nil {
				b.Fatal(err)
			}
		})
	}
}

func BenchmarkRoundTrip(b *testing.B) {
	c, s := benchPair(b, pipe.Config{Offload: true})()
	go func() {
		for {
			if _, err := s.recvSome(io.Discard, 1); err != nil {
				return
			}
			if s.sendAll([]byte("a")) != nil {
				return
			}
		}
	}()
	for b.Loop() {
		if err := c.sendAll([]byte("q")); err != nil {
			b.Fatal(err)
		}
		if _, err := c.recvSome(io.Discard, 1); err != nil {
			b.Fatal(err)
		}
	}
	c.Abort() // ends the goroutine, by a reset
}

// BenchmarkConnect connects, asks, answers and closes.
func BenchmarkConnect(b *testing.B) {
	dial := benchPair(b, pipe.Config{Offload: true})
	for b.Loop() {
		c, s := dial()
		if err := c.sendAll([]byte("q")); err != nil {
			b.Fatal(err)
		}
		if _, err := s.recvSome(io.Discard, 1); err != nil {
			b.Fatal(err)
		}
		c.stop()
		s.stop()
		c.Abort() // no TIME-WAIT: ports would run out
		s.Close()
	}
}
