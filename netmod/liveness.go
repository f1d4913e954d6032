// SPDX-License-Identifier: Apache-2.0

// Which placeholders are still held by somebody, where no end of ours can tell.

package netmod

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A liveness knows which placeholders are alive without holding them.
//
// An epoll set keeps no reference to the files in it, and an entry vanishes from
// /proc/self/fdinfo/N at the last close, wherever the duplicates were. Every
// stream placeholder is registered when it is made, with its cookie as data; a
// scan of that file then tells the living. There is no event, so scans are rare:
// when orphans (sockets whose end of ours is gone) may have gathered.
//
// Listeners must be found closed soon, since their port answers until then.
// They are bound (see [nook]), and an attempt to connect a datagram socket to one
// tells at once whether it is there, with no trace left in its queue.
type liveness struct {
	m     *Module
	epfd  int
	probe int // datagram socket for listeners

	mu        sync.Mutex // guards what follows; a leaf but for nook probes
	listeners map[*stream]*nook
	watched   int // added since the last scan
	lastSize  int // living at the last scan
	orphans   bool

	called atomic.Bool // a call was trapped since the last probe
	slow   atomic.Bool // probes are slow, and the next call speeds them up

	kick chan struct{} // cap 1: there is something to look after
	done chan struct{}
	wg   sync.WaitGroup
}

// How often the living are counted.
const (
	probeEvery = 20 * time.Millisecond // listeners, while the program makes calls
	probeSlow  = 16 * probeEvery       // ... when it has made none for quietTime
	quietTime  = time.Second
	scanEvery  = time.Second // orphans
	scanGrowth = 256         // placeholders made since the last scan
)

func newLiveness(m *Module) (*liveness, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create: %w", err)
	}
	probe, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		unix.Close(epfd)
		return nil, fmt.Errorf("socket: %w", err)
	}
	l := &liveness{m: m, epfd: epfd, probe: probe, listeners: make(map[*stream]*nook),
		kick: make(chan struct{}, 1), done: make(chan struct{})}
	l.wg.Add(1)
	go l.run()
	return l, nil
}

// watch registers a placeholder.
func (l *liveness) watch(fd int, cookie uint64) error {
	ev := unix.EpollEvent{Events: unix.EPOLLET, Fd: int32(cookie), Pad: int32(cookie >> 32)}
	if err := unix.EpollCtl(l.epfd, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	l.mu.Lock()
	l.watched++
	scan := !l.orphans && l.watched > scanGrowth+l.lastSize
	if scan {
		l.orphans = true
	}
	l.mu.Unlock()
	if scan {
		l.nudge()
	}
	return nil
}

// orphan says that a socket was left that only a scan finds closed.
func (l *liveness) orphan() {
	l.mu.Lock()
	l.orphans = true
	l.mu.Unlock()
	l.nudge()
}

// active says that the program makes calls, so that it may close a listener soon. A
// server that waits for its next client costs next to nothing meanwhile.
func (l *liveness) active() {
	if !l.called.Load() {
		l.called.Store(true)
	}
	if l.slow.Load() && l.slow.CompareAndSwap(true, false) {
		l.nudge()
	}
}

// listener has s probed until it is closed.
func (l *liveness) listener(s *stream, n *nook) {
	l.mu.Lock()
	l.listeners[s] = n
	l.mu.Unlock()
	l.nudge()
}

// unlisten ends that; s closes its nook next.
func (l *liveness) unlisten(s *stream) {
	l.mu.Lock()
	delete(l.listeners, s)
	l.mu.Unlock()
}

func (l *liveness) nudge() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// sweep looks after the listeners now; a caller is about to use a port.
func (l *liveness) sweep() {
	l.probeListeners()
	l.mu.Lock()
	scan := l.orphans
	l.mu.Unlock()
	if scan {
		l.scan()
	}
}

// reapClosed looks after every socket now: a port is said to be in use, maybe by
// one that the program has closed already. Programs look for a free port by
// binding a socket and closing it.
func (l *liveness) reapClosed() {
	l.probeListeners()
	l.scan()
	l.reapPackets(func(*packet) bool { return true })
}

// reapNetlink does the same for netlink sockets: the next one is to have the port of
// one that the program has just closed, its own number.
func (l *liveness) reapNetlink() {
	l.reapPackets(func(p *packet) bool { return p.family == unix.AF_NETLINK })
}

func (l *liveness) reapPackets(want func(*packet) bool) {
	l.m.mu.Lock()
	var packets []*packet
	for _, s := range l.m.sockets {
		if p, ok := s.(*packet); ok && want(p) {
			packets = append(packets, p)
		}
	}
	l.m.mu.Unlock()
	l.m.closes.read()
	for _, p := range packets {
		p.reapHungUp()
	}
}

// A mortal is a socket that liveness watches.
type mortal interface {
	reap(cookie uint64)
	orphaned() bool
}

// scan reaps every watched socket whose placeholder is gone.
func (l *liveness) scan() {
	l.mu.Lock()
	l.orphans = false // those of from now on need another scan
	l.mu.Unlock()
	l.m.mu.Lock()
	candidates := make(map[uint64]mortal, len(l.m.sockets))
	for cookie, s := range l.m.sockets {
		if s, ok := s.(mortal); ok {
			candidates[cookie] = s
		}
	}
	l.m.mu.Unlock()
	living, err := l.living() // after the table: whoever is in it is watched
	if err != nil {
		l.m.log.Error("count placeholders", "err", err)
		return
	}
	l.mu.Lock()
	l.watched, l.lastSize = 0, len(living)
	l.mu.Unlock()
	left := false
	for cookie, s := range candidates {
		if !living[cookie] {
			s.reap(cookie)
		} else if s.orphaned() {
			left = true
		}
	}
	if left {
		l.mu.Lock()
		l.orphans = true
		l.mu.Unlock()
	}
}

// orphaned tells whether only a scan will find s closed.
func (s *stream) orphaned() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.gone && (s.state == failed || s.rdwrShut || s.finSent && s.downEOF || s.state == fresh && s.bound)
}

