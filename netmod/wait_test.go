// SPDX-License-Identifier: Apache-2.0

// Threads that wait in a trapped send or receive of datagrams, and are wanted in the
// moment that their wait is over. A program does not meet that moment at will: the
// endpoint here is one that makes it.

package netmod

import (
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"umrun/intercept"
	"umrun/intercept/intercepttest"
	"umrun/stacks"
)

// A slowPacket is an endpoint of a datagram socket.
type slowPacket struct {
	stacks.PacketSocket // nil: what is not here is not called
	full                bool
	sent                int
	came                []string
	during              func() // runs once, while a datagram is sent or received
	after               int    // that many were
}

func (p *slowPacket) Names() (local, remote netip.AddrPort)           { return }
func (p *slowPacket) Option(int, int, []byte) (int, error)            { return 0, unix.ENOPROTOOPT }
func (p *slowPacket) Poll() stacks.Events                             { return 0 }
func (p *slowPacket) Watch(stacks.Events, func(stacks.Events)) func() { return func() {} }

func (p *slowPacket) busy() {
	if p.after--; p.after >= 0 {
		return
	}
	if f := p.during; f != nil {
		p.during = nil
		f()
	}
}

func (p *slowPacket) SendMsg([]byte, stacks.Message) error {
	if p.full {
		return unix.EAGAIN
	}
	p.busy()
	p.sent++
	return nil
}

func (p *slowPacket) RecvMsg(b []byte, _ bool) (int, int, stacks.Message, error) {
	if len(p.came) == 0 {
		return 0, 0, noMessage, unix.EAGAIN
	}
	p.busy()
	n := copy(b, p.came[0])
	p.came = p.came[1:]
	return n, n, noMessage, nil
}

// newSlow makes a socket that nobody but the test serves.
func newSlow(t *testing.T) (*packet, *slowPacket) {
	t.Helper()
	pump, err := newPump(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pump.close)
	ep := new(slowPacket)
	s := &packet{pkt: ep, connected: true}
	s.base = base{m: &Module{pump: pump, ctx: t.Context()}, self: s, family: unix.AF_INET, typ: unix.SOCK_DGRAM, ep: ep, peer: -1}
	s.job.turn = func(uint32) bool { return false }
	return s, ep
}

