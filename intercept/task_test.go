// SPDX-License-Identifier: Apache-2.0

// Tests of the target's memory and descriptors.

package intercept

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// useMemory is a handler that reads or writes what CALL(1, p) and CALL(2, p) name.
func useMemory(c *Call) Action {
	switch c.Args[0] {
	case 1:
		s, err := c.ReadString(Addr(c.Args[1]), 64)
		if err != nil {
			return Fail(Errno(err))
		}
		return Return(int64(len(s)))
	default:
		return Fail(Errno(c.WriteMem(Addr(c.Args[1]), []byte("world"))))
	}
}

func TestMemory(t *testing.T) {
	_, out := start(t, Config{Rules: onCall(useMemory)}, "memory").wait(t)
	want := `string: 5
unterminated: EFAULT
too long: ENAMETOOLONG
null: EFAULT
kernel: EFAULT
write: 0
world
write read-only: EFAULT
`
	if out != want {
		t.Errorf("output\n%s, want\n%s", out, want)
	}
}

// TestDescriptors asks which file a number means, also in a thread with a table of
// its own.
func TestDescriptors(t *testing.T) {
	var socket Key
	h := func(c *Call) Action {
		f, err := c.DupFD(int(int32(c.Args[0])))
		if err != nil {
			return Fail(Errno(err))
		}
		defer f.Close()
		if _, err := c.NetNS(); err != nil {
			t.Errorf("network namespace: %v", err)
		}
		switch {
		case !f.IsSocket():
			if f.Key.Cookie != 0 {
				t.Errorf("%#o has a cookie", f.Mode)
			}
			return Return(int64(f.Mode & unix.S_IFMT))
		case socket == Key{}:
			socket = f.Key
			return Return(1)
		case socket == f.Key && f.Key.Cookie != 0:
			return Return(2)
		}
		return Return(3)
	}
	r := start(t, Config{Rules: onCall(h)}, "fds")
	_, out := r.wait(t)
	want := "socket: 1\ndup: 2\npipe: 4096\nclosed: EBADF\nnegative: EBADF\nthread: 8192\nleader: 2\n"
	if out != want {
		t.Errorf("output\n%s, want\n%s", out, want)
	}
}

// TestGroupPidfd is the way of kernels without PIDFD_THREAD: a thread with a table
// of its own cannot be served.
func TestGroupPidfd(t *testing.T) {
	h := func(c *Call) Action {
		pidfd, done, err := c.b.(*notifier).groupPidfd(c)
		if err != nil {
			return Fail(Errno(err))
		}
		defer done()
		fd, err := unix.PidfdGetfd(pidfd, int(int32(c.Args[0])), 0)
		if err != nil {
			return Fail(Errno(err))
		}
		unix.Close(fd)
		return Return(1)
	}
	_, out := start(t, Config{Rules: onCall(h)}, "fds").wait(t)
	want := "socket: 1\ndup: 1\npipe: 1\nclosed: EBADF\nnegative: EBADF\nthread: EPERM\nleader: 1\n"
	if out != want {
		t.Errorf("output\n%s, want\n%s", out, want)
	}
}

