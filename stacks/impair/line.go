// SPDX-License-Identifier: Apache-2.0

// One direction: what is on its way.

package impair

import (
	"container/heap"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// A line is one direction. It has any number of senders and one receiver.
type line struct {
	cfg   Config
	queue time.Duration // how long a packet may wait for its turn
	wake  chan struct{} // what the receiver waits for has changed
	timer *time.Timer   // the receiver's

	mu      sync.Mutex
	limiter *rate.Limiter // nil: any rate; +checklocks:mu
	flight  flight        // +checklocks:mu
	bytes   int           // of flight; +checklocks:mu
	next    uint64        // number of the next packet; +checklocks:mu
	ended   bool          // nothing more comes; +checklocks:mu
	broken  bool          // and what is on its way does not arrive; +checklocks:mu
}

// A packet is on its way.
type packet struct {
	data []byte
	due  time.Time
	n    uint64 // packets that are due at once keep their order
}

// flight is a heap of packets by the time of their arrival.
type flight []packet

func (f flight) Len() int      { return len(f) }
func (f flight) Swap(i, j int) { f[i], f[j] = f[j], f[i] }
func (f flight) Less(i, j int) bool {
	return f[i].due.Before(f[j].due) || f[i].due.Equal(f[j].due) && f[i].n < f[j].n
}
func (f *flight) Push(x any) { *f = append(*f, x.(packet)) }
func (f *flight) Pop() any {
	last := len(*f) - 1
	p := (*f)[last]
	(*f)[last] = packet{}
	*f = (*f)[:last]
	return p
}

// maxFlight bounds what is on its way, bytes: a gigabit for a quarter of a second.
const maxFlight = 32 << 20

// bucketTime is how much of the rate may pass at once, beyond one packet.
const bucketTime = time.Millisecond

// newLine makes a line for packets of up to maxPacket bytes.
func newLine(c Config, queue time.Duration, maxPacket int) *line {
	l := &line{cfg: c, queue: queue, wake: make(chan struct{}, 1), timer: time.NewTimer(time.Hour)}
	if c.Rate > 0 {
		l.limiter = rate.NewLimiter(rate.Limit(c.Rate), maxPacket+int(c.Rate*bucketTime.Seconds()))
		// A queue holds some packets however slow the line is.
		l.queue = max(queue, time.Duration(8*float64(maxPacket)/c.Rate*float64(time.Second)))
	}
	return l
}

// send puts a packet of size bytes on its way, or loses it; data is the line's from
// then on. If the queue is full it does nothing but say how long it is worth to wait.
// ok is false if the line has ended.
func (l *line) send(data []byte, size int, now time.Time) (wait time.Duration, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return 0, false
	}
	if l.bytes+len(data) > maxFlight {
		return time.Millisecond, true
	}
	due := now
	if l.limiter != nil {
		r := l.limiter.ReserveN(now, min(size, l.limiter.Burst()))
		d := r.DelayFrom(now)
		if d > l.queue {
			r.CancelAt(now)
			return d - l.queue, true
		}
		due = now.Add(d)
	}
	if l.cfg.Loss > 0 && rand.Float64() < l.cfg.Loss {
		return 0, true
	}
	due = due.Add(l.travel())
	heap.Push(&l.flight, packet{data, due, l.next})
	l.next++
	l.bytes += len(data)
	if l.flight[0].n == l.next-1 {
		l.stir()
	}
	return 0, true
}

// travel is the delay of one packet.
func (l *line) travel() time.Duration {
	d := l.cfg.Delay
	if l.cfg.Jitter > 0 {
		d += time.Duration(rand.Int64N(2*int64(l.cfg.Jitter)+1)) - l.cfg.Jitter
	}
	return max(d, 0)
}

// stir wakes the receiver.
func (l *line) stir() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// receive waits for packets to arrive and appends at most n of them to to. Nothing is
// appended when the line has ended.
func (l *line) receive(to [][]byte, n int) [][]byte {
	had := len(to)
	for {
		l.mu.Lock()
		now := time.Now()
		for len(l.flight) > 0 && len(to)-had < n && !l.broken && !l.flight[0].due.After(now) {
			p := heap.Pop(&l.flight).(packet)
			l.bytes -= len(p.data)
			to = append(to, p.data)
		}
		over := l.broken || l.ended && len(l.flight) == 0
		wait := time.Hour
		if len(l.flight) > 0 {
			wait = l.flight[0].due.Sub(now)
		}
		l.mu.Unlock()
		if len(to) > had || over {
			return to
		}
		l.timer.Reset(wait)
		select {
		case <-l.wake:
		case <-l.timer.C:
		}
	}
}

// end ends the line; broken: what is on its way does not arrive either.
func (l *line) end(broken bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended, l.broken = true, l.broken || broken
	l.stir()
}
