// SPDX-License-Identifier: Apache-2.0

// The way past both stacks: the host's socket of a flow in the hands of the view.

package nat

import (
	"sync"

	"umrun/stacks"
)

// A shortcut is the [stacks.Conduit] of a flow. While it is out, down steps aside, and
// up waits for what will not come but for the end; all that was on its way arrives
// first. The flow's ends are as they were: FIN, reset and time-out are told by the
// stacks, and who holds the shortcut gives it back where the host's socket ends.
type shortcut struct {
	f       *flow
	changed func()

	mu      sync.Mutex
	stopped bool          // +checklocks:mu, down has stepped aside
	once    sync.Once     // of over
	over    chan struct{} // closed by Release
}

var _ stacks.Shortcut = (*Link)(nil)

// Shortcut implements [stacks.Shortcut].
func (l *Link) Shortcut(local, remote addrPort, changed func()) stacks.Conduit {
	f := l.flows.find(local, remote)
	if f == nil {
		return nil
	}
	s := &shortcut{f: f, changed: changed, over: make(chan struct{})}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.gone || f.ep == nil || f.ended.Load() || !f.short.CompareAndSwap(nil, s) {
		return nil
	}
	_ = f.host.SetDeadline(longAgo) // down may be waiting: it shall look
	return s
}

// stepAside is down's: it leaves the host's socket to s until that is released. false
// means that the flow has ended.
func (f *flow) stepAside(s *shortcut, failed func() bool) bool {
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	s.changed()
	for {
		select {
		case <-s.over:
			f.short.CompareAndSwap(s, nil)
			return true
		case <-f.dead:
			return false
		case <-f.writable:
			if failed() {
				f.reset()
				return false
			}
		}
	}
}

// Up implements [stacks.Conduit].
func (s *shortcut) Up() uint64 { return s.f.moved.up.Load() }

// Down implements [stacks.Conduit].
func (s *shortcut) Down() (uint64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.f.moved.down.Load(), s.stopped
}

// Control implements [stacks.Conduit].
func (s *shortcut) Control(f func(fd uintptr)) error { return s.f.rc.Control(f) }

// Recalled implements [stacks.Conduit]: a link never wants it back.
func (s *shortcut) Recalled() bool { return false }

// Moved implements [stacks.Conduit].
func (s *shortcut) Moved(up, down int) {
	s.f.l.stats.tcpOut.Add(uint64(up))
	s.f.l.stats.tcpIn.Add(uint64(down))
}

// Release implements [stacks.Conduit].
func (s *shortcut) Release(err error) {
	if err != nil { // first: down would take a socket without its error for one at its end
		s.f.reset()
	}
	s.once.Do(func() { close(s.over) })
}