func TestInstall(t *testing.T) {
	for _, tt := range []struct {
		name    string
		cloexec bool
		args    []string
		want    string
		fd      int
	}{
		{"plain", false, []string{"install"}, "install: 3\nfstat: 0\ncloexec: 0\n", 3},
		{"close-on-exec", true, []string{"install"}, "install: 3\nfstat: 0\ncloexec: 1\n", 3},
		{"table full", true, []string{"install", "10"}, "install: EMFILE\n", -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			committed, aborted := 0, false
			p := make([]int, 2)
			if err := unix.Pipe2(p, unix.O_CLOEXEC); err != nil {
				t.Fatal(err)
			}
			defer unix.Close(p[0])
			h := func(c *Call) Action {
				a := InstallFD(p[1], tt.cloexec)
				a.OnCommit = func(fd int) { committed = fd }
				a.OnAbort = func() { aborted = true }
				return a
			}
			r := start(t, Config{Rules: onCall(h)}, tt.args...)
			_, out := r.wait(t)
			if out != tt.want {
				t.Errorf("output %q, want %q", out, tt.want)
			}
			if tt.fd >= 0 && (committed != tt.fd || aborted) || tt.fd < 0 && (committed != 0 || !aborted) {
				t.Errorf("committed %d, aborted %v", committed, aborted)
			}
			// Our copy is closed in any case, so the pipe ends.
			got := make([]byte, 10)
			n, err := unix.Read(p[0], got)
			if want := map[bool]string{true: "x"}[tt.fd >= 0]; err != nil || string(got[:max(n, 0)]) != want {
				t.Errorf("pipe has %q, %v, want %q", got[:max(n, 0)], err, want)
			}
		})
	}
}

func TestPanic(t *testing.T) {
	r := start(t, Config{Rules: onCall(func(c *Call) Action {
		if c.Args[0] == 8 {
			return Return(1008)
		}
		panic("a bug")
	})}, "vfork")
	_, out := r.wait(t)
	if out != "call: 1008\nstatus: 0\n" {
		t.Errorf("output %q", out)
	}
	if log := r.log.String(); !strings.Contains(log, "a bug") || !strings.Contains(log, "task_test.go") {
		t.Errorf("log %q", log)
	}
	_, out = start(t, Config{Rules: onCall(func(*Call) Action { panic("a bug") })}, "call").wait(t)
	if out != "call: EIO\n" {
		t.Errorf("output %q", out)
	}
}

// TestOrder asks several handlers.
func TestOrder(t *testing.T) {
	next := func(*Call) Action { return Next() }
	never := func(*Call) Action { t.Error("a handler whose rule does not match was asked"); return Next() }
	call := func(h HandlerFunc, args ...Arg) Rule {
		return Rule{NR: unix.SYS_GETPGID, Args: args, Handler: h}
	}
	for _, tt := range []struct {
		name  string
		rules Rules
		want  string
	}{
		{"second answers", Rules{call(next), call(never, ArgEqual32(0, 7)), call(add1000)}, "call: 1003\n"},
		{"none answers", Rules{call(next), call(next)}, "call: ESRCH\n"},
		{"none is asked", Rules{call(never, ArgEqual32(0, 7))}, "call: ESRCH\n"},
		{"denied", Rules{call(never), {NR: unix.SYS_GETPGID, Do: Deny(unix.EXDEV)}}, "call: EXDEV\n"},
		{"denied to 0", Rules{{NR: unix.SYS_GETPGID, Do: Deny(0)}}, "call: 0\n"},
	} {
		// No process group has this number; natively the call fails.
		_, out := start(t, Config{Rules: tt.rules}, "call", "0x40000003").wait(t)
		want := strings.Replace(tt.want, "1003", "1073742827", 1)
		if out != want {
			t.Errorf("%s: output %q, want %q", tt.name, out, want)
		}
	}
}

// TestNoLeak makes many calls of every kind and counts descriptors.
func TestNoLeak(t *testing.T) {
	if testing.Short() {
		t.Skip("10,000 calls take a while under -short")
	}
	before, err := openFDs()
	if err != nil {
		t.Fatal(err)
	}
	h := func(c *Call) Action {
		f, err := c.DupFD(0)
		if err != nil {
			return Fail(Errno(err))
		}
		return InstallFD(f.N, true)
	}
	r := start(t, Config{Rules: onCall(h)}, "installs", "10000")
	if _, out := r.wait(t); out != "installs: 10000\n" {
		t.Errorf("output %q", out)
	}
	r.in.Close()
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if err := r.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
	after, err := openFDs()
	if err != nil {
		t.Fatal(err)
	}
	// The reader of the output is still open, and the number of the listener is taken.
	if len(after) > len(before)+2 {
		t.Errorf("descriptors before %v, after %v", before, after)
	}
}

