// SPDX-License-Identifier: Apache-2.0

// Tests of what a message is sent by.

package netmod

import (
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// TestKeepOnly: a thread that keeps one descriptor has no other file, and Go's runtime may do on it
// what it does on any: what it cannot wait by ends the process, and without a word.
func TestKeepOnly(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if err := r.SetReadDeadline(time.Now().Add(time.Hour)); err != nil { // the runtime waits by epoll
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	var left []int
	intercept.OnThread(func() {
		if err = keepOnly(fd); err != nil {
			return
		}
		for range 20 {
			runtime.GC()
		}
		for n := range 1024 {
			if _, e := unix.FcntlInt(uintptr(n), unix.F_GETFD, 0); e == nil {
				left = append(left, n)
			}
		}
		var waits []int
		waits, err = waitedBy("/proc/thread-self/fd")
		left = slices.DeleteFunc(left, func(n int) bool { return n == fd || slices.Contains(waits, n) })
	})
	if err != nil || len(left) > 0 {
		t.Errorf("descriptors %v are left, %v", left, err)
	}
	if _, err := unix.FcntlInt(r.Fd(), unix.F_GETFD, 0); err != nil {
		t.Errorf("the process's are closed: %v", err)
	}
}
