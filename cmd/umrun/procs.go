// SPDX-License-Identifier: Apache-2.0

// Processors that follow the load.

package main

import (
	"log/slog"
	"os"
	"runtime"
	"runtime/metrics"
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
}

// startProcs begins to look after the processors. What the user says in GOMAXPROCS
// stays.
func startProcs(log *slog.Logger) *procs {
	p := &procs{wake: make(chan struct{}, 1)}
	if os.Getenv("GOMAXPROCS") == "" && runtime.GOMAXPROCS(0) > 1 {
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
				runtime.SetDefaultGOMAXPROCS()
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
			if c.narrow {
				runtime.GOMAXPROCS(1)
			} else {
				runtime.SetDefaultGOMAXPROCS()
			}
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
