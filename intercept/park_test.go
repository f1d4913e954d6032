// SPDX-License-Identifier: Apache-2.0

// Tests of parked calls: completion, signals, stops, tracers, death.

package intercept

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// native runs the target without a supervisor and returns its output.
func native(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, targetPath(t), args...).Output()
	if err != nil && ctx.Err() != nil {
		return "waits for ever"
	}
	return string(out)
}

// TestInterrupted compares a blocked accept of the kernel with a parked one.
func TestInterrupted(t *testing.T) {
	want := native(t, "eintr", "0")
	if !strings.Contains(want, "EINTR") {
		t.Fatalf("natively: %q", want)
	}
	if _, got := start(t, Config{Rules: onWait(park(Restart()))}, "eintr", "0").wait(t); got != want {
		t.Errorf("without SA_RESTART: %q, natively %q", got, want)
	}
	// A call that never restarts is interrupted in spite of SA_RESTART.
	if _, got := start(t, Config{Rules: onWait(park(Fail(unix.EINTR)))}, "eintr", "1").wait(t); got != want {
		t.Errorf("Fail(EINTR): %q, want %q", got, want)
	}
}

// TestRestarted has SA_RESTART: the call comes again, and is answered then.
func TestRestarted(t *testing.T) {
	var calls atomic.Int32
	h := func(c *Call) Action {
		if calls.Add(1) == 2 {
			return Return(77)
		}
		return c.Park(func(r Reason) Action {
			if r != Interrupted {
				t.Errorf("reason %v", r)
			}
			return Restart()
		})
	}
	_, out := start(t, Config{Rules: onWait(h)}, "eintr", "1").wait(t)
	if want := "wait: 77\nticks: 1\nlate: 0\n"; out != want {
		t.Errorf("output %q, want %q", out, want)
	}
}

// TestRepeated has no SA_RESTART, and the call comes again all the same; what completes it
// runs when nothing can cancel it any more.
func TestRepeated(t *testing.T) {
	var calls atomic.Int32
	h := func(c *Call) Action {
		if calls.Add(1) == 2 {
			time.AfterFunc(time.Millisecond, func() {
				if !c.CompleteFunc(func() Action {
					if c.Parked() || !c.Valid() {
						t.Error("still parked, or gone")
					}
					return Return(77)
				}) {
					t.Error("cancelled")
				}
			})
		}
		return c.Park(func(r Reason) Action {
			if c.CompleteFunc(func() Action { t.Error("completed"); return Return(0) }) {
				t.Error("completed while it is cancelled")
			}
			return Repeat()
		})
	}
	_, out := start(t, Config{Rules: onWait(h)}, "eintr", "0").wait(t)
	if want := "wait: 77\nticks: 1\nlate: 0\n"; out != want {
		t.Errorf("output %q, want %q", out, want)
	}
}

// TestInterruptible has the kernel end interrupted calls by itself, as without
// WAIT_KILLABLE_RECV: what was parked is taken back when the thread calls again, or
// when the watcher sees it.
func TestInterruptible(t *testing.T) {
	var calls atomic.Int32
	reasons := make(chan Reason, 10)
	h := func(c *Call) Action {
		if calls.Add(1) == 2 {
			return Return(77)
		}
		return c.Park(func(r Reason) Action { reasons <- r; return Restart() })
	}
	cfg := Config{Rules: onWait(h), interruptible: true}
	if _, out := start(t, cfg, "eintr", "1").wait(t); out != "wait: 77\nticks: 1\nlate: 0\n" {
		t.Errorf("with SA_RESTART: output %q", out)
	}
	if r := <-reasons; r != Gone {
		t.Errorf("reason %v", r)
	}
	calls.Store(0)
	if _, out := start(t, cfg, "eintr", "0").wait(t); out != "wait: EINTR\nticks: 1\nlate: 0\n" {
		t.Errorf("without SA_RESTART: output %q", out)
	}
	if r := <-reasons; r != Gone {
		t.Errorf("reason %v", r)
	}
}

// TestComplete completes from another goroutine, before and after the handler
// returns, and more than once.
func TestComplete(t *testing.T) {
	for _, tt := range []struct {
		name string
		run  func(c *Call, complete func())
	}{
		{"before", func(c *Call, complete func()) { complete() }},
		{"after", func(c *Call, complete func()) { time.AfterFunc(30*time.Millisecond, complete) }},
		{"meanwhile", func(c *Call, complete func()) { time.AfterFunc(0, complete) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			answered := make(chan bool, 2)
			var committed atomic.Int32
			h := func(c *Call) Action {
				tt.run(c, func() {
					a := Return(5)
					a.OnCommit = func(int) { committed.Add(1) }
					answered <- c.Complete(a)
					answered <- c.Complete(a)
				})
				return c.Park(func(Reason) Action { t.Error("cancelled"); return Restart() })
			}
			_, out := start(t, Config{Rules: onWait(h)}, "wait").wait(t)
			if out != "ready\nwait: 5\n" {
				t.Errorf("output %q", out)
			}
			if !<-answered || <-answered || committed.Load() != 1 {
				t.Errorf("not answered exactly once; %d commits", committed.Load())
			}
		})
	}
}

