// SPDX-License-Identifier: Apache-2.0

// Pairs of stacks, the list of cases, and what cases are written with.

package stacktest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

// patience is how long a case waits for what must happen, and hush how long it
// looks for what must not.
const (
	patience = 10 * time.Second
	hush     = 30 * time.Millisecond
)

// A Pair is two stacks that reach each other; they may be one and the same.
type Pair struct {
	A, B           stacks.Stack
	A4, A6, B4, B6 netip.Addr // addresses of A and B
	Broadcast      netip.Addr // of the network that A4 and B4 are in, if any

	// Ping says that the stacks have ICMP echo sockets.
	Ping bool

	// Known lists the cases that fail and why. A case that is listed and passes
	// is an error.
	Known map[string]string
}

// KernelPair returns the kernel on the loopback interface as both stacks.
func KernelPair() Pair {
	v4, v6 := netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP)
	if err == nil {
		unix.Close(fd)
	}
	return Pair{
		A: Kernel{}, B: Kernel{}, A4: v4, B4: v4, A6: v6, B6: v6,
		Broadcast: netip.AddrFrom4([4]byte{127, 255, 255, 255}), Ping: err == nil,
	}
}

// A testCase is one behaviour.
type testCase struct {
	name string
	run  func(*testing.T, Pair)
}

// Run runs every case against a pair that mk makes once for all.
func Run(t *testing.T, p Pair) {
	for _, c := range slices.Concat(tcpCases, udpCases, optionCases) {
		t.Run(c.name, func(t *testing.T) {
			if why, ok := p.Known[c.name]; ok {
				t.Skipf("known difference: %s", why)
			}
			c.run(t, p)
		})
	}
}

// Errors of calls are compared as errnos, nil being 0 and the end of a stream
// EOF.
func wantErr(t *testing.T, call string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) && !(got == nil && want == nil) {
		t.Errorf("%s: %v (%s), want %v", call, got, errName(got), errName(want))
	}
}

func errName(err error) string {
	var e unix.Errno
	if errors.As(err, &e) {
		return unix.ErrnoName(e)
	}
	return fmt.Sprint(err)
}

// eventNames writes an event set as strace does.
func eventNames(ev stacks.Events) string {
	var s []string
	for _, e := range []struct {
		bit  stacks.Events
		name string
	}{
		{unix.POLLIN, "IN"}, {unix.POLLPRI, "PRI"}, {unix.POLLOUT, "OUT"},
		{unix.POLLERR, "ERR"}, {unix.POLLHUP, "HUP"}, {unix.POLLRDHUP, "RDHUP"},
	} {
		if ev&e.bit != 0 {
			s = append(s, e.name)
			ev &^= e.bit
		}
	}
	if ev != 0 {
		s = append(s, fmt.Sprintf("%#x", uint32(ev)))
	}
	if len(s) == 0 {
		return "0"
	}
	return strings.Join(s, "|")
}

// await polls until cond holds.
func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("gave up waiting for %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// awaitPoll waits until Poll returns exactly want.
func awaitPoll(t *testing.T, s stacks.Socket, want stacks.Events) {
	t.Helper()
	var got stacks.Events
	deadline := time.Now().Add(patience)
	for {
		if got = s.Poll(); got == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("poll is %s, want %s", eventNames(got), eventNames(want))
		}
		time.Sleep(time.Millisecond)
	}
}

// awaitEvent waits until Poll has one of the events.
func awaitEvent(t *testing.T, s stacks.Socket, ev stacks.Events) {
	t.Helper()
	await(t, eventNames(ev), func() bool { return s.Poll()&ev != 0 })
}

func wantPoll(t *testing.T, when string, s stacks.Socket, want stacks.Events) {
	t.Helper()
	if got := s.Poll(); got != want {
		t.Errorf("%s: poll is %s, want %s", when, eventNames(got), eventNames(want))
	}
}

