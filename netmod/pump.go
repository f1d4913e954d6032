// SPDX-License-Identifier: Apache-2.0

// The engine of all pumps: an epoll loop over the module's ends, a run queue, workers.

package netmod

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// A job is something that makes progress in turns, one turn at a time, whoever
// runs it. Its zero value is idle.
type job struct {
	state atomic.Int32
	ready atomic.Uint32 // readiness bits since the last turn
	turn  func(ready uint32) (again bool)
	id    uint64 // in the poller's table
}

// The states of a job.
const (
	jobIdle    = iota
	jobQueued  // in the run queue
	jobRunning // a turn is under way
	jobMarked  // a turn is under way and another must follow
)

// Readiness bits of a job.
const (
	appIn    = 1 << iota // the program has written
	appOut               // the program has read
	appShut              // the program shut its write side (RDHUP)
	appHup               // nobody holds the program's end any more, or it shut both sides
	stackAny             // the stack has news
	nudge                // somebody else wants a turn
)

// A pump runs jobs. Workers take them from the queue; the poller runs a job at
// once when it is idle, which saves a hand-over.
//
// The poller waits for its epoll set in the runtime's own, not in epoll_wait(2). A
// thread in a system call keeps its P for some time, and with it the goroutines
// that the last turn made runnable; one that parks runs them next. They are what
// carries the turn's bytes on, so that this halves the time to the wire.
type pump struct {
	epfd   int
	set    *os.File        // owns epfd
	conn   syscall.RawConn // of set
	active func()

	mu     sync.Mutex // guards what follows
	cond   sync.Cond
	queue  []*job
	closed bool
	jobs   map[uint64]*job // by the number that epoll returns
	next   uint64

	wg sync.WaitGroup // poller and workers
}

// newPump starts a pump. active, if not nil, is called at each event.
func newPump(active func()) (*pump, error) {
	if active == nil {
		active = func() {}
	}
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create: %w", err)
	}
	if err := unix.SetNonblock(epfd, true); err != nil { // for the runtime to wait for it
		unix.Close(epfd)
		return nil, fmt.Errorf("O_NONBLOCK of an epoll set: %w", err)
	}
	set := os.NewFile(uintptr(epfd), "epoll")
	conn, err := set.SyscallConn()
	if err != nil {
		set.Close()
		return nil, fmt.Errorf("epoll set: %w", err)
	}
	p := &pump{epfd: epfd, set: set, conn: conn, jobs: make(map[uint64]*job), next: 1, active: active}
	p.cond.L = &p.mu
	workers := runtime.GOMAXPROCS(0)
	p.wg.Add(1 + workers)
	go p.poll()
	for range workers {
		go p.work()
	}
	return p, nil
}

func (p *pump) ctl(op, fd int, id uint64, events uint32) error {
	ev := unix.EpollEvent{Events: events, Fd: int32(id), Pad: int32(id >> 32)}
	if err := unix.EpollCtl(p.epfd, op, fd, &ev); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}

// add lets events on fd mark j. The registration ends when fd is closed; forget
// then drops j from the table.
func (p *pump) add(j *job, fd int) error {
	p.mu.Lock()
	if j.id == 0 {
		j.id = p.next
		p.next++
		p.jobs[j.id] = j
	}
	p.mu.Unlock()
	return p.ctl(unix.EPOLL_CTL_ADD, fd, j.id, unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLET)
}

// wantOut adds or removes interest in EPOLLOUT. Without need it stays off: each
// read of the program would wake the poller.
func (p *pump) wantOut(j *job, fd int, on bool) {
	ev := uint32(unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET)
	if on {
		ev |= unix.EPOLLOUT
	}
	_ = p.ctl(unix.EPOLL_CTL_MOD, fd, j.id, ev) // fails only when fd is gone
}

func (p *pump) forget(j *job) {
	p.mu.Lock()
	delete(p.jobs, j.id)
	j.id = 0
	p.mu.Unlock()
}

// schedule marks j ready and sees to it that a turn follows. Safe from any
// goroutine, with any lock held but pump.mu.
func (p *pump) schedule(j *job, ready uint32) {
	j.ready.Or(ready)
	for {
		switch s := j.state.Load(); s {
		case jobIdle:
			if j.state.CompareAndSwap(s, jobQueued) {
				p.push(j)
				return
			}
		case jobRunning:
			if j.state.CompareAndSwap(s, jobMarked) {
				return
			}
		default:
			return
		}
	}
}

func (p *pump) push(j *job) {
	p.mu.Lock()
	p.queue = append(p.queue, j)
	p.mu.Unlock()
	p.cond.Signal()
}

// run gives j, which is in state jobRunning, one turn.
func (p *pump) run(j *job) {
	again := j.turn(j.ready.Swap(0))
	if !again && j.state.CompareAndSwap(jobRunning, jobIdle) {
		return
	}
	j.state.Store(jobQueued)
	p.push(j)
}

func (p *pump) work() {
	defer p.wg.Done()
	for {
		p.mu.Lock()
		for len(p.queue) == 0 && !p.closed {
			p.cond.Wait()
		}
		if p.closed {
			p.mu.Unlock()
			return
		}
		j := p.queue[0]
		p.queue[0] = nil
		p.queue = p.queue[1:]
		if len(p.queue) == 0 {
			p.queue = nil
		}
		p.mu.Unlock()
		j.state.Store(jobRunning)
		p.run(j)
	}
}

func (p *pump) poll() {
	defer p.wg.Done()
	var events [128]unix.EpollEvent
	for {
		n := 0
		err := p.conn.Read(func(fd uintptr) bool {
			var err error
			for n, err = unix.EpollWait(int(fd), events[:], 0); err == unix.EINTR; {
				n, err = unix.EpollWait(int(fd), events[:], 0)
			}
			return n > 0
		})
		if err != nil {
			return // closed
		}
		p.active()
		for _, ev := range events[:n] {
			id := uint64(uint32(ev.Fd)) | uint64(uint32(ev.Pad))<<32
			far := id&farBit != 0
			id &^= farBit
			p.mu.Lock()
			j, closed := p.jobs[id], p.closed
			p.mu.Unlock()
			if closed {
				return
			}
			if j == nil {
				continue
			}
			ready := bits(ev.Events)
			if far {
				ready = stackAny
			}
			if n == 1 && j.state.CompareAndSwap(jobIdle, jobRunning) {
				j.ready.Or(ready)
				p.run(j)
			} else {
				p.schedule(j, ready)
			}
		}
	}
}

// bits translates epoll events of the module's end into readiness bits.
func bits(events uint32) (ready uint32) {
	if events&unix.EPOLLIN != 0 {
		ready |= appIn
	}
	if events&unix.EPOLLOUT != 0 {
		ready |= appOut
	}
	if events&unix.EPOLLRDHUP != 0 {
		ready |= appIn | appShut
	}
	if events&(unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		ready |= appIn | appShut | appHup
	}
	return ready
}

// close ends poller and workers and waits for them. Jobs that are queued get no
// further turn.
func (p *pump) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.cond.Broadcast()
	p.set.Close() // ends the poller's wait; the descriptor goes with its last use
	p.wg.Wait()
}