// TestCompleteFD installs a descriptor as a late answer.
func TestCompleteFD(t *testing.T) {
	h := func(c *Call) Action {
		time.AfterFunc(5*time.Millisecond, func() {
			f, err := c.DupFD(0)
			if err != nil {
				t.Error(err)
			}
			if !c.Complete(InstallFD(f.N, true)) {
				t.Error("cancelled")
			}
		})
		return c.Park(func(Reason) Action { return Restart() })
	}
	if _, out := start(t, Config{Rules: onCall(h)}, "installs", "20").wait(t); out != "installs: 20\n" {
		t.Errorf("output %q", out)
	}
}

// TestCompleteOrCancel has completions race with interruptions, in many threads: one
// of them wins, and no descriptor is lost or left.
func TestCompleteOrCancel(t *testing.T) {
	var completed, late, cancelled atomic.Int32
	var pending sync.WaitGroup
	h := func(c *Call) Action {
		pending.Add(1)
		// 0 to 3 ms: before and after the watcher's first look.
		time.AfterFunc(time.Duration(rand.IntN(3000))*time.Microsecond, func() {
			defer pending.Done()
			fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				t.Error(err)
				return
			}
			if c.Complete(InstallFD(fd, true)) {
				completed.Add(1)
			} else {
				late.Add(1)
				unix.Close(fd)
			}
		})
		return c.Park(func(Reason) Action { cancelled.Add(1); return Restart() })
	}
	_, out := start(t, Config{Rules: onCall(h)}, "storms").wait(t)
	pending.Wait()
	if out != "bad: 0\n" {
		t.Errorf("output %q", out)
	}
	t.Logf("%d completed, %d cancelled", completed.Load(), cancelled.Load())
	if completed.Load() != 8*200 || late.Load() != cancelled.Load() || cancelled.Load() == 0 {
		t.Errorf("%d completed, %d too late, %d cancelled", completed.Load(), late.Load(), cancelled.Load())
	}
}

// TestDelay: a handler runs soon while its thread is in a parked call. How
// late this machine is with whoever wakes is measured beside it.
func TestDelay(t *testing.T) {
	const promised = 20 * time.Millisecond
	for range 3 {
		awake := measureWaking(promised / 2)
		_, out := start(t, Config{Rules: onWait(park(Restart()))}, "delay").wait(t)
		_, late := awake()
		ms, err := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(out, "worst: ")))
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("worst %d ms, where others woke %v late", ms, late)
		if time.Duration(ms)*time.Millisecond <= promised+promised/2+2*late { // three wake one another
			return
		}
	}
	t.Error("the handler ran late each time")
}

// measureWaking sleeps for d again and again, as the watcher does. What it returns ends that, and
// says how often that was in a second and how much too long at most.
func measureWaking(d time.Duration) func() (rate float64, late time.Duration) {
	stop, done := make(chan struct{}), make(chan struct{})
	var rate float64
	var late time.Duration
	go func() { // ends with stop
		defer close(done)
		times, first := 0, time.Now()
		for open := true; open; times++ {
			began := time.Now()
			time.Sleep(d)
			late = max(late, time.Since(began)-d)
			select {
			case <-stop:
				open = false
			default:
			}
		}
		rate = float64(times) / time.Since(first).Seconds()
	}()
	return func() (float64, time.Duration) {
		close(stop)
		<-done
		return rate, late
	}
}

// TestStorm has a timer of 1 kHz during a parked call that SA_RESTART restarts. Each tick takes a
// look of the watcher's, which sleeps in between: of how many ticks it is seen follows from how often
// one can on this machine, and that is measured beside it.
func TestStorm(t *testing.T) {
	for range 3 {
		awake := measureWaking(300 * time.Microsecond)
		_, out := start(t, Config{Rules: onWait(park(Restart()))}, "storm", "1").wait(t)
		rate, _ := awake()
		var ticks int
		if _, err := fmt.Sscanf(out, "wait: EINTR\nticks: %d\n", &ticks); err != nil {
			t.Fatalf("output %q: %v", out, err)
		}
		t.Logf("%d of 1000 ticks, where others woke %.0f times", ticks, rate)
		if float64(ticks) > min(500, 0.3*rate) { // a look every 2 ms gives 440
			return
		}
	}
	t.Error("too few ticks each time")
}

