// SPDX-License-Identifier: Apache-2.0

// Tests of calls that threads are made to make.

package intercept

import (
	"sync/atomic"
	"testing"
	"time"

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

// TestInjectOver: what an injection uses is given back once, also if the thread has been killed
// before it can make a call.
func TestInjectOver(t *testing.T) {
	if !canInject {
		t.Skip(ErrNotInjected)
	}
	for _, killed := range []bool{false, true} {
		var ran, over atomic.Int32
		h := func(c *Call) Action {
			if killed {
				if err := unix.Kill(c.Task.TGID(), unix.SIGKILL); err != nil {
					t.Error(err)
				}
				for c.Valid() {
					time.Sleep(time.Millisecond)
				}
			}
			return c.Inject(Injection{Over: func() { over.Add(1) }, Run: func(int, func(Injected) (int64, error)) (int64, error) {
				ran.Add(1)
				if over.Load() != 0 {
					t.Error("it is over before it has run")
				}
				return 1000, nil
			}})
		}
		start(t, Config{Rules: onCall(h)}, "call").wait(t)
		for end := time.Now().Add(10 * time.Second); over.Load() == 0 && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		if want := int32(1); over.Load() != want || killed == (ran.Load() == want) {
			t.Errorf("killed %t: over %d times, run %d times", killed, over.Load(), ran.Load())
		}
	}
}

// TestInjectBeside: a thread that does not come on holds up no others for long.
func TestInjectBeside(t *testing.T) {
	if !canInject {
		t.Skip(ErrNotInjected)
	}
	var first atomic.Bool
	var done atomic.Int32
	const others = 20
	h := func(c *Call) Action {
		return c.Inject(Injection{Run: func(_ int, do func(Injected) (int64, error)) (int64, error) {
			if first.CompareAndSwap(false, true) {
				for end := time.Now().Add(injectionLimit / 2); done.Load() < others; time.Sleep(time.Millisecond) {
					if time.Now().After(end) {
						t.Errorf("%d calls were made beside one that takes long, want %d", done.Load(), others)
						break
					}
				}
			}
			if _, err := do(Injected{NR: unix.SYS_GETTID}); err != nil {
				return 0, err
			}
			done.Add(1)
			return 1000 + int64(int32(c.Args[0])), nil
		}})
	}
	if _, out := start(t, Config{Rules: onCall(h)}, "threads").wait(t); out != "bad: 0\n" {
		t.Errorf("output %q", out)
	}
}