func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func newSocket(t *testing.T, st stacks.Stack, family, typ, proto int) stacks.Socket {
	t.Helper()
	s, err := st.Socket(family, typ, proto)
	if err != nil {
		t.Fatalf("socket(%d, %d, %d): %v", family, typ, proto, err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func newTCP(t *testing.T, st stacks.Stack, family int) stacks.StreamSocket {
	t.Helper()
	return newSocket(t, st, family, unix.SOCK_STREAM, 0).(stacks.StreamSocket)
}

func newUDP(t *testing.T, st stacks.Stack, family int) stacks.PacketSocket {
	t.Helper()
	return newSocket(t, st, family, unix.SOCK_DGRAM, 0).(stacks.PacketSocket)
}

// localPort returns the address that others reach s by, s being bound to the
// wildcard or to a.
func reach(s stacks.Socket, a netip.Addr) netip.AddrPort {
	local, _ := s.Names()
	return netip.AddrPortFrom(a, local.Port())
}

// listen makes a listener on an ephemeral port of a.
func listen(t *testing.T, st stacks.Stack, a netip.Addr, backlog int) (stacks.StreamSocket, netip.AddrPort) {
	t.Helper()
	l := newTCP(t, st, family(a))
	if err := l.Bind(netip.AddrPortFrom(a, 0)); err != nil {
		t.Fatalf("bind: %v", err)
	}
	if err := l.Listen(backlog); err != nil {
		t.Fatalf("listen: %v", err)
	}
	return l, reach(l, a)
}

// bindUDP makes a datagram socket on an ephemeral port of a.
func bindUDP(t *testing.T, st stacks.Stack, a netip.Addr) (stacks.PacketSocket, netip.AddrPort) {
	t.Helper()
	s := newUDP(t, st, family(a))
	if err := s.Bind(netip.AddrPortFrom(a, 0)); err != nil {
		t.Fatalf("bind: %v", err)
	}
	return s, reach(s, a)
}

// connect connects s and waits until it is.
func connect(t *testing.T, s stacks.StreamSocket, a netip.AddrPort) {
	t.Helper()
	if err := s.Connect(a); err != nil && err != unix.EINPROGRESS {
		t.Fatalf("connect to %s: %v", a, err)
	}
	awaitEvent(t, s, unix.POLLOUT)
	if e := soError(t, s); e != 0 {
		t.Fatalf("connect to %s: %v", a, e)
	}
}

func accept(t *testing.T, l stacks.StreamSocket) stacks.StreamSocket {
	t.Helper()
	awaitEvent(t, l, unix.POLLIN)
	c, err := l.Accept()
	if err != nil {
		t.Fatalf("accept: %v", err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// connected returns the two ends of a connection from A to an address of B.
func connected(t *testing.T, p Pair, b netip.Addr) (client, server stacks.StreamSocket) {
	t.Helper()
	l, addr := listen(t, p.B, b, 8)
	client = newTCP(t, p.A, family(b))
	connect(t, client, addr)
	return client, accept(t, l)
}

func soError(t *testing.T, s stacks.Socket) unix.Errno {
	t.Helper()
	return unix.Errno(getInt(t, s, unix.SOL_SOCKET, unix.SO_ERROR))
}

// send sends all of b, waiting for room.
func send(t *testing.T, s stacks.StreamSocket, b []byte) {
	t.Helper()
	r := bytes.NewReader(b)
	for r.Len() > 0 {
		switch _, err := s.Send(r); err {
		case nil:
		case unix.EAGAIN:
			awaitEvent(t, s, unix.POLLOUT)
		default:
			t.Fatalf("send: %v", err)
		}
	}
}

// recv receives exactly n bytes, waiting for them.
func recv(t *testing.T, s stacks.StreamSocket, n int) []byte {
	t.Helper()
	var b bytes.Buffer
	for b.Len() < n {
		switch _, err := s.Recv(&b, n-b.Len()); err {
		case nil:
		case unix.EAGAIN:
			awaitEvent(t, s, unix.POLLIN)
		default:
			t.Fatalf("recv after %d of %d bytes: %v", b.Len(), n, err)
		}
	}
	return b.Bytes()
}

// recvErr returns the error of one Recv.
func recvErr(s stacks.StreamSocket) error {
	_, err := s.Recv(io.Discard, 100)
	return err
}

// sendErr returns the error of one Send.
func sendErr(s stacks.StreamSocket) error {
	_, err := s.Send(strings.NewReader("x"))
	return err
}

// recvMsg waits for a datagram and takes it.
func recvMsg(t *testing.T, s stacks.PacketSocket, size int) ([]byte, stacks.Message) {
	t.Helper()
	awaitEvent(t, s, unix.POLLIN)
	b := make([]byte, size)
	n, _, m, err := s.RecvMsg(b, false)
	if err != nil {
		t.Fatalf("recvmsg: %v", err)
	}
	return b[:n], m
}
