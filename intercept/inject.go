// SPDX-License-Identifier: Apache-2.0

// Injection: a thread makes other calls in the place of the one that was intercepted.

package intercept

import (
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// An Injection is what a thread does instead of its call. What only the thread itself can
// do to itself is done so: to change its working directory, to receive a descriptor of
// O_PATH, to become another program. It takes ptrace(2) for as long as it lasts, and so works neither for a thread
// that has a tracer already, nor where ptrace is forbidden; the call then fails with
// EPERM.
//
// Run says which calls, one after the other: do makes one and returns its result, a
// negative errno if it failed. No rule sees them; numbers are those of the entry that the
// intercepted call came by. What Run returns is the result of the intercepted call.
// [ErrExec] of do says that the thread has become another program, which waits for its
// first instruction; Run returns it, or [ErrAgain], or any other error to end the thread. So
// does every error of do's that Run returns. It runs on a tracer's goroutine, beside others where
// one is held up, and should not block for long.
type Injection struct {
	Run func(tid int, do func(Injected) (int64, error)) (result int64, err error)

	// Over, which may be nil, gives back what Run uses: it is called once, after Run, or when Run
	// will not be called, as the thread was killed or has a tracer. It is not when umrun ends.
	Over func()
}

func (in *Injection) over() {
	if in.Over != nil {
		in.Over()
	}
}

// ErrExec says that a thread has become another program.
var ErrExec = errors.New("the thread runs another program now")

// An Injected is one call.
type Injected struct {
	NR   int
	Args [6]uint64
}

// ErrAgain of Run's has the thread make its own call again, which is intercepted as any other.
var ErrAgain = errors.New("the thread makes its call again")

// ErrNotInjected says that a machine cannot inject calls.
var ErrNotInjected = fmt.Errorf("calls cannot be injected on this machine: %w", unix.ENOSYS)

// AddFD gives the thread a duplicate of the supervisor's descriptor fd under its lowest
// free number, which is returned, while its call waits. The caller keeps fd.
func (c *Call) AddFD(fd int, cloexec bool) (int, error) { return c.b.AddFD(c, fd, cloexec) }

// Inject makes the thread do in. The handler returns the Action that Inject returns.
func (c *Call) Inject(in Injection) Action { return c.b.Inject(c, in) }

// Injectable reports whether the thread can be made to make calls at no risk: it has no tracer,
// and no filters of its own, which might end it for a call that it does not make otherwise.
func (c *Call) Injectable() bool {
	tracer, n := masters(strconv.Itoa(c.TID))
	return canInject && tracer == 0 && n == filtersAtStart()
}

// filtersAtStart is how many filters a program begins with: one more than we have.
var filtersAtStart = sync.OnceValue(func() int {
	_, n := masters("self")
	return n + 1
})

// masters are the tracer of a task and the number of its filters, -1 if it cannot be told.
func masters(task string) (tracer, filters int) {
	var p procFile
	b, err := ReadProc("/proc/"+task+"/status", p[:])
	if err == nil {
		tracer, err = parseStatus(b, "TracerPid")
	}
	if err == nil {
		filters, err = parseStatus(b, "Seccomp_filters") // Linux 5.10
	}
	if err != nil {
		return -1, -1
	}
	return tracer, filters
}

// AddFD implements [Backend].
func (n *notifier) AddFD(c *Call, fd int, cloexec bool) (int, error) {
	a := addFD{id: c.id, srcFD: uint32(fd)}
	if cloexec {
		a.newFDFlags = unix.O_CLOEXEC
	}
	return n.l.addFD(a)
}

// A tracer injects calls, one thread at a time. Its goroutine, which starts with the first
// job, is locked to the thread that is the tracer of ptrace(2). A thread that does not answer, as its
// memory is what somebody else fills in (userfaultfd(2), a file system), or it runs in a circle in what was
// its system call instruction, holds up that thread, and no other job for longer than tracerPatience: then
// there is one more, up to mostTracers.
type tracer struct {
	once sync.Once
	jobs chan func() // unbuffered: who waits for the tracer is parked
	quit chan struct{}
	end  sync.Once
	wg   sync.WaitGroup

	expecting atomic.Int32 // entries of expected
	more      atomic.Int32 // tracers but the first

	mu       sync.Mutex
	expected map[int]Injected // calls that threads are about to make. Guarded by mu
}

const (
	tracerPatience = 200 * time.Millisecond
	tracerIdle     = 5 * time.Second // after which one that was started for another's sake ends
	mostTracers    = 256             // each is a thread of ours
)

func newTracer() *tracer {
	return &tracer{jobs: make(chan func()), quit: make(chan struct{}), expected: make(map[int]Injected)}
}

// run queues a job. The goroutine that waits for the tracer ends with the tracer.
func (t *tracer) run(job func()) {
	t.once.Do(func() { t.wg.Go(func() { t.serve(nil) }) })
	t.wg.Go(func() {
		again := time.NewTicker(tracerPatience)
		defer again.Stop()
		for {
			select {
			case t.jobs <- job:
				return
			case <-t.quit:
				return
			case <-again.C:
				t.another()
			}
		}
	})
}

// serve does jobs on a thread of its own; idle, if it is not nil, says when there are to be none any more.
func (t *tracer) serve(idle *time.Timer) {
	runtime.LockOSThread() // never unlocked: ptrace requests come from one thread
	var over <-chan time.Time
	for {
		if idle != nil {
			idle.Reset(tracerIdle)
			over = idle.C
		}
		select {
		case f := <-t.jobs:
			f()
		case <-over:
			return
		case <-t.quit:
			return
		}
	}
}

// another starts one more tracer.
func (t *tracer) another() {
	if t.more.Add(1) >= mostTracers {
		t.more.Add(-1)
		return
	}
	t.wg.Go(func() {
		defer t.more.Add(-1)
		idle := time.NewTimer(tracerIdle)
		defer idle.Stop()
		t.serve(idle)
	})
}

func (t *tracer) stop() {
	t.end.Do(func() { close(t.quit) })
	t.wg.Wait()
}

// expect notes what a thread will call next; a number below 0: nothing.
func (t *tracer) expect(tid int, call Injected) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if call.NR < 0 {
		delete(t.expected, tid)
	} else {
		t.expected[tid] = call
	}
	t.expecting.Store(int32(len(t.expected)))
}

