// SPDX-License-Identifier: Apache-2.0

// Sockets that are ready: one that is not bound and hears nothing is like any other, so
// that some are made before they are asked for.

package kernel

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// How many sockets of a kind are kept. One of which half is gone within keepSoon is in
// demand, and kept in larger numbers from then on: to ask costs as much for many.
const (
	keepFirst = 4
	keepSoon  = 50 * time.Millisecond
	keepPart  = 16 // at most this part of the descriptors that umrun may have
)

// A pool keeps sockets of the kinds that were asked for. One goroutine fills it.
type pool struct {
	h      *helper
	hungry chan struct{} // capacity 1: "look again"
	done   chan struct{}
	most   int // that a shelf keeps
	wg     sync.WaitGroup

	mu      sync.Mutex
	shelves map[kind]*shelf
	closed  bool
}

// A shelf is for one kind.
type shelf struct {
	fds    []int
	keep   int
	filled time.Time // when keep of them were there last
}

// newPool begins with the kinds that nearly every program has.
func newPool(h *helper) *pool {
	p := &pool{h: h, hungry: make(chan struct{}, 1), done: make(chan struct{}), most: batchMax, shelves: make(map[kind]*shelf)}
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) == nil {
		p.most = int(max(keepFirst, min(batchMax, l.Cur/keepPart)))
	}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		p.shelves[kind{family, unix.SOCK_STREAM, 0}.plain()] = &shelf{keep: keepFirst}
		p.shelves[kind{family, unix.SOCK_DGRAM, 0}.plain()] = &shelf{keep: keepFirst}
	}
	p.wg.Go(p.fill)
	p.look()
	return p
}

func (p *pool) look() {
	select {
	case p.hungry <- struct{}{}:
	default:
	}
}

// take returns a socket, if there is one.
func (p *pool) take(k kind) (fd int, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.shelves[k.plain()]
	if s == nil {
		return -1, false
	}
	if n := len(s.fds) - 1; n >= 0 {
		fd, s.fds, ok = s.fds[n], s.fds[:n], true
	}
	if len(s.fds) == s.keep/2 || !ok {
		if time.Since(s.filled) < keepSoon {
			s.keep = min(2*s.keep, p.most)
		}
		p.look()
	}
	return fd, ok
}

// learn keeps a kind from now on, which could be made. Raw and packet sockets hear of
// packets from the moment that they are there, so that nobody may have one that is old.
func (p *pool) learn(k kind) {
	const sockPacket = 10 // SOCK_PACKET
	if k.family == unix.AF_PACKET || k.family != unix.AF_NETLINK && (k.typ == unix.SOCK_RAW || k.typ == sockPacket) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shelves[k.plain()] == nil {
		p.shelves[k.plain()] = &shelf{keep: keepFirst}
		p.look()
	}
}

// fill is the pool's goroutine.
func (p *pool) fill() {
	for {
		select {
		case <-p.hungry:
		case <-p.done:
			return
		}
		for {
			k, n := p.want()
			if n == 0 {
				break
			}
			fds, err := p.h.sockets(k, n)
			if err != nil {
				p.forget(k) // who asks for one is told why
				continue
			}
			if !p.put(k, fds) {
				break
			}
		}
	}
}

// want returns a kind of which half is missing.
func (p *pool) want() (k kind, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for at, s := range p.shelves {
		if m := s.keep - len(s.fds); m > n && len(s.fds) <= s.keep/2 {
			k, n = at, m
		}
	}
	return k, n
}

// forget keeps none of a kind any more.
func (p *pool) forget(k kind) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.shelves[k]; s != nil {
		closeAll(s.fds)
		delete(p.shelves, k)
	}
}

// put puts sockets there; it returns false when nobody will take them.
func (p *pool) put(k kind, fds []int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.shelves[k]
	if p.closed || s == nil {
		closeAll(fds)
		return false
	}
	s.fds = append(s.fds, fds...)
	s.filled = time.Now()
	return true
}

// close closes what is left, before the helper ends.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	for _, s := range p.shelves {
		closeAll(s.fds)
		s.fds = nil
	}
	p.mu.Unlock()
	close(p.done)
	p.wg.Wait()
}
