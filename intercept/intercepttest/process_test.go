// SPDX-License-Identifier: Apache-2.0

// Tests of the fake: it answers as the kernel does, by the same scenes as the
// tests of package intercept.

package intercepttest_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"umrun/intercept"
	"umrun/intercept/intercepttest"
)

func TestMemory(t *testing.T) {
	p := intercepttest.New(t)
	read := intercept.HandlerFunc(func(c *intercept.Call) intercept.Action {
		s, err := c.ReadString(intercept.Addr(c.Args[0]), 64)
		if err != nil {
			return intercept.Fail(intercept.Errno(err))
		}
		return intercept.Return(int64(len(s)))
	})
	write := intercept.HandlerFunc(func(c *intercept.Call) intercept.Action {
		return intercept.Fail(intercept.Errno(c.WriteMem(intercept.Addr(c.Args[0]), []byte("world"))))
	})
	buf := p.Map([]byte("hello"))
	for _, tt := range []struct {
		name string
		h    intercept.Handler
		addr intercept.Addr
		want string
	}{
		{"string", read, p.String("hello"), "5"},
		{"empty", read, p.String(""), "0"},
		{"too long", read, p.Map(bytes.Repeat([]byte{'x'}, 100)), "-1 ENAMETOOLONG"},
		{"null", read, 0, "-1 EFAULT"},
		{"write", write, buf, "0"},
		{"write across the end", write, buf + 1, "-1 EFAULT"},
		{"write read-only", write, p.MapReadOnly([]byte("hello")), "-1 EFAULT"},
	} {
		if got := p.Call(tt.h, 1, tt.addr).Result().String(); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
	if got := string(p.Mem(buf, 5)); got != "world" {
		t.Errorf("memory has %q", got)
	}
}

func TestDescriptors(t *testing.T) {
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(s)
	p := intercepttest.New(t)
	p.Open(0, s)
	var keys []intercept.Key
	dup := intercept.HandlerFunc(func(c *intercept.Call) intercept.Action {
		f, err := c.DupFD(int(int32(c.Args[0])))
		if err != nil {
			return intercept.Fail(intercept.Errno(err))
		}
		keys = append(keys, f.Key)
		return intercept.InstallFD(f.N, true)
	})
	p.MaxFD = 2
	for _, tt := range []struct {
		fd   int
		want string
	}{{0, "1"}, {1, "-1 EMFILE"}, {5, "-1 EBADF"}, {-1, "-1 EBADF"}} {
		if got := p.Call(dup, 1, tt.fd).Result().String(); got != tt.want {
			t.Errorf("dup %d: %s, want %s", tt.fd, got, tt.want)
		}
	}
	if diff := cmp.Diff([]int{0, 1}, p.FDs()); diff != "" {
		t.Error(diff)
	}
	if len(keys) != 2 || keys[0] != keys[1] || keys[0].Cookie == 0 {
		t.Errorf("keys %v", keys)
	}
	if p.CloseOnExec(0) || !p.CloseOnExec(1) {
		t.Error("close-on-exec is not what was asked for")
	}
}

func TestParked(t *testing.T) {
	var reasons []intercept.Reason
	h := intercept.HandlerFunc(func(c *intercept.Call) intercept.Action {
		return c.Park(func(r intercept.Reason) intercept.Action {
			reasons = append(reasons, r)
			return intercept.Restart()
		})
	})
	p := intercepttest.New(t)
	done := p.Call(h, 1)
	if done.Answered() || !done.Complete(intercept.Return(7)) || done.Result().Val != 7 || done.Interrupt() {
		t.Error("not completed once")
	}
	c := p.Call(h, 1)
	if !c.Interrupt() || c.Result().Kind != intercept.ReplyRestart || c.Complete(intercept.Return(7)) {
		t.Error("not interrupted once")
	}
	c = p.Call(h, 1)
	c.Kill()
	if err := c.ReadMem(0x10000, make([]byte, 1)); !errors.Is(err, intercept.ErrGone) || c.Answered() || c.Complete(intercept.Return(7)) {
		t.Errorf("killed: %v", err)
	}
	if diff := cmp.Diff([]intercept.Reason{intercept.Interrupted, intercept.Gone}, reasons); diff != "" {
		t.Error(diff)
	}
}
