// SPDX-License-Identifier: Apache-2.0

// Tests of rushes.

package intercept

import (
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// rushed is what the handlers of a test have seen of a rush.
type rushed struct {
	calls, seconds, others atomic.Int64 // of all, of the second receiver, that are not apart
	beside, strayed        atomic.Int64 // of those: beside another one, not by the first receiver
	over                   atomic.Bool  // the program is to end
	hook                   func(c *Call)
	inOther                atomic.Int32
}

func (s *rushed) rules() Rules {
	answer := func(c *Call) Action { return Return(int64(c.Args[0]%1000) + 1) }
	apart := func(c *Call) Action {
		s.calls.Add(1)
		if c.by.second {
			s.seconds.Add(1)
		}
		if s.hook != nil {
			s.hook(c)
		}
		if s.over.Load() {
			return Return(0)
		}
		return answer(c)
	}
	other := func(c *Call) Action {
		s.others.Add(1)
		if s.inOther.Add(1) != 1 {
			s.beside.Add(1)
		}
		if c.by.second {
			s.strayed.Add(1)
		}
		runtime.Gosched()
		s.inOther.Add(-1)
		return answer(c)
	}
	return Rules{
		{NR: unix.SYS_GETPGID, Do: Notify, Handler: HandlerFunc(apart), Apart: true},
		{NR: unix.SYS_GETSID, Do: Notify, Handler: HandlerFunc(other)},
	}
}

// enough has the program go on until there were two receivers for long, where there can be.
func (s *rushed) enough(t *testing.T) {
	t.Helper()
	eventually(t, "rush", func() bool {
		return s.calls.Load() > 20000 && s.others.Load() > 50 && (s.seconds.Load() > 2000 || runtime.NumCPU() < 2)
	})
}

// TestRush: in a rush every call has its own answer, and those that are not apart are the first
// receiver's, one at a time.
func TestRush(t *testing.T) {
	for _, threads := range []int{1, 2, 20} {
		t.Run(itoa(threads), func(t *testing.T) {
			var s rushed
			var waiting atomic.Int64
			r := start(t, Config{Rules: s.rules(), Waiting: func(n int) { waiting.Store(int64(n)) }}, "rush", itoa(threads))
			if threads > 1 {
				s.enough(t)
			} else {
				eventually(t, "rush", func() bool { return s.others.Load() > 50 && waiting.Load() > 0 })
			}
			s.over.Store(true)
			if ws, out := r.wait(t); ws != 0 || out != strings.Repeat("over\n", threads) {
				t.Errorf("status %#x, output %q", ws, out)
			}
			if s.beside.Load() > 0 || s.strayed.Load() > 0 {
				t.Errorf("of %d calls that are not apart %d ran beside others, %d were the second receiver's", s.others.Load(), s.beside.Load(), s.strayed.Load())
			}
		})
	}
}

// TestRushCalms: when nobody calls any more the receiver waits as usual, and its thread is as
// it was.
func TestRushCalms(t *testing.T) {
	var s rushed
	var waiting atomic.Int64
	r := start(t, Config{Rules: s.rules(), Waiting: func(n int) { waiting.Store(int64(n)) }}, "rush", "4", "rest")
	s.enough(t)
	s.over.Store(true)
	eventually(t, "end of the rush", func() bool {
		r.n.l.watching.Lock()
		defer r.n.l.watching.Unlock()
		return r.n.l.watched != nil && waiting.Load() == 0 && r.n.rushes.second.tid.Load() == 0
	})
	closes(t, r)
}

// closes makes sure that Close takes no long time.
func closes(t *testing.T, r *run) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- r.Close() }()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Close waits")
	}
	t.Cleanup(func() { // nobody else reaps it now
		if r.f.signal(unix.SIGKILL) == nil {
			for err := unix.EINTR; err == unix.EINTR; {
				_, e := unix.Wait4(r.PID(), nil, 0, nil)
				err, _ = e.(unix.Errno)
			}
		}
	})
}

