// SPDX-License-Identifier: Apache-2.0

// Tests of calls that threads are made to make.

package intercept

import (
	"errors"
	"maps"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// TestInject has threads make other calls than their own, where a received call can be
// interrupted and where it cannot.
func TestInject(t *testing.T) {
	if !canInject {
		t.Skip(ErrNotInjected)
	}
	for _, old := range []bool{false, true} {
		for _, tt := range []struct{ name, want string }{
			{"call", "call: 1000\n"},
			{"threads", "bad: 0\n"},
			{"fork", "bad: 0\n"},
		} {
			name := tt.name
			if old {
				name += ", interruptible"
			}
			t.Run(name, func(t *testing.T) {
				var wrong atomic.Int32
				h := func(c *Call) Action {
					return c.Inject(Injection{Run: func(tid int, do func(Injected) (int64, error)) (int64, error) {
						for _, call := range []Injected{{NR: unix.SYS_GETTID}, {NR: unix.SYS_GETPGID, Args: c.Args}} {
							r, err := do(call)
							if err != nil {
								return 0, err
							}
							if call.NR == unix.SYS_GETTID && r != int64(tid) {
								wrong.Add(1)
							}
						}
						return 1000 + int64(int32(c.Args[0])), nil
					}})
				}
				_, out := start(t, Config{Rules: onCall(h), interruptible: old}, tt.name).wait(t)
				if out != tt.want || wrong.Load() != 0 {
					t.Errorf("output %q, want %q; %d wrong results", out, tt.want, wrong.Load())
				}
			})
		}
	}
}

// TestInjectAgain has a thread make its own call again.
func TestInjectAgain(t *testing.T) {
	if !canInject {
		t.Skip(ErrNotInjected)
	}
	var calls atomic.Int32
	h := func(c *Call) Action {
		if !c.Injectable() {
			t.Error("a thread without a tracer, and without filters of its own, is not to make a call")
		}
		if calls.Add(1) > 3 {
			return Return(1000 + int64(int32(c.Args[0])))
		}
		return c.Inject(Injection{Run: func(_ int, do func(Injected) (int64, error)) (int64, error) {
			if _, err := do(Injected{NR: unix.SYS_GETTID}); err != nil {
				return 0, err
			}
			return 0, ErrAgain
		}})
	}
	if _, out := start(t, Config{Rules: onCall(h)}, "call").wait(t); out != "call: 1000\n" || calls.Load() != 4 {
		t.Errorf("output %q after %d calls", out, calls.Load())
	}
}

// TestInjectExec has threads execute programs by themselves: what came of it is told before the
// program runs, which ends if that is said.
func TestInjectExec(t *testing.T) {
	if !canInject {
		t.Skip(ErrNotInjected)
	}
	const script = "(exec /gone 2>/dev/null); env true && echo ran; env -u A true; echo $?; kill -STOP $$; for i in 1 2 3 4 5 6 7 8; do env true & done; wait; echo all"
	for _, old := range []bool{false, true} {
		var mu sync.Mutex
		ends := make(map[error]int)
		changes := make(chan unix.WaitStatus, 10)
		h := func(c *Call) Action {
			return c.Inject(Injection{Exec: func(tid int, err error) error {
				mu.Lock()
				defer mu.Unlock()
				ends[err]++
				if ends[ErrExec] == 5 { // the true of the second env
					return errors.New("not this one")
				}
				return nil
			}})
		}
		r := start(t, Config{
			Path: "/bin/sh", Argv: []string{"sh", "-c", script}, Env: []string{"PATH=/bin"},
			Rules:         Rules{{NR: unix.SYS_EXECVE, Do: Notify, Handler: HandlerFunc(h)}},
			OnChange:      func(ws unix.WaitStatus) { changes <- ws },
			interruptible: old,
		})
		if ws := <-changes; !ws.Stopped() {
			t.Errorf("status %#x", ws)
		}
		if err := r.Signal(unix.SIGCONT); err != nil {
			t.Fatal(err)
		}
		_, out := r.wait(t)
		if want := "ran\nKilled\n137\nall\n"; out != want {
			t.Errorf("interruptible %t: output %q, want %q", old, out, want)
		}
		if want := map[error]int{nil: 1, ErrExec: 21}; !maps.Equal(ends, want) {
			t.Errorf("interruptible %t: told of %v, want %v", old, ends, want)
		}
	}
}
