// SPDX-License-Identifier: Apache-2.0

// Cases of TCP sockets: poll masks, half-close and resets.

package stacktest

import (
	"io"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

func tcpPollStates(t *testing.T, p Pair) {
	c := newTCP(t, p.A, unix.AF_INET)
	wantPoll(t, "unconnected", c, evFresh)
	l := newTCP(t, p.B, unix.AF_INET)
	if err := l.Bind(netip.AddrPortFrom(p.B4, 0)); err != nil {
		t.Fatal(err)
	}
	wantPoll(t, "bound", l, evFresh)
	if err := l.Listen(8); err != nil {
		t.Fatal(err)
	}
	wantPoll(t, "listening", l, 0)
	connect(t, c, reach(l, p.B4))
	awaitPoll(t, l, unix.POLLIN)
	s := accept(t, l)
	wantPoll(t, "nothing to accept", l, 0)
	awaitPoll(t, c, unix.POLLOUT)
	awaitPoll(t, s, unix.POLLOUT)
	send(t, c, []byte("x"))
	awaitPoll(t, s, unix.POLLIN|unix.POLLOUT)
	recv(t, s, 1)
	wantPoll(t, "read", s, unix.POLLOUT)
	if err := c.Shutdown(unix.SHUT_WR); err != nil {
		t.Fatal(err)
	}
	awaitPoll(t, s, unix.POLLIN|unix.POLLOUT|unix.POLLRDHUP)
	wantPoll(t, "after SHUT_WR", c, unix.POLLOUT)
	if err := s.Shutdown(unix.SHUT_WR); err != nil {
		t.Fatal(err)
	}
	awaitPoll(t, c, evDead)
	awaitPoll(t, s, evDead)
}

func tcpHalfClose(t *testing.T, p Pair) {
	c, s := connected(t, p, p.B4)
	send(t, c, []byte("last words"))
	if err := c.Shutdown(unix.SHUT_WR); err != nil {
		t.Fatal(err)
	}
	wantErr(t, "shutdown twice", c.Shutdown(unix.SHUT_WR), nil)
	wantErr(t, "send", sendErr(c), unix.EPIPE)
	if got := recv(t, s, 10); string(got) != "last words" {
		t.Errorf("got %q", got)
	}
	awaitEvent(t, s, unix.POLLRDHUP)
	wantErr(t, "recv", recvErr(s), io.EOF)
	wantErr(t, "recv again", recvErr(s), io.EOF)
	// The other direction still works.
	send(t, s, []byte("still here"))
	if got := recv(t, c, 10); string(got) != "still here" {
		t.Errorf("got %q", got)
	}
	s.Close()
	awaitEvent(t, c, unix.POLLRDHUP)
	wantErr(t, "recv", recvErr(c), io.EOF)
}

func tcpShutRDWR(t *testing.T, p Pair) {
	c, s := connected(t, p, p.B4)
	if err := c.Shutdown(unix.SHUT_RDWR); err != nil {
		t.Fatal(err)
	}
	awaitPoll(t, c, evDead)
	wantErr(t, "recv", recvErr(c), io.EOF)
	wantErr(t, "send", sendErr(c), unix.EPIPE)
	awaitPoll(t, s, unix.POLLIN|unix.POLLOUT|unix.POLLRDHUP)
	wantErr(t, "peer's recv", recvErr(s), io.EOF)
	wantErr(t, "shutdown with a bad how", c.Shutdown(3), unix.EINVAL)
}

func tcpReset(t *testing.T, p Pair) {
	c, s := connected(t, p, p.B4)
	s.Abort()
	awaitPoll(t, c, evDead|unix.POLLERR)
	wantErr(t, "recv", recvErr(c), unix.ECONNRESET)
	wantErr(t, "second recv", recvErr(c), io.EOF)
	wantPoll(t, "after the report", c, evDead)
	wantErr(t, "send", sendErr(c), unix.EPIPE)
	if _, remote := c.Names(); remote.IsValid() {
		t.Errorf("peer name %s after reset", remote)
	}
	wantErr(t, "shutdown", c.Shutdown(unix.SHUT_WR), unix.ENOTCONN)
}

func tcpResetBehindData(t *testing.T, p Pair) {
	c, s := connected(t, p, p.B4)
	send(t, s, []byte("hello"))
	awaitEvent(t, c, unix.POLLIN)
	s.Abort()
	awaitPoll(t, c, evDead|unix.POLLERR)
	if got := recv(t, c, 5); string(got) != "hello" {
		t.Errorf("got %q", got)
	}
	wantErr(t, "recv", recvErr(c), unix.ECONNRESET)
	wantErr(t, "second recv", recvErr(c), io.EOF)
}

func tcpResetBySend(t *testing.T, p Pair) {
	c, s := connected(t, p, p.B4)
	s.Abort()
	awaitPoll(t, c, evDead|unix.POLLERR)
	wantErr(t, "send", sendErr(c), unix.ECONNRESET)
	wantErr(t, "second send", sendErr(c), unix.EPIPE)
	if e := soError(t, c); e != 0 {
		t.Errorf("SO_ERROR %v after send told", e)
	}
	wantErr(t, "recv", recvErr(c), io.EOF)
}

func tcpCloseUnreadResets(t *testing.T, p Pair) {
	c, s := connected(t, p, p.B4)
	send(t, c, []byte("nobody reads this"))
	awaitEvent(t, s, unix.POLLIN)
	s.Close()
	awaitPoll(t, c, evDead|unix.POLLERR)
	wantErr(t, "recv", recvErr(c), unix.ECONNRESET)
}

func tcpLingerZero(t *testing.T, p Pair) {
	c, s := connected(t, p, p.B4)
	v := append(i32(1), i32(0)...)
	if err := s.SetOption(unix.SOL_SOCKET, unix.SO_LINGER, v); err != nil {
		t.Fatal(err)
	}
	s.Close()
	awaitPoll(t, c, evDead|unix.POLLERR)
	if e := soError(t, c); e != unix.ECONNRESET {
		t.Errorf("SO_ERROR %v, want ECONNRESET", e)
	}
}