// TestRushClose: Close ends a rush, and calls fail from then on.
func TestRushClose(t *testing.T) {
	for _, rest := range []bool{false, true} {
		var s rushed
		args := []string{"rush", "3"}
		if rest { // the receivers wait in the kernel
			args = append(args, "rest")
		}
		r := start(t, Config{Rules: s.rules()}, args...)
		s.enough(t)
		if rest {
			s.over.Store(true)
		}
		closes(t, r)
		if !rest {
			r.out.await(t, "ENOSYS\nENOSYS\nENOSYS\n")
		}
	}
}

// TestRushStuck: a handler that waits in a rush, whichever receiver's, keeps nobody else waiting.
func TestRushStuck(t *testing.T) {
	for _, second := range []bool{false, true} {
		if second && runtime.NumCPU() < 2 {
			continue
		}
		var s rushed
		var stuck, late atomic.Int64
		s.hook = func(c *Call) {
			if s.calls.Load() < 10000 || c.by.second != second || !stuck.CompareAndSwap(0, 1) {
				return
			}
			c.MayWait()
			deadline := time.Now().Add(20 * time.Second)
			for end := s.calls.Load() + 5000; s.calls.Load() < end; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					late.Add(1)
					return
				}
			}
			stuck.Store(2)
		}
		r := start(t, Config{Rules: s.rules()}, "rush", "8")
		eventually(t, "handler that waits, and is no longer waited for", func() bool { return stuck.Load() == 2 || late.Load() > 0 })
		s.over.Store(true)
		if ws, out := r.wait(t); ws != 0 || out != strings.Repeat("over\n", 8) || late.Load() > 0 {
			t.Errorf("second %v: status %#x, output %q, late %d", second, ws, out, late.Load())
		}
	}
}

// TestRushAbandoned: a handler of the second receiver that never comes back holds up neither the
// end of the program nor Close.
func TestRushAbandoned(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Skip("one processor: there is no second receiver")
	}
	for _, ends := range []bool{false, true} {
		var s rushed
		var stuck atomic.Int32
		release := make(chan bool)
		s.hook = func(c *Call) {
			if s.calls.Load() > 10000 && c.by.second && stuck.CompareAndSwap(0, int32(c.TID)) {
				c.MayWait()
				<-release
			}
		}
		r := start(t, Config{Rules: s.rules()}, "rush", "4")
		eventually(t, "handler that does not come back", func() bool { return stuck.Load() != 0 })
		if ends {
			r.f.kill()
			if ws, _ := r.wait(t); ws.Signal() != unix.SIGKILL {
				t.Errorf("status %#x", ws)
			}
		}
		closes(t, r)
		close(release)
	}
}

// TestRushUninterrupted: what a handler waits for is not interrupted by those who have its
// receiver look around.
func TestRushUninterrupted(t *testing.T) {
	for _, second := range []bool{false, true} {
		if second && runtime.NumCPU() < 2 {
			continue
		}
		var s rushed
		var state atomic.Int64
		var got atomic.Value
		s.hook = func(c *Call) {
			if s.calls.Load() < 10000 || c.by.second != second || !state.CompareAndSwap(0, 1) {
				return
			}
			if !second {
				s.over.Store(true) // nobody else calls
			}
			var p [2]int
			err := unix.Pipe2(p[:], unix.O_CLOEXEC)
			if err == nil {
				time.AfterFunc(4*rushEnds, func() { unix.Close(p[1]) })
				_, err = unix.Read(p[0], make([]byte, 1))
				unix.Close(p[0])
			}
			if err != nil {
				got.Store(err)
			}
			state.Store(2)
		}
		r := start(t, Config{Rules: s.rules()}, "rush", "4")
		eventually(t, "handler that waits", func() bool { return state.Load() == 2 })
		s.over.Store(true)
		if ws, _ := r.wait(t); ws != 0 || got.Load() != nil {
			t.Errorf("second %v: status %#x, %v", second, ws, got.Load())
		}
	}
}

