// SPDX-License-Identifier: Apache-2.0

// Tests of the bound on packets inside the device.

package wg

import (
	"testing"
	"time"
)

func newMeter() *meter {
	return &meter{landed: make(chan struct{}, 1), closed: make(chan struct{})}
}

// full returns a meter that has no room.
func full() *meter {
	m := newMeter()
	m.flying.Store(maxFlying)
	return m
}

// waitFor runs m.wait and returns its answer, or fails.
func waitFor(t *testing.T, answer <-chan int) int {
	t.Helper()
	select {
	case n := <-answer:
		return n
	case <-time.After(20 * time.Second):
		t.Fatal("waits for ever")
		return 0
	}
}

func start(m *meter) <-chan int {
	answer := make(chan int, 1)
	go func() { answer <- m.wait() }() // ends by what the test does
	return answer
}

func TestMeter(t *testing.T) {
	m := newMeter()
	if got := m.wait(); got != batch {
		t.Errorf("empty: %d, want %d", got, batch)
	}

	// Nothing is ever sent: the device drops, and must not be given much.
	m = full()
	if got := waitFor(t, start(m)); got != idleBatch || m.flying.Load() != 0 {
		t.Errorf("idle: %d with %d flying, want %d with none", got, m.flying.Load(), idleBatch)
	}
	if got := m.wait(); got != idleBatch {
		t.Errorf("still idle: %d, want %d", got, idleBatch)
	}
	m.sent(100) // they were forgiven
	if got := m.wait(); got != batch || m.flying.Load() != 0 {
		t.Errorf("no longer idle: %d with %d flying, want %d with none", got, m.flying.Load(), batch)
	}

	// A packet that is sent makes room at once.
	m = full()
	answer := start(m)
	for end := time.Now().Add(20 * time.Second); !m.waiting.Load() && len(answer) == 0; time.Sleep(100 * time.Microsecond) {
		if time.Now().After(end) {
			t.Fatal("does not wait though full")
		}
	}
	m.sent(1)
	if got := waitFor(t, answer); got != batch && got != idleBatch { // slow machines run into idle first
		t.Errorf("after a packet: %d", got)
	}

	m = full()
	answer = start(m)
	close(m.closed)
	waitFor(t, answer)
}

// TestMeterShared: what one peer's lack of a session eats does not choke another.
func TestMeterShared(t *testing.T) {
	m := full()
	m.shared = true
	m.flying.Store(4 * maxFlying)
	answer := start(m)
	for end := time.Now().Add(20 * time.Second); ; {
		m.sent(1) // the other peer goes on
		select {
		case <-answer:
			return
		case <-time.After(time.Millisecond):
		}
		if time.Now().After(end) {
			t.Fatalf("%d are still flying", m.flying.Load())
		}
	}
}
