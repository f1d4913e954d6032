// SPDX-License-Identifier: Apache-2.0

// The bound on what the device holds between the stack and the UDP socket.

package wg

import (
	"sync/atomic"
	"time"
)

// A meter bounds the packets between the device's TUN reader and its UDP socket.
// The device itself bounds batches, at 1024, which is right for one packet each
// but 8 GiB of buffers for ours: a program that floods UDP would get them all.
//
// It counts what is read and what is sent. What the device drops in between, it
// drops for want of a session, and then sends nothing: a time without any packet
// sent forgives the count, and until one is sent batches are small, because the
// device keeps 128 of them for the session to come.
type meter struct {
	shared  bool          // there are several peers, of which one can drop while others send
	flying  atomic.Int64  // read and not yet sent
	idle    atomic.Bool   // nothing was sent for a while
	waiting atomic.Bool   // the reader waits for landed
	landed  chan struct{} // capacity 1: packets were sent
	closed  chan struct{}
	forgave time.Time // when flying was last halved; of the reader
}

// Bounds of a meter. A batch is worth 4 ms at 1.5 Gb/s; there is one for each of
// the device's workers on a machine of 16 processors.
const (
	maxFlying   = 16 * batch // packets
	idleBatch   = 8          // packets
	idleAfter   = 20 * time.Millisecond
	forgiveFrom = time.Second // between two halvings
)

// sent counts packets that went to the socket. It never blocks.
func (m *meter) sent(n int) {
	if v := m.flying.Add(-int64(n)); v < 0 {
		m.flying.CompareAndSwap(v, 0) // they were forgiven before
	}
	m.idle.Store(false)
	if m.waiting.Load() {
		select {
		case m.landed <- struct{}{}:
		default:
		}
	}
}

// wait waits until there is room for a batch, and returns its size.
func (m *meter) wait() int {
	if m.flying.Load() >= maxFlying {
		m.waiting.Store(true)
		defer m.waiting.Store(false)
		timer := time.NewTimer(idleAfter)
		defer timer.Stop()
		for m.flying.Load() >= maxFlying {
			select {
			case <-m.closed:
				return batch
			case <-m.landed:
				timer.Reset(idleAfter)
				if m.shared && time.Since(m.forgave) > forgiveFrom {
					m.forgave = time.Now()
					m.flying.Store(m.flying.Load() / 2)
				}
			case <-timer.C:
				m.idle.Store(true)
				m.flying.Store(0)
			}
		}
	}
	if m.idle.Load() {
		return idleBatch
	}
	return batch
}
