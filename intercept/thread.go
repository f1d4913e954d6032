// SPDX-License-Identifier: Apache-2.0

// Threads for what changes a thread.

package intercept

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// OnThread runs f on a thread that ends with it, and waits for that. What else would be the whole
// process's f may change for itself (unshare(2)), and need not undo. It is never the process's
// first thread, which does not end, and of which /proc/self tells.
func OnThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good, on any thread but the first
		if unix.Gettid() == unix.Getpid() {
			OnThread(f) // on another one, as this goroutine has this one
			runtime.UnlockOSThread()
			return
		}
		f()
	}()
	<-done
}
