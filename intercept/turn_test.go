// SPDX-License-Identifier: Apache-2.0

// Tests of handlers that wait.

package intercept

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMayWait has handlers wait until others have come and gone.
func TestMayWait(t *testing.T) {
	var handled, late atomic.Int32
	release := make(chan struct{})
	h := func(c *Call) Action {
		n := handled.Add(1)
		switch n {
		case 1, 3, 5:
			if c.MayWait(); n == 3 {
				c.TakesLong()
			}
			select {
			case <-release:
			case <-time.After(20 * time.Second):
				late.Add(1)
			}
		case 50:
			close(release)
		}
		return Return(1000 + int64(int32(c.Args[0])))
	}
	_, out := start(t, Config{Rules: onCall(h)}, "threads").wait(t)
	if out != "bad: 0\n" || late.Load() > 0 || handled.Load() < 50 {
		t.Errorf("output %q, %d calls; %d waited for nothing", out, handled.Load(), late.Load())
	}
}

// TestSilence: that a file system does not answer is said of a call that has waited for long, once,
// with its name and thread, and of none that was only slow.
func TestSilence(t *testing.T) {
	for _, tt := range []struct {
		name        string
		silentAfter int
		warnings    int
	}{
		{"slow", 0, 0},
		{"silent", 3, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var tid int
			r := start(t, Config{silentAfter: tt.silentAfter, Rules: onCall(func(c *Call) Action {
				tid = c.TID
				c.MayWait()
				time.Sleep(10 * stuckAfter) // as a server would take
				return Return(1000)
			})}, "call", "1")
			r.wait(t)
			log := r.log.String()
			if n := strings.Count(log, "does not answer"); n != tt.warnings || n > 0 && !strings.Contains(log, fmt.Sprintf("call=getpgid tid=%d for=400ms\n", tid)) {
				t.Errorf("said %d times, not %d, of %d:\n%s", n, tt.warnings, tid, log)
			}
		})
	}
}

// TestParkedLate: what a receiver without a turn parks when nobody watches any more is taken
// back.
func TestParkedLate(t *testing.T) {
	in, release, cancelled := make(chan struct{}), make(chan struct{}), make(chan Reason, 1)
	r := start(t, Config{Rules: onCall(func(c *Call) Action {
		c.MayWait()
		close(in)
		<-release
		return c.Park(func(r Reason) Action {
			cancelled <- r
			return Fail(unix.EINTR)
		})
	})}, "call", "1")
	<-in
	r.n.stop()
	<-r.n.ended
	eventually(t, "end of the watch", func() bool {
		r.n.watch.mu.Lock()
		defer r.n.watch.mu.Unlock()
		return r.n.watch.over
	})
	close(release)
	select {
	case why := <-cancelled:
		if why != Gone {
			t.Errorf("taken back for %v", why)
		}
	case <-time.After(10 * time.Second):
		t.Error("it stays parked")
	}
	r.f.kill() // nobody answers it any more
	if ws, err := r.Wait(); err != nil || ws.Signal() != unix.SIGKILL {
		t.Errorf("status %#x, %v", ws, err)
	}
}