// threads returns the numbers of our own threads, as far as they can be had.
func threads() []int {
	tids, _ := selfNumbers("task")
	return tids
}

// TestInstallUnderSignals signals our threads while they install descriptors, as the
// runtime does when it wants to preempt: none may get lost.
func TestInstallUnderSignals(t *testing.T) {
	h := func(c *Call) Action {
		f, err := c.DupFD(0)
		if err != nil {
			return Fail(Errno(err))
		}
		return InstallFD(f.N, true)
	}
	r := start(t, Config{Rules: onCall(h)}, "installs", "3000")
	for done := false; !done; {
		select {
		case <-r.f.exited:
			done = true
		default:
			for _, tid := range threads() {
				_ = unix.Tgkill(os.Getpid(), tid, unix.SIGURG)
			}
			time.Sleep(20 * time.Microsecond)
		}
	}
	if _, out := r.wait(t); out != "installs: 3000\n" {
		t.Errorf("output %q", out)
	}
}

func TestErrno(t *testing.T) {
	if got := Errno(errors.Join(errors.New("x"), unix.ECONNREFUSED)); got != unix.ECONNREFUSED {
		t.Errorf("joined: %v", got)
	}
	if got := Errno(errors.New("x")); got != unix.EIO {
		t.Errorf("unknown: %v", got)
	}
	if got := Errno(ErrGone); got != unix.EINTR {
		t.Errorf("gone: %v", got)
	}
}

// TestWriteLate: to have identified a thread says nothing once it may have ended: its number may
// be another's, here ours.
func TestWriteLate(t *testing.T) {
	in, done := make(chan bool), make(chan bool)
	r := start(t, Config{Rules: onCall(func(c *Call) Action {
		defer close(done)
		for range 2 { // the second time its pidfd is there
			if _, err := c.DupFD(0); err != nil || !c.Identify() {
				t.Errorf("the thread is not identified: %v", err)
			}
		}
		close(in)
		eventually(t, "end of the thread", func() bool { return !c.Valid() })
		c.TID = os.Getpid()
		b := &strangers
		if err := c.WriteMem(Addr(uintptr(unsafe.Pointer(b))), []byte{'b'}); err != ErrGone || b[0] != 'a' {
			t.Errorf("a write to who has the number now: %v, %q", err, b)
		}
		return Return(0)
	})}, "call", "1")
	<-in
	r.f.kill()
	<-done
	r.wait(t)
}

// strangers is memory at an address that stays.
var strangers = [1]byte{'a'}

// TestPutEnded: a thread that has ended by the time that its pidfd is kept is swept away with
// that, whoever sweeps.
func TestPutEnded(t *testing.T) {
	tc, err := newTaskCache()
	if err != nil {
		t.Fatal(err)
	}
	defer tc.close()
	cmd := exec.Command("/bin/true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait() // until then it keeps its number
	pid := cmd.Process.Pid
	eventually(t, "end of the process", func() bool { return taskState(pid) == 'Z' })
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				tc.sweep()
			}
		}
	})
	before, err := openFDs()
	if err != nil {
		t.Fatal(err)
	}
	for range 5000 {
		fd, err := unix.PidfdOpen(pid, unix.PIDFD_THREAD)
		if err != nil {
			t.Fatal(err)
		}
		task := NewTask(pid, pid)
		if err := tc.put(task, fd); err != nil {
			t.Fatal(err)
		}
		task.mu.Unlock()
	}
	close(stop)
	wg.Wait()
	tc.sweep()
	after, err := openFDs()
	// What other tests have left may be closed by now.
	left := slices.DeleteFunc(after, func(fd int) bool { return slices.Contains(before, fd) })
	if err != nil || len(left) > 0 || len(tc.tasks) > 0 {
		t.Errorf("descriptors left: %v, %v; %d threads", left, err, len(tc.tasks))
	}
}