// TestRushStuckIdles: nobody has something to do while a handler of the second receiver waits, and
// nobody calls.
func TestRushStuckIdles(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Skip("one processor: there is no second receiver")
	}
	var s rushed
	var stuck atomic.Bool
	release := make(chan bool)
	s.hook = func(c *Call) {
		if s.calls.Load() > 10000 && c.by.second && stuck.CompareAndSwap(false, true) {
			c.MayWait()
			<-release
		}
	}
	r := start(t, Config{Rules: s.rules()}, "rush", "4", "rest")
	eventually(t, "handler that does not come back", stuck.Load)
	s.over.Store(true)
	time.Sleep(4 * rushEnds)
	used := func() time.Duration {
		var ru unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err != nil {
			t.Fatal(err)
		}
		return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
	}
	const while = 10 * rushEnds
	before := used()
	time.Sleep(while)
	if took := used() - before; took > while/5 {
		t.Errorf("%v of a processor in %v", took, while)
	}
	close(release)
	eventually(t, "end of the rush", func() bool { return r.n.rushes.second.tid.Load() == 0 && r.n.rushes.first.tid.Load() == 0 })
	closes(t, r)
}

// TestRushUmask: the umask of a handler of the second receiver is not the first one's.
func TestRushUmask(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Skip("one processor: there is no second receiver")
	}
	var s rushed
	var seen, shared atomic.Int64
	s.hook = func(c *Call) {
		if !c.by.second || seen.Load() > 100 {
			return
		}
		old := unix.Umask(0o127)
		b, err := os.ReadFile("/proc/self/status") // the process's first thread
		unix.Umask(old)
		if err != nil || strings.Contains(string(b), "Umask:\t0127") {
			shared.Add(1)
		}
		seen.Add(1)
	}
	r := start(t, Config{Rules: s.rules()}, "rush", "4")
	eventually(t, "second receiver", func() bool { return seen.Load() > 100 })
	s.over.Store(true)
	if ws, _ := r.wait(t); ws != 0 || shared.Load() > 0 {
		t.Errorf("status %#x; %d of %d times the umask was the process's", ws, shared.Load(), seen.Load())
	}
}

// TestSeat: two seats are on different processors where there are two, and a thread that has left
// its seat is as it was.
func TestSeat(t *testing.T) {
	OnThread(func() {
		state := func() (cpus unix.CPUSet, policy uintptr) {
			if err := unix.SchedGetaffinity(0, &cpus); err != nil {
				t.Error(err)
			}
			policy, _, _ = unix.RawSyscall(unix.SYS_SCHED_GETSCHEDULER, 0, 0, 0)
			return cpus, policy
		}
		cpus, policy := state()
		var taken []unix.CPUSet
		for i := range 2 {
			var s seat
			s.take(i)
			on, batch := state()
			if cpus.Count() == 2 && on.Count() != 1 || cpus.Count() != 2 && on != cpus || policy == 0 && batch != schedBatch {
				t.Errorf("seat %d of %d processors has %d, policy %d", i, cpus.Count(), on.Count(), batch)
			}
			taken = append(taken, on)
			s.leave()
			if on, now := state(); on != cpus || now != policy {
				t.Errorf("after seat %d: %d processors of %d, policy %d, before %d", i, on.Count(), cpus.Count(), now, policy)
			}
		}
		if cpus.Count() == 2 && taken[0] == taken[1] {
			t.Error("both seats are on one processor")
		}
	})
}

// TestTrial: what is faster by the judgements is taken, and asked again after some time.
func TestTrial(t *testing.T) {
	for _, tt := range []struct {
		one, two time.Duration // that 64 calls take
		want     bool          // two
	}{{300, 200, true}, {200, 300, false}} {
		var tr trial
		two, changes := true, 0
		for i := range 2000 {
			took := tt.one
			if two {
				took = tt.two
			}
			if i%100 == 99 {
				took *= 5 // something else has run
			}
			was := two
			if two = tr.two(two, 64, took*time.Microsecond); two != was {
				changes++
			}
			if i == 400 && two != tt.want {
				t.Errorf("one takes %d, two take %d, and there are two: %v", tt.one, tt.two, two)
			}
		}
		if changes < 4 {
			t.Errorf("tried only %d times", changes)
		}
	}
}
