// SPDX-License-Identifier: Apache-2.0

// Sockets that are closed leave nothing behind.

package netmod_test

import (
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"umrun/netmod"
	"umrun/stacks"
)

func init() {
	targets["close-after-shutdown"] = closeAfterShutdown
	targets["close-abruptly"] = closeAbruptly
}

// closeAfterShutdown ends connections in each order of shutdown and close.
func closeAfterShutdown(w *transcript) {
	end := func(fd int) {
		var b [1]byte
		n, err := unix.Read(fd, b[:])
		if n != 0 || err != nil {
			w.say("read: %d, %v", n, err)
		}
	}
	for range 3 {
		c, s := pair(w)
		w.must("shutdown", unix.Shutdown(c, unix.SHUT_WR))
		end(s)
		w.must("shutdown", unix.Shutdown(s, unix.SHUT_WR))
		end(c)
		unix.Close(c)
		unix.Close(s)

		c, s = pair(w)
		w.must("shutdown", unix.Shutdown(c, unix.SHUT_WR))
		end(s)
		unix.Close(s)
		end(c)
		unix.Close(c)

		c, s = pair(w)
		w.must("shutdown", unix.Shutdown(c, unix.SHUT_WR))
		unix.Close(c) // while the other side is open
		end(s)
		unix.Close(s)

		c, s = pair(w)
		w.must("shutdown", unix.Shutdown(c, unix.SHUT_RDWR))
		end(s)
		unix.Close(s)
		unix.Close(c)
	}
	for i := range 4 {
		// One side after the other: the socket is still the program's.
		c, s := pair(w)
		w.must("shutdown", unix.Shutdown(c, unix.SHUT_RD))
		w.must("shutdown", unix.Shutdown(c, unix.SHUT_WR))
		end(s)
		sa, err := unix.Getsockname(c)
		w.must("getsockname", err)
		if _, ok := sa.(*unix.SockaddrInet4); !ok {
			w.say("a socket that is shut has the name %#v", sa)
		}
		unix.Close(s)
		unix.Close(c)

		u, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		w.must("socket", err)
		w.must("connect", unix.Connect(u, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 9}))
		if i%2 == 0 {
			w.must("shutdown", unix.Shutdown(u, unix.SHUT_RDWR))
		} else {
			w.must("shutdown", unix.Shutdown(u, unix.SHUT_RD))
			w.must("shutdown", unix.Shutdown(u, unix.SHUT_WR))
		}
		end(u)
		unix.Close(u)
	}
	w.say("all closed")
}

func TestCloseAfterShutdown(t *testing.T) {
	w := newWorld(t, nil)
	if out, _ := w.run(t, "close-after-shutdown"); out != "all closed\n" {
		t.Errorf("the target says %q", out)
	}
	for end := time.Now().Add(5 * time.Second); netmod.Known(w.mod) > 0; time.Sleep(5 * time.Millisecond) { // poll with a deadline
		if time.Now().After(end) {
			t.Fatalf("%d sockets are left of a program that has closed all", netmod.Known(w.mod))
		}
	}
}

// TestCloseAbruptly: what a program has written to a peer that does not read is
// thrown away by a close without lingering, and nobody waits for it.
func TestCloseAbruptly(t *testing.T) {
	w := newWorld(t, nil)
	sock, err := w.stack.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer sock.Close()
	l := sock.(stacks.StreamSocket)
	if err := l.Bind(netip.MustParseAddrPort("127.0.0.1:7777")); err != nil {
		t.Fatal(err)
	}
	if err := l.Listen(1); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if out, _ := w.run(t, "close-abruptly"); out != "full\n" {
		t.Errorf("the target says %q", out)
	}
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("waited %v for what was thrown away", d)
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for end := time.Now().Add(5 * time.Second); c.Poll()&unix.POLLHUP == 0; time.Sleep(5 * time.Millisecond) { // poll with a deadline
		if time.Now().After(end) {
			t.Fatal("the peer was not reset")
		}
	}
}

// closeAbruptly fills a connection until nothing has moved for a while.
func closeAbruptly(w *transcript) {
	c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	w.must("socket", err)
	w.must("connect", unix.Connect(c, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 7777}))
	w.must("SO_LINGER", unix.SetsockoptLinger(c, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}))
	w.must("nonblock", unix.SetNonblock(c, true))
	p := make([]byte, 64<<10)
	for {
		for err == nil {
			_, err = unix.Write(c, p)
		}
		if err != unix.EAGAIN {
			w.must("write", err)
		}
		fds := []unix.PollFd{{Fd: int32(c), Events: unix.POLLOUT}}
		n, perr := unix.Poll(fds, 300)
		w.must("poll", perr)
		if n == 0 {
			break
		}
		err = nil
	}
	w.say("full")
	unix.Close(c)
}