// injected reports whether a call is one of ours.
func (t *tracer) injected(tid, nr int, args *[6]uint64) bool {
	if t.expecting.Load() == 0 {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	call, ok := t.expected[tid]
	return ok && call.NR == nr && call.Args == *args
}

// tracing holds the threads that are being traced. Their stops are the tracer's to see and
// not the family's, which looks with the lock held. It is package-level as
// the children of the process are.
var tracing = struct {
	sync.Mutex
	tids   map[int]int  // how often
	missed map[int]bool // somebody would have waited for them
}{tids: make(map[int]int), missed: make(map[int]bool)}

func traceBegin(tids ...int) {
	tracing.Lock()
	defer tracing.Unlock()
	for _, tid := range tids {
		tracing.tids[tid]++
	}
}

// traceEnd reports whether somebody has missed one of them and is to look again.
func traceEnd(tids ...int) (missed bool) {
	tracing.Lock()
	defer tracing.Unlock()
	for _, tid := range tids {
		if tracing.tids[tid]--; tracing.tids[tid] == 0 {
			delete(tracing.tids, tid)
			missed = missed || tracing.missed[tid]
			delete(tracing.missed, tid)
		}
	}
	return missed
}

// wait4 is wait4(2) with WNOHANG of a child that is not being traced. busy says that it is.
func wait4(pid int, ws *unix.WaitStatus, options int) (got int, busy bool, err error) {
	tracing.Lock()
	defer tracing.Unlock()
	if tracing.tids[pid] > 0 {
		tracing.missed[pid] = true
		return 0, true, nil
	}
	got, err = unix.Wait4(pid, ws, options|unix.WNOHANG, nil)
	return got, false, err
}

// Inject implements [Backend].
func (n *notifier) Inject(c *Call, in Injection) Action {
	if !canInject {
		in.over()
		return Fail(unix.ENOSYS)
	}
	// The call is not parked: the watcher takes nothing back that the tracer will answer. A
	// signal waits until the injection is over.
	if !c.take() {
		in.over()
		return Action{kind: actPark}
	}
	n.trace.run(func() {
		defer in.over()
		tgid := c.Task.TGID()
		tids := []int{c.TID}
		if tgid != c.TID {
			tids = append(tids, tgid)
		}
		traceBegin(tids...)
		defer func() {
			n.trace.expect(c.TID, Injected{NR: -1})
			if traceEnd(tids...) {
				n.nudge()
			}
		}()
		j := injector{n: n, c: c, tid: c.TID, tgid: tgid}
		if err := j.seize(); err != nil {
			j.letGo()
			if errors.Is(err, unix.ESRCH) {
				return // it was killed
			}
			n.log.Warn("a thread cannot be traced: its call fails", "tid", c.TID, "call", c.NR, "err", err)
			_, _ = n.Reply(c, Reply{Kind: ReplyErrno, Errno: unix.EPERM})
			return
		}
		// A thread that is never seen again has been tampered with.
		limit := time.AfterFunc(injectionLimit, func() { _ = unix.Tgkill(tgid, c.TID, unix.SIGKILL) })
		defer limit.Stop()
		if err := j.do(&in); err != nil {
			j.letGo()
			if !errors.Is(err, unix.ESRCH) {
				n.log.Error("inject a call", "tid", c.TID, "call", c.NR, "err", err)
			}
		}
	})
	return Action{kind: actPark}
}

// injectionLimit is how long an injection may take: an execve reads files.
const injectionLimit = 20 * time.Second