// TestIgnored sends signals that must not disturb: ignored, blocked, ignored by
// default.
func TestIgnored(t *testing.T) {
	var calls, cancels atomic.Int32
	h := func(c *Call) Action {
		calls.Add(1)
		return c.Park(func(Reason) Action { cancels.Add(1); return Restart() })
	}
	r := start(t, Config{Rules: onWait(h)}, "ignored")
	r.out.await(t, "ready")
	eventually(t, "call", func() bool { return calls.Load() == 1 })
	for _, sig := range []unix.Signal{unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH, unix.SIGCHLD, unix.SIGURG} {
		if err := r.Signal(sig); err != nil {
			t.Fatal(err)
		}
	}
	for range 10 { // as many looks of the watcher
		time.Sleep(watchOld)
	}
	if calls.Load() != 1 || cancels.Load() != 0 {
		t.Errorf("%d calls, %d of them interrupted", calls.Load(), cancels.Load())
	}
	r.f.kill()
	if ws, _ := r.wait(t); !ws.Signaled() {
		t.Errorf("status %#x", ws)
	}
}

// TestGone kills a program with a parked call.
func TestGone(t *testing.T) {
	reasons := make(chan Reason, 10)
	parked := make(chan *Call, 10)
	h := func(c *Call) Action {
		defer func() { parked <- c }()
		return c.Park(func(r Reason) Action { reasons <- r; return Restart() })
	}
	r := start(t, Config{Rules: onWait(h)}, "wait")
	c := <-parked
	r.f.kill()
	r.wait(t)
	if got := <-reasons; got != Gone {
		t.Errorf("reason %v", got)
	}
	if c.Complete(Return(0)) {
		t.Error("completed after the end")
	}
	var b [1]byte
	if err := c.ReadMem(1, b[:]); err == nil {
		t.Error("memory was read after the end")
	}
	if c.Valid() {
		t.Error("valid after the end")
	}
}

// TestClose ends supervision under a parked call: it fails with ENOSYS.
func TestClose(t *testing.T) {
	reasons := make(chan Reason, 10)
	r := start(t, Config{Rules: onWait(func(c *Call) Action {
		return c.Park(func(r Reason) Action { reasons <- r; return Restart() })
	})}, "wait")
	r.out.await(t, "ready")
	eventually(t, "parked call", func() bool { return r.n.watch.parked.Load() == 1 })
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r.out.await(t, "wait: ENOSYS")
	if got := <-reasons; got != Gone {
		t.Errorf("reason %v", got)
	}
	_, _ = unix.Wait4(r.PID(), nil, 0, nil) // Close reaps nobody
}

// TestStop stops and continues a parked program: it goes on waiting.
func TestStop(t *testing.T) {
	var calls atomic.Int32
	done := make(chan *Call, 10)
	h := func(c *Call) Action {
		calls.Add(1)
		a := c.Park(func(Reason) Action { return Restart() })
		done <- c
		return a
	}
	r := start(t, Config{Rules: onWait(h)}, "wait")
	r.out.await(t, "ready")
	<-done
	if err := r.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "stop", func() bool { return taskState(r.PID()) == 'T' })
	if err := r.Signal(unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	c := <-done // it calls again
	if !c.Complete(Return(3)) {
		t.Error("cancelled")
	}
	if _, out := r.wait(t); out != "ready\nwait: 3\n" {
		t.Errorf("output %q", out)
	}
	// SIGSTOP and SIGCONT may be seen apart.
	if n := calls.Load(); n < 2 || n > 3 {
		t.Errorf("%d calls", n)
	}
}

func taskState(tid int) byte {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", tid))
	_, rest, _ := bytes.Cut(b, []byte(") "))
	if len(rest) == 0 {
		return 0
	}
	return rest[0]
}

