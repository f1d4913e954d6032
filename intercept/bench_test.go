// SPDX-License-Identifier: Apache-2.0

// The cost of one intercepted call, as the program sees it.

package intercept

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

func BenchmarkCall(b *testing.B) {
	for _, bb := range []struct {
		name   string
		target string
		rules  Rules
	}{
		{"not intercepted", "calls", nil},
		{"denied", "calls", Rules{{NR: unix.SYS_GETPGID, Do: Deny(unix.ENOSYS)}}},
		{"answered", "calls", onCall(func(*Call) Action { return Return(1) })},
		{"continued", "calls", onCall(func(*Call) Action { return Continue() })},
		{"memory", "calls", onCall(func(c *Call) Action {
			var p [16]byte // bound to fail: address 0 faults as slowly as others succeed
			return Fail(Errno(c.ReadMem(Addr(c.Args[0]), p[:])))
		})},
		{"descriptor", "calls", onCall(func(c *Call) Action {
			f, err := c.DupFD(0)
			if err != nil {
				return Fail(Errno(err))
			}
			f.Close()
			return Return(0)
		})},
		{"parked", "calls", onCall(func(c *Call) Action {
			a := c.Park(func(Reason) Action { return Restart() })
			c.Complete(Return(0))
			return a
		})},
		{"installed", "installs", onCall(func(c *Call) Action {
			f, err := c.DupFD(0)
			if err != nil {
				return Fail(Errno(err))
			}
			return InstallFD(f.N, true)
		})},
	} {
		b.Run(bb.name, func(b *testing.B) {
			r := start(b, Config{Rules: bb.rules}, bb.target, fmt.Sprint(b.N))
			if ws, out := r.wait(b); ws != 0 {
				b.Fatalf("status %#x, output %q", ws, out)
			}
		})
	}
}

// BenchmarkLook is what the watcher pays for each look at a parked thread.
func BenchmarkLook(b *testing.B) {
	r := start(b, Config{Rules: onWait(park(Restart()))}, "wait")
	r.out.await(b, "ready")
	eventually(b, "parked call", func() bool { return r.n.watch.parked.Load() == 1 })
	w := r.n.watch
	w.mu.Lock()
	e := &watched{stat: -1}
	for _, parked := range w.byTID {
		e.call = parked.call
	}
	w.mu.Unlock()
	defer e.close()
	for b.Loop() {
		w.examine(e)
	}
}
