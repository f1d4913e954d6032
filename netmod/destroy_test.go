// SPDX-License-Identifier: Apache-2.0

// ss -K, and what the holder of a socket then sees.

package netmod_test

import (
	"fmt"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

func init() {
	targets["destroyed"] = destroyed
	targets["destroyed-raw"] = destroyedRaw
}

func destroyed(w *transcript) {
	kill := func(args ...string) {
		err := exec.Command("ss", append([]string{"-K", "-n"}, args...)...).Run()
		w.say("ss -K %v: %v", args[:len(args)-1], err) // the last has a port
	}
	socket := func(typ int) (int, *unix.SockaddrInet4) {
		fd, err := unix.Socket(unix.AF_INET, typ, 0)
		w.must("socket", err)
		w.must("bind", unix.Bind(fd, loopback4))
		sa, err := unix.Getsockname(fd)
		w.must("getsockname", err)
		return fd, sa.(*unix.SockaddrInet4)
	}
	l, at := socket(unix.SOCK_STREAM)
	w.must("listen", unix.Listen(l, 5))
	c, from := socket(unix.SOCK_STREAM)
	w.must("connect", unix.Connect(c, at))
	a, _, err := unix.Accept(l)
	w.must("accept", err)

	b := make([]byte, 10)
	kill("-t", "src", fmt.Sprintf("127.0.0.1:%d", from.Port))
	w.until("the connection", c, unix.POLLHUP)
	w.soError(c)
	_, err = unix.Getpeername(c)
	w.result("peer", err)
	w.until("the other end", a, unix.POLLHUP)
	_, err = unix.Read(a, b)
	w.result("read", err)
	unix.Close(a)
	unix.Close(c)

	kill("-t", "-l", "src", fmt.Sprintf("127.0.0.1:%d", at.Port))
	_, _, err = unix.Accept(l)
	w.result("accept", err)
	w.soError(l)
	n, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	w.must("socket", err)
	w.result("connect", unix.Connect(n, at))
	unix.Close(n)
	unix.Close(l)

	u, name := socket(unix.SOCK_DGRAM)
	w.must("connect", unix.Connect(u, at))
	kill("-u", "-a", "src", fmt.Sprintf("127.0.0.1:%d", name.Port))
	w.until("the datagram socket", u, unix.POLLERR)
	w.soError(u)
	_, err = unix.Getpeername(u)
	w.result("peer", err)
	w.result("sendto", unix.Sendto(u, b, 0, at))
	unix.Close(u)
	kill("-t", "src", "127.0.0.1:1")

	// One that waits in a call.
	l, at = socket(unix.SOCK_STREAM)
	w.must("listen", unix.Listen(l, 5))
	c, from = socket(unix.SOCK_STREAM)
	w.must("connect", unix.Connect(c, at))
	done := make(chan string)
	go func() {
		n, err := unix.Read(c, b)
		done <- fmt.Sprint(n, err != nil)
	}()
	kill("-t", "src", fmt.Sprintf("127.0.0.1:%d", from.Port))
	w.say("woken: %t", <-done != "")
	unix.Close(c)
	unix.Close(l)
}

func TestDestroy(t *testing.T) {
	if _, err := exec.LookPath("ss"); err != nil {
		t.Skip("ss is not installed")
	}
	compareChanges(t, "destroyed")
}

// destroyedRaw is about raw sockets, with and without a peer.
func destroyedRaw(w *transcript) {
	for _, connected := range []bool{false, true} {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_UDP)
		w.must("socket", err)
		if connected {
			w.must("connect", unix.Connect(fd, loopback4))
		}
		w.must("ss", exec.Command("ss", "-K", "-n", "-w", "-a").Run())
		w.until("poll", fd, unix.POLLERR)
		w.soError(fd)
		_, err = unix.Getpeername(fd)
		w.result("peer", err)
		unix.Close(fd)
	}
}

// TestDestroyRaw is not compared: few kernels have raw_diag.
func TestDestroyRaw(t *testing.T) {
	if _, err := exec.LookPath("ss"); err != nil {
		t.Skip("ss is not installed")
	}
	got, _ := newWorld(t, nil).run(t, "destroyed-raw")
	one := "poll: OUT|ERR\nSO_ERROR: ECONNABORTED\npeer: ENOTCONN\n"
	if got != one+one {
		t.Errorf("%s", got)
	}
}
