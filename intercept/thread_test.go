// SPDX-License-Identifier: Apache-2.0

// Threads that end.

package intercept

import (
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOnThread: whatever thread is free, the first one is not changed, nor one that goes on.
func TestOnThread(t *testing.T) {
	const umask = 0o123
	before := unix.Umask(0)
	unix.Umask(before)
	for range 200 {
		var tid int
		OnThread(func() {
			tid = unix.Gettid()
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				t.Error(err)
				return
			}
			unix.Umask(umask)
			if err := unix.Chdir("/proc"); err != nil {
				t.Error(err)
			}
		})
		if tid == os.Getpid() {
			t.Fatal("it ran on the first thread")
		}
		for range 2 * runtime.GOMAXPROCS(0) { // on whatever threads there are
			now := make(chan int)
			go func() {
				v := unix.Umask(before)
				now <- v
			}()
			if v := <-now; v != before {
				t.Fatalf("umask %o of a thread that goes on, want %o", v, before)
			}
		}
	}
}
