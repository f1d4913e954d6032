// SPDX-License-Identifier: Apache-2.0

// Trapped receives that are interrupted.

package netmod

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"umrun/intercept"
	"umrun/intercept/intercepttest"
)

// placeholder is a duplicate of a placeholder, and the other end of the pair.
func placeholder(t *testing.T) (d *held, far int) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	d = &held{FD: intercept.FD{N: pair[0]}}
	t.Cleanup(func() {
		d.drop()
		unix.Close(pair[1])
	})
	return d, pair[1]
}

// TestInterruptedWhileTaking: a signal that comes while bytes are taken out of the placeholder
// does not lose them: the call returns how many there are, and is not made again.
func TestInterruptedWhileTaking(t *testing.T) {
	d, far := placeholder(t)
	m := &Module{ctx: t.Context()}
	s := &stream{base: base{m: m}}
	taking, goOn := make(chan struct{}), make(chan struct{})
	try := func() (int, error) {
		var b [8]byte
		n, err := recvOnce(d.N, b[:], 0)
		if err == nil {
			close(taking)
			<-goOn
		}
		return n, err
	}
	c := intercepttest.New(t).Call(intercept.HandlerFunc(func(c *intercept.Call) intercept.Action {
		return s.natively(c, d, 0, unix.EPOLLIN, try, nil)
	}), unix.SYS_RECVMSG)
	if _, err := unix.Write(far, []byte("bytes")); err != nil {
		t.Fatal(err)
	}
	<-taking
	time.AfterFunc(50*time.Millisecond, func() { close(goOn) })
	if !c.Interrupt() {
		t.Fatal("the call did not wait any more")
	}
	if r := c.Result(); r.Kind != intercept.ReplyReturn || r.Val != 5 {
		t.Errorf("%v, want 5", r)
	}
	m.wg.Wait()
}

// TestInterruptedBeforeTaking: bytes that come to a call that was taken back are the next one's.
func TestInterruptedBeforeTaking(t *testing.T) {
	d, far := placeholder(t)
	m := &Module{ctx: t.Context()}
	s := &stream{base: base{m: m}}
	var b [8]byte
	try := func() (int, error) { return recvOnce(d.N, b[:], 0) }
	p := intercepttest.New(t)
	wait := func() *intercepttest.Call {
		return p.Call(intercept.HandlerFunc(func(c *intercept.Call) intercept.Action {
			return s.natively(c, d, 0, unix.EPOLLIN, try, nil)
		}), unix.SYS_RECVMSG)
	}
	fd, err := unix.Dup(d.N) // the first call closes the other one
	if err != nil {
		t.Fatal(err)
	}
	c := wait()
	if !c.Interrupt() {
		t.Fatal("the call did not wait")
	}
	if r := c.Result(); r.Kind != intercept.ReplyRestart {
		t.Errorf("%v, want a restart", r)
	}
	m.wg.Wait()
	d = &held{FD: intercept.FD{N: fd}}
	c = wait()
	if _, err := unix.Write(far, []byte("bytes")); err != nil {
		t.Fatal(err)
	}
	if r := c.Result(); r.Kind != intercept.ReplyReturn || r.Val != 5 {
		t.Errorf("%v, want 5", r)
	}
	m.wg.Wait()
}