// TestTracers attaches debuggers to a parked program.
func TestTracers(t *testing.T) {
	for _, tt := range []struct {
		tool string
		args func(pid string) []string
		want string
	}{
		{"strace", func(pid string) []string { return []string{"-p", pid, "-e", "trace=accept"} }, "accept"},
		{"gdb", func(pid string) []string {
			return []string{"-nx", "-batch", "-p", pid, "-ex", "info registers rip"}
		}, "rip"},
	} {
		t.Run(tt.tool, func(t *testing.T) {
			if _, err := exec.LookPath(tt.tool); err != nil {
				t.Skipf("%s is not installed", tt.tool)
			}
			last := make(chan *Call, 100)
			h := func(c *Call) Action {
				defer func() { last <- c }()
				return c.Park(func(Reason) Action { return Restart() })
			}
			r := start(t, Config{Rules: onWait(h)}, "wait")
			r.out.await(t, "ready")
			<-last
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			var got output
			cmd := exec.CommandContext(ctx, tt.tool, tt.args(strconv.Itoa(r.PID()))...)
			cmd.Stdout, cmd.Stderr = &got, &got
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			got.await(t, tt.want)
			if tt.tool == "strace" { // it would watch for ever
				_ = cmd.Process.Signal(unix.SIGINT)
			}
			_ = cmd.Wait()
			// It waits again, with the call made anew, and can be answered.
			var c *Call
			eventually(t, "new call", func() bool {
				select {
				case c = <-last:
				default:
				}
				return c != nil && c.Valid()
			})
			eventually(t, "answer", func() bool {
				select {
				case c = <-last:
				default:
				}
				return c.Complete(Return(9))
			})
			if _, out := r.wait(t); out != "ready\nwait: 9\n" {
				t.Errorf("output %q", out)
			}
		})
	}
}

// TestOtherThread has signals of the group that another thread takes while one is
// parked, also while that other thread waits in vfork: the parked one must see
// nothing of them, least of all the number 512.
func TestOtherThread(t *testing.T) {
	for _, how := range []string{"kill", "vfork"} {
		if _, out := start(t, Config{Rules: onWait(park(Restart()))}, "otherthread", how).wait(t); out != "ready\nticks: 20\n" {
			t.Errorf("%s: output %q", how, out)
		}
	}
}

// TestExecWithParkedSibling replaces a program one of whose threads is parked.
func TestExecWithParkedSibling(t *testing.T) {
	reasons := make(chan Reason, 10)
	rules := append(onCall(add1000), onWait(func(c *Call) Action {
		return c.Park(func(r Reason) Action { reasons <- r; return Restart() })
	})...)
	if _, out := start(t, Config{Rules: rules}, "sibling").wait(t); out != "ready\ncall: 1006\n" {
		t.Errorf("output %q", out)
	}
	if r := <-reasons; r != Gone {
		t.Errorf("reason %v", r)
	}
}

// TestFreezer freezes a parked program by its control group, which is also how the
// system suspends: it must not hold the freezer up.
func TestFreezer(t *testing.T) {
	root, file, frozen, thawed := "/sys/fs/cgroup/freezer", "freezer.state", "FROZEN", "THAWED"
	if _, err := os.Stat(root); err != nil {
		root, file, frozen, thawed = "/sys/fs/cgroup", "cgroup.freeze", "1", "0"
	}
	dir, err := os.MkdirTemp(root, "intercept")
	if err != nil {
		t.Skip("no control group with a freezer can be made: ", err)
	}
	set := func(name, value string) {
		t.Helper()
		if err := os.WriteFile(dir+"/"+name, []byte(value), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	last := make(chan *Call, 100)
	h := func(c *Call) Action {
		defer func() { last <- c }()
		return c.Park(func(Reason) Action { return Restart() })
	}
	r := start(t, Config{Rules: onWait(h)}, "wait")
	t.Cleanup(func() {
		_ = os.WriteFile(dir+"/"+file, []byte(thawed), 0o644)
		r.f.kill()
		eventually(t, "removal of the control group", func() bool { return os.Remove(dir) == nil })
	})
	r.out.await(t, "ready")
	<-last
	set("cgroup.procs", strconv.Itoa(r.PID()))
	set(file, frozen)
	eventually(t, "frozen program", func() bool {
		if file == "cgroup.freeze" {
			b, _ := os.ReadFile(dir + "/cgroup.events")
			return strings.Contains(string(b), "frozen 1")
		}
		b, _ := os.ReadFile(dir + "/" + file)
		return strings.TrimSpace(string(b)) == frozen
	})
	set(file, thawed)
	c := <-last // it calls again
	if !c.Complete(Return(4)) {
		t.Error("cancelled")
	}
	if _, out := r.wait(t); out != "ready\nwait: 4\n" {
		t.Errorf("output %q", out)
	}
}

// TestCancelPanics has a cancel function that panics.
func TestCancelPanics(t *testing.T) {
	r := start(t, Config{Rules: onWait(func(c *Call) Action {
		return c.Park(func(Reason) Action { panic("a bug") })
	})}, "eintr", "1")
	if _, out := r.wait(t); !strings.HasPrefix(out, "wait: EIO\n") {
		t.Errorf("output %q", out)
	}
	eventually(t, "message of the panic", func() bool { return strings.Contains(r.log.String(), "a bug") }) // after the answer
}