// wanted has a signal come to a call now, and returns when its cancel function is about
// to run or has.
func wanted(c *intercepttest.Call) {
	go c.Interrupt()
	for c.Parked() {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(20 * time.Millisecond)
}

func TestInterruptedWhileSending(t *testing.T) {
	t.Parallel()
	s, ep := newSlow(t)
	p := intercepttest.New(t)
	data := p.Map([]byte("datagram"))
	d, _ := placeholder(t)
	c := p.Call(intercept.HandlerFunc(func(c *intercept.Call) intercept.Action {
		x := &transfer{}
		_ = x.span(uint64(data), 8)
		ep.full = true
		return s.send(c, d, x)
	}), unix.SYS_SENDTO)
	ep.full = false
	ep.during = func() { wanted(c) }
	s.mu.Lock()
	s.serveWriters()
	s.mu.Unlock()
	if r := c.Result(); ep.sent != 1 || r.Kind != intercept.ReplyReturn || r.Val != 8 {
		t.Errorf("sent %d times, and then %v; want 8", ep.sent, r)
	}
}

// A receiver is a thread that waits for messages.
type receiver struct {
	call *intercepttest.Call
	data intercept.Addr // of the first; each has 8 bytes
}

// receiving has p wait in recvmmsg(2) for count messages, or in recvmsg(2) for 0.
func receiving(t *testing.T, s *packet, p *intercepttest.Process, count int) receiver {
	t.Helper()
	data := p.Map(make([]byte, 8*max(count, 1)))
	var hdrs []byte
	for i := range max(count, 1) {
		var h [sizeofMmsghdr]byte
		var iov [16]byte
		native.PutUint64(iov[:], uint64(data)+uint64(i)*8)
		native.PutUint64(iov[8:], 8)
		native.PutUint64(h[16:], uint64(p.Map(iov[:])))
		native.PutUint64(h[24:], 1)
		hdrs = append(hdrs, h[:]...)
	}
	hdr := p.Map(hdrs)
	d, _ := placeholder(t)
	return receiver{data: data, call: p.Call(intercept.HandlerFunc(func(c *intercept.Call) intercept.Action {
		if count > 0 {
			return s.recvBatch(c, d, &batch{at: hdr, left: count})
		}
		x, err := readMsghdr(c, hdr, false)
		if err != nil {
			t.Error(err)
			return intercept.Fail(unix.EFAULT)
		}
		return s.recv(c, d, x)
	}), unix.SYS_RECVMSG)}
}

// TestInterruptedWhileReceiving: a datagram that was taken from the stack, and an error,
// are told by the call that they were taken for, or by the next one.
func TestInterruptedWhileReceiving(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		count int // of messages that recvmmsg waits for; 0: it is recvfrom
		came  []string
		err   unix.Errno
		want  intercepttest.Result
		mem   string
	}{
		{"one", 0, []string{"first"}, 0, intercepttest.Result{Val: 5}, "first"},
		{"error", 0, nil, unix.ECONNREFUSED, intercepttest.Result{Errno: unix.ECONNREFUSED}, ""},
		{"the only of many", 1, []string{"first"}, 0, intercepttest.Result{Val: 1}, "first"},
		{"first of many", 2, []string{"first"}, 0, intercepttest.Result{Val: 1}, "first"},
		{"all of many", 2, []string{"first", "other"}, 0, intercepttest.Result{Val: 2}, "first"},
		{"error of many", 2, nil, unix.ECONNREFUSED, intercepttest.Result{Errno: unix.ECONNREFUSED}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, ep := newSlow(t)
			p := intercepttest.New(t)
			r := receiving(t, s, p, tt.count)
			c, data := r.call, r.data
			s.mu.Lock()
			ep.came, s.soErr = tt.came, tt.err
			if ep.during = func() { wanted(c) }; tt.err != 0 {
				ep.busy()
			}
			s.serveReaders()
			s.mu.Unlock()
			if tt.err != 0 {
				tt.want.Kind = intercept.ReplyErrno
			} else {
				tt.want.Kind = intercept.ReplyReturn
			}
			if r := c.Result(); r != tt.want {
				t.Errorf("%v, want %v; %d datagrams and error %v are left", r, tt.want, len(s.inbox), s.soErr)
			}
			if got := string(p.Mem(data, len(tt.mem))); got != tt.mem {
				t.Errorf("in memory is %q, want %q", got, tt.mem)
			}
		})
	}
}

// TestKilledWhileReceiving: what comes when the thread that waits for it was killed is
// another's, as where several processes serve one socket.
func TestKilledWhileReceiving(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ many, after int }{{0, 0}, {2, 0}, {2, 1}} {
		s, ep := newSlow(t)
		dead, p := intercepttest.New(t), intercepttest.New(t)
		killed := receiving(t, s, dead, tt.many)
		next := receiving(t, s, p, 0)
		ep.after, ep.during = tt.after, func() {
			go killed.call.Kill()
			for killed.call.Parked() {
				time.Sleep(time.Millisecond)
			}
		}
		s.mu.Lock()
		ep.came = []string{"first", "other"}[:tt.after+1]
		want := ep.came[tt.after]
		s.serveReaders()
		s.mu.Unlock()
		if r := next.call.Result(); r.Kind != intercept.ReplyReturn || string(p.Mem(next.data, 5)) != want {
			t.Errorf("killed at message %d of %d: the next one got %v, %q; want %q", tt.after+1, tt.many, r, p.Mem(next.data, 5), want)
		}
	}
}
