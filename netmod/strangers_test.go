// SPDX-License-Identifier: Apache-2.0

// What is remembered of AF_UNIX sockets that are none of the module's.

package netmod

import (
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"umrun/intercept"
	"umrun/intercept/intercepttest"
)

// lookAt has ss look at descriptor fd of this process, as a trapped call on it does.
func lookAt(t *testing.T, ss *strangers, fd int) (passed, known bool) {
	t.Helper()
	args := [6]uint64{uint64(fd)}
	if _, ok := ss.pass(&intercept.Glance{TID: os.Getpid(), Args: &args}); ok {
		return true, true
	}
	p := intercepttest.New(t)
	p.Open(fd, fd)
	c := p.Call(intercept.HandlerFunc(func(c *intercept.Call) intercept.Action {
		d, err := c.DupFD(fd)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if known = ss.knows(c, d); !known {
			ss.meet(d.Key.Cookie)
		}
		return intercept.Return(0)
	}), unix.SYS_RECVMSG, fd, 0, 0)
	c.Result()
	p.Close(fd)
	return false, known
}

func socketOf(t *testing.T) int {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(p[0]); unix.Close(p[1]) })
	return p[0]
}

// meetOften looks at fd until it is marked, and returns how often that was.
func meetOften(t *testing.T, ss *strangers, fd int) int {
	t.Helper()
	for n := 1; n < 50; n++ {
		if passed, _ := lookAt(t, ss, fd); passed {
			return n
		}
	}
	t.Fatal("a socket that is called all the time is never marked")
	return 0
}

// TestStrangers: one that calls again and again passes, under its own number only, until
// it is said to be the module's.
func TestStrangers(t *testing.T) {
	ss := newStrangers()
	defer ss.close()
	fd, other := socketOf(t), socketOf(t)
	if passed, known := lookAt(t, ss, fd); passed || known {
		t.Error("known before it was met")
	}
	if n := meetOften(t, ss, fd); n != strangersSeen+1 {
		t.Errorf("passes after %d calls, want %d", n, strangersSeen+1)
	}
	if passed, known := lookAt(t, ss, other); passed || known {
		t.Error("another one is taken for it")
	}
	id, err := identify(fd)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Dup3(other, fd, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	if passed, _ := lookAt(t, ss, fd); passed {
		t.Error("the number was another's, and passed")
	}
	ss.forget(id.cookie)
	mine, err := identify(fd)
	if err != nil {
		t.Fatal(err)
	}
	meetOften(t, ss, fd)
	ss.forget(mine.cookie)
	if passed, known := lookAt(t, ss, fd); passed || known {
		t.Error("one of the module's passes")
	}
}

// TestStrangersBounds: the marks, and so the descriptors, are bounded; those used last
// keep theirs.
func TestStrangersBounds(t *testing.T) {
	ss := newStrangers()
	before := settledDescriptors(t)
	var fds []int
	for range 2 * strangersMarked {
		fd := socketOf(t)
		meetOften(t, ss, fd)
		fds = append(fds, fd)
	}
	if n := descriptors(t) - before - 4*strangersMarked; n != strangersMarked {
		t.Errorf("%d marks", n)
	}
	if passed, known := lookAt(t, ss, fds[0]); passed || !known {
		t.Error("the one that was marked first is still marked")
	}
	if passed, _ := lookAt(t, ss, fds[len(fds)-1]); !passed {
		t.Error("the one that was marked last is not marked any more")
	}
	ss.close()
	if n := descriptors(t) - before - 4*strangersMarked; n > 0 { // other tests' may be closed by now
		t.Errorf("%d descriptors are left", n)
	}
}

// descriptors counts those of this process.
// settledDescriptors is descriptors once those of the tests before are closed, by the collector too.
func settledDescriptors(t *testing.T) (n int) {
	t.Helper()
	for same := 0; same < 5; same++ {
		runtime.GC()
		time.Sleep(5 * time.Millisecond) // cleanups have a goroutine of their own
		if now := descriptors(t); now != n {
			n, same = now, 0
		}
	}
	return n
}

func descriptors(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}
