// SPDX-License-Identifier: Apache-2.0

// Processors that follow the load.

package main

import (
	"log/slog"
	"os"
	"runtime"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A round trip of the program goes through half a dozen goroutines, one after the
// other. If Go may use a second processor, each hand-over wakes a thread there that
// finds nothing to do, for some microseconds on both sides; that is a third of the
// time that umrun takes for a short connection. A download wants every processor
// that there is. So umrun begins with all, and keeps one while that is enough.
const (
	procsTick = 20 * time.Millisecond

	// Goroutines that have waited for a processor for longer than procsWait, of all
	// that ran: round trips have less than one in two hundred on a single one,
	// bulk transfers one in thirty and more.
	procsWait  = 64 * time.Microsecond
	procsWiden = 0.02 // from here on one is too few

	// procsNarrow is the share of one processor's time that may be used by what is
	// to be put on a single one.
	procsNarrow = 0.9

	// procsPatience is how many ticks of light load come before the step to one. One
	// that is taken back within procsSoon ticks was wrong: the next takes twice as
	// many, up to procsMost.
	procsPatience = 5
	procsSoon     = 25
	procsMost     = 32 * procsPatience

	// After procsIdle ticks of less than procsBusy processors they stop, until the
	// program moves something.
	procsIdle = 50
	procsBusy = 0.02
)

// procs decides how many processors (GOMAXPROCS) umrun uses.
type procs struct {
	asleep atomic.Bool
	wake   chan struct{}

	// deaf says that data moves of which active is not told, as on a kernel stack,
	// where only new sockets and connections are seen: then they sleep with all.
	deaf atomic.Bool

	mu      sync.Mutex
	all     int         // as many as there were at first. Guarded by mu
	follows bool        // else it is the user who says how many. Guarded by mu
	narrow  bool        // one is enough, but for threads. Guarded by mu
	threads int         // that wait in the kernel and keep a processor each. Guarded by mu
	later   *time.Timer // lowers threads. Guarded by mu
}

// startProcs begins to look after the processors. What the user says in GOMAXPROCS
// stays.
func startProcs(log *slog.Logger) *procs {
	p := &procs{wake: make(chan struct{}, 1)}
	if os.Getenv("GOMAXPROCS") == "" && runtime.GOMAXPROCS(0) > 1 {
		p.follows, p.all = true, runtime.GOMAXPROCS(0)
		p.asleep.Store(true)
		go p.follow(log) // as long as the process lives
	}
	return p
}

// active says that something moves; it costs nothing.
func (p *procs) active() {
	if p.asleep.Load() && p.asleep.CompareAndSwap(true, false) {
		p.wake <- struct{}{} // has room: it is sent once for each sleep
	}
}

// set says whether one processor is enough.
func (p *procs) set(narrow bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.narrow = narrow
	p.setLocked()
}

// procsLinger is how long threads that wait no more are counted: most come back soon, and each
// change stops all goroutines for a moment.
const procsLinger = time.Second

// waiting says how many threads wait in the kernel.
func (p *procs) waiting(threads int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.later != nil {
		p.later.Stop()
		p.later = nil
	}
	if threads >= p.threads {
		p.threads = threads
		p.setLocked()
		return
	}
	var t *time.Timer
	t = time.AfterFunc(procsLinger, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.later == t {
			p.later, p.threads = nil, threads
			p.setLocked()
		}
	})
	p.later = t
}

// setLocked has as many processors as are wanted: the threads that wait have one each, and there
// is one for all others.
func (p *procs) setLocked() {
	if !p.follows {
		return
	}
	if !p.narrow && p.threads < p.all {
		runtime.SetDefaultGOMAXPROCS() // as the machine changes, see package runtime
		return
	}
	want := p.threads + 1
	if !p.narrow {
		want = max(want, p.all)
	}
	if runtime.GOMAXPROCS(0) != want {
		runtime.GOMAXPROCS(want)
	}
}

// follow is the loop.
func (p *procs) follow(log *slog.Logger) {
	var l load
	c := choice{patience: procsPatience}
	t := time.NewTicker(procsTick)
	t.Stop()
	for idle := procsIdle; ; {
		if idle >= procsIdle {
			idle = 0
			t.Stop()
			if c.narrow && p.deaf.Load() {
				c.narrow, c.light = false, 0
				p.set(c.narrow)
			}
			p.asleep.Store(true)
			<-p.wake
			t.Reset(procsTick)
			l.measure()
		}
		<-t.C
		used, late := l.measure()
		idle++
		if used >= procsBusy {
			idle = 0
		}
		if c.step(used, late) {
			p.set(c.narrow)
			log.Debug("processors follow the load", "used", runtime.GOMAXPROCS(0), "load", used, "late", late)
		}
	}
}

// A choice is between one processor and all.
type choice struct {
	narrow   bool // one
	light    int  // ticks that one would have been, or was, enough for
	patience int  // of these until the step to one
}

// step looks at the last tick, see [load.measure], and tells whether narrow changed.
func (c *choice) step(used, late float64) bool {
	switch {
	case c.narrow && late >= procsWiden:
		if c.light < procsSoon {
			c.patience = min(2*c.patience, procsMost)
		} else {
			c.patience = procsPatience
		}
		c.narrow, c.light = false, 0
		return true
	case c.narrow || late < procsWiden && used <= procsNarrow:
		c.light++
	default:
		c.light = 0
	}
	if c.narrow || c.light < c.patience {
		return false
	}
	c.narrow, c.light = true, 0
	return true
}

// load measures the process since the last time it was asked.
type load struct {
	at     time.Time
	cpu    time.Duration
	sample [1]metrics.Sample
	counts []uint64
}

// measure returns the processor time used, in processors, and the share of
// goroutines that had to wait for long until they ran (see package
// runtime/metrics). Neither stops anything.
func (l *load) measure() (used, late float64) {
	now := time.Now()
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts) // cannot fail
	cpu := time.Duration(ts.Nano())
	used = float64(cpu-l.cpu) / float64(max(now.Sub(l.at), 1))
	l.at, l.cpu = now, cpu

	l.sample[0].Name = "/sched/latencies:seconds"
	metrics.Read(l.sample[:])
	if l.sample[0].Value.Kind() != metrics.KindFloat64Histogram {
		return used, 0
	}
	h := l.sample[0].Value.Float64Histogram()
	if len(l.counts) != len(h.Counts) {
		l.counts = make([]uint64, len(h.Counts))
	}
	all, long := uint64(0), uint64(0)
	for i, n := range h.Counts {
		n, l.counts[i] = n-l.counts[i], n
		all += n
		if h.Buckets[i] >= procsWait.Seconds() {
			long += n
		}
	}
	if long < 2 {
		long = 0 // chance
	}
	return used, float64(long) / float64(max(all, 1))
}
