// SPDX-License-Identifier: Apache-2.0

// Sockets that are closed leave nothing behind.

package netmod_test

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"umrun/netmod"
)

func init() { targets["close-after-shutdown"] = closeAfterShutdown }

// closeAfterShutdown ends connections in each order of shutdown and close.
func closeAfterShutdown(w *transcript) {
	end := func(fd int) {
		var b [1]byte
		n, err := unix.Read(fd, b[:])
		if n != 0 || err != nil {
			w.say("read: %d, %v", n, err)
		}
	}
	for range 3 {
		c, s := pair(w)
		w.must("shutdown", unix.Shutdown(c, unix.SHUT_WR))
		end(s)
		w.must("shutdown", unix.Shutdown(s, unix.SHUT_WR))
		end(c)
		unix.Close(c)
		unix.Close(s)

		c, s = pair(w)
		w.must("shutdown", unix.Shutdown(c, unix.SHUT_WR))
		end(s)
		unix.Close(s)
		end(c)
		unix.Close(c)

		c, s = pair(w)
		w.must("shutdown", unix.Shutdown(c, unix.SHUT_WR))
		unix.Close(c) // while the other side is open
		end(s)
		unix.Close(s)

		c, s = pair(w)
		w.must("shutdown", unix.Shutdown(c, unix.SHUT_RDWR))
		end(s)
		unix.Close(s)
		unix.Close(c)
	}
	w.say("all closed")
}

func TestCloseAfterShutdown(t *testing.T) {
	w := newWorld(t, nil)
	if out, _ := w.run(t, "close-after-shutdown"); out != "all closed\n" {
		t.Errorf("the target says %q", out)
	}
	for end := time.Now().Add(5 * time.Second); netmod.Known(w.mod) > 0; time.Sleep(5 * time.Millisecond) { // poll with a deadline
		if time.Now().After(end) {
			t.Fatalf("%d sockets are left of a program that has closed all", netmod.Known(w.mod))
		}
	}
}
