// SPDX-License-Identifier: Apache-2.0

// Tests of how many processors are used.

package main

import (
	"os"
	"runtime"
	"testing"
	"time"
)

// TestChoice plays loads and looks at what is chosen.
func TestChoice(t *testing.T) {
	c := choice{patience: procsPatience}
	play := func(ticks int, used, late float64) (changes int) {
		for range ticks {
			if c.step(used, late) {
				changes++
			}
		}
		return changes
	}
	if n := play(2*procsPatience, 0.7, 0.001); n != 1 || !c.narrow {
		t.Errorf("light load: %d changes, narrow %v; want one processor", n, c.narrow)
	}
	if n := play(1, 0.9, 0.2); n != 1 || c.narrow {
		t.Errorf("heavy load: %d changes in a tick, narrow %v; want all processors", n, c.narrow)
	}
	if n := play(1000, 0.9, 0.2); n != 0 {
		t.Errorf("heavy load: %d changes, want none", n)
	}
	if n := play(1000, 1.7, 0); n != 0 {
		t.Errorf("a load that needs two processors, served by four: %d changes, want none", n)
	}

	// A load that always looks light on all and heavy on one is tried ever less often.
	n, ticks := 0, 5000
	for range ticks {
		late := 0.0
		if c.narrow {
			late = 0.5
		}
		n += play(1, 0.8, late)
	}
	if most := 2*ticks/procsMost + 20; n > most || n < 2 {
		t.Errorf("a load that fits neither: %d changes in %d ticks, want 2 to %d", n, ticks, most)
	}
	play(2*procsMost, 0.5, 0)
	play(1, 0.9, 0.5)
	if c.patience != procsPatience {
		t.Errorf("after a long light load the patience is %d, want %d", c.patience, procsPatience)
	}
}

// TestLoad measures this process when it has more to run than processors, and when
// it has not.
func TestLoad(t *testing.T) {
	var l load
	l.measure()
	time.Sleep(50 * time.Millisecond)
	if used, late := l.measure(); used > 0.5 || late > 0.5 {
		t.Errorf("asleep: %.2f processors used, %.2f late", used, late)
	}
	done := make(chan struct{})
	for range 4 * runtime.GOMAXPROCS(0) {
		go func() {
			for {
				select {
				case <-done:
					return
				default:
					runtime.Gosched()
					for start := time.Now(); time.Since(start) < 200*time.Microsecond; {
					}
				}
			}
		}()
	}
	time.Sleep(200 * time.Millisecond)
	used, late := l.measure()
	close(done)
	if used < 0.2 || late < procsWiden {
		t.Errorf("overloaded: %.2f processors used, %.2f late", used, late)
	}
}

// TestWaiting: who waits in the kernel does not take the last processor, and one that has gone
// back is taken away after some time.
func TestWaiting(t *testing.T) {
	if os.Getenv("GOMAXPROCS") == "" {
		defer runtime.SetDefaultGOMAXPROCS()
	} else {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	}
	p := &procs{follows: true, all: 2}
	p.set(true)
	for _, threads := range []int{1, 2, 1, 2} {
		p.waiting(threads)
		if got := runtime.GOMAXPROCS(0); got < threads+1 {
			t.Errorf("%d wait, and there are %d processors", threads, got)
		}
	}
	p.waiting(0)
	if got := runtime.GOMAXPROCS(0); got != 3 {
		t.Errorf("none waits since now, and there are %d processors", got)
	}
	for deadline := time.Now().Add(20 * time.Second); runtime.GOMAXPROCS(0) != 1; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("none waits any more, and there are %d processors", runtime.GOMAXPROCS(0))
		}
	}
	(&procs{all: 2}).waiting(5)
	if got := runtime.GOMAXPROCS(0); got != 1 {
		t.Errorf("the user's number was changed to %d", got)
	}
}
