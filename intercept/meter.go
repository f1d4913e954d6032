// SPDX-License-Identifier: Apache-2.0

// The meter: what the trapped calls cost the supervisor.

package intercept

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Meter counts the calls that a [Supervisor] received, and the time that each kept
// its receiver busy: from the moment that it is there to be received until it is
// answered, or parked. It knows two times: what a clock on the wall shows, also while
// others have the processor, the program that was answered among them; and what the
// receiver's thread had of a processor. What reading the clocks adds to them is taken off.
// The zero Meter is ready; it is safe for concurrent use.
type Meter struct {
	once            sync.Once
	ownCPU, ownWall time.Duration // what a call that took no time would seem to take

	mu    sync.Mutex
	kinds map[meterKind]*meterCount
}

type meterKind struct {
	call  sysno
	about string
}

// meterStep and meterSteps bound the histogram from which the median is taken; what
// takes longer is in the last step.
const (
	meterStep  = 250 * time.Nanosecond
	meterSteps = 400
)

type meterCount struct {
	calls int
	total time.Duration
	cpu   time.Duration
	steps [meterSteps]int
}

// A reading is the state of both clocks when a call was there. The zero reading is
// that of no Meter.
type reading struct {
	wall time.Time
	cpu  time.Duration // of the calling thread
}

// read reads the clocks, and ties the goroutine to its thread until add or drop.
func (m *Meter) read() reading {
	if m == nil {
		return reading{}
	}
	m.once.Do(m.calibrate)
	runtime.LockOSThread()
	return reading{time.Now(), threadTime()}
}

// calibrate learns what a reading costs: the least of many, so that nothing is taken off
// that the call itself took.
func (m *Meter) calibrate() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	m.ownCPU, m.ownWall = time.Hour, time.Hour
	for range 200 {
		r := reading{time.Now(), threadTime()}
		cpu, wall := threadTime()-r.cpu, time.Since(r.wall)
		m.ownCPU, m.ownWall = min(m.ownCPU, cpu), min(m.ownWall, wall)
	}
}

// threadTime is the processor time of this thread.
func threadTime() time.Duration {
	var ts unix.Timespec
	// Cannot fail, and not for the runtime to know: it is measured itself.
	_, _, _ = unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_THREAD_CPUTIME_ID, uintptr(unsafe.Pointer(&ts)), 0)
	return time.Duration(ts.Nano())
}

// drop ends a reading that no call came of.
func (m *Meter) drop() {
	if m != nil {
		runtime.UnlockOSThread()
	}
}

// add counts a call that was there at r.
func (m *Meter) add(r reading, arch Arch, nr int, about string) {
	if m == nil {
		return
	}
	cpu, d := threadTime()-r.cpu, time.Since(r.wall)
	cpu, d = max(0, cpu-m.ownCPU), max(0, d-m.ownWall)
	runtime.UnlockOSThread()
	k := meterKind{sysno{arch, nr}, about}
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.kinds[k]
	if n == nil {
		if m.kinds == nil {
			m.kinds = make(map[meterKind]*meterCount)
		}
		n = new(meterCount)
		m.kinds[k] = n
	}
	n.calls++
	n.total += d
	n.cpu += cpu
	n.steps[min(int(d/meterStep), meterSteps-1)]++
}

// quantile returns the time that the share q of the calls did not exceed, to within
// a step.
func (n *meterCount) quantile(q float64) time.Duration {
	left := int(q * float64(n.calls))
	for i, calls := range n.steps {
		if left -= calls; left < 0 {
			return time.Duration(i+1) * meterStep
		}
	}
	return meterSteps * meterStep
}

// WriteTo writes a line for each kind of call, those that took longest in all first:
// its name, what it was about as the handlers say ([Call.About]) or "-", how many
// there were, microseconds in all, of processor time in all, and the median and the
// 99th percentile of the former.
func (m *Meter) WriteTo(w io.Writer) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	kinds := slices.SortedFunc(maps.Keys(m.kinds), func(a, b meterKind) int {
		return cmp.Compare(m.kinds[b].total, m.kinds[a].total)
	})
	var written int64
	us := func(d time.Duration) float64 { return d.Seconds() * 1e6 }
	for _, k := range kinds {
		n := m.kinds[k]
		about := cmp.Or(k.about, "-")
		b, err := fmt.Fprintf(w, "%s\t%s\t%d\t%.0f\t%.0f\t%.2f\t%.2f\n", callName(k.call.arch, k.call.nr), about, n.calls, us(n.total), us(n.cpu), us(n.quantile(0.5)), us(n.quantile(0.99)))
		written += int64(b)
		if err != nil {
			return written, err
		}
	}
	return written, nil
}