// living reads the cookies of all placeholders that are still open.
func (l *liveness) living() (map[uint64]bool, error) {
	b, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(l.epfd))
	if err != nil {
		return nil, err
	}
	living := make(map[uint64]bool)
	lines := bufio.NewScanner(bytes.NewReader(b))
	for lines.Scan() {
		_, rest, ok := bytes.Cut(lines.Bytes(), []byte("data:"))
		if !ok {
			continue
		}
		f := bytes.Fields(rest)
		if len(f) == 0 {
			continue
		}
		if cookie, err := strconv.ParseUint(string(f[0]), 16, 64); err == nil {
			living[cookie] = true
		}
	}
	return living, nil
}

func (l *liveness) run() {
	defer l.wg.Done()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	lastScan, lastCall := time.Now(), time.Now()
	for {
		if l.called.Swap(false) {
			lastCall = time.Now()
		}
		l.mu.Lock()
		wait := time.Hour
		switch {
		case len(l.listeners) > 0 && time.Since(lastCall) > quietTime:
			wait = probeSlow
			l.slow.Store(true)
		case len(l.listeners) > 0:
			wait = probeEvery
		case l.orphans:
			wait = scanEvery
		}
		l.mu.Unlock()
		timer.Reset(wait)
		select {
		case <-l.done:
			return
		case <-l.kick:
			continue
		case <-timer.C:
		}
		l.mu.Lock()
		due := l.orphans && time.Since(lastScan) >= scanEvery
		l.mu.Unlock()
		if due {
			lastScan = time.Now()
			l.sweep()
			continue
		}
		l.probeListeners()
	}
}

// probeListeners reaps the listeners that are closed.
func (l *liveness) probeListeners() {
	l.mu.Lock()
	var dead []*stream
	for s, n := range l.listeners {
		if !n.alive(l.probe) {
			delete(l.listeners, s)
			dead = append(dead, s)
		}
	}
	l.mu.Unlock()
	for _, s := range dead {
		s.reap(0)
	}
}

func (l *liveness) close() {
	close(l.done)
	l.wg.Wait()
	unix.Close(l.epfd)
	unix.Close(l.probe)
}
