// SPDX-License-Identifier: Apache-2.0

// The table of datagram mappings: a port of the view, a socket of the host.

package nat

import (
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A mapKey names a mapping: protocol (UDP or either ICMP) and source of the
// view. An echo identifier stands in the port's place. dst is the only destination
// of a port that an upstream wants apart.
type mapKey struct {
	proto    uint8
	src, dst addrPort
}

// A mapping is endpoint independent (RFC 4787 §4.1): whatever a port of the view
// sends leaves from one unconnected socket, and whoever writes to that is heard
// (§5: endpoint-independent filtering), so that hole punching works.
//
// One goroutine reads the socket; sends are made by whoever is in [Link.Write].
type mapping struct {
	l    *Link
	key  mapKey
	file *os.File
	rc   syscall.RawConn
	up   *port        // of the upstream, in place of file and rc
	pub  *Publication // that it belongs to; nil: it is the view's own doing
	raw  bool         // a raw ICMP socket: id is ours, and the IPv4 header is read too
	id   uint16       // echo identifier of a raw socket

	last atomic.Int64 // time of the last datagram either way, ns of l.maps.now
	kind atomic.Int32 // what it was used for, decides how long it is kept
}

// Kinds of use.
const (
	usedOnce = iota // for name queries only, so far: short lived
	usedLong
)

// queryIdle is for how long a port stays mapped that only asked name servers:
// resolvers take a new port for every query.
const queryIdle = 30 * time.Second

// echoIdle is for how long an echo identifier stays mapped, RFC 5508 REQ-2.
const echoIdle = 60 * time.Second

// mapTable holds the mappings, and runs a goroutine that ends the idle ones.
type mapTable struct {
	l     *Link
	start time.Time

	mu      sync.Mutex
	maps    map[mapKey]*mapping   // +checklocks:mu
	pubs    map[mapKey][]*mapping // +checklocks:mu, of publications
	closed  bool                  // +checklocks:mu
	sweeper bool                  // +checklocks:mu, a sweep goroutine is there
	quit    chan struct{}
}

func (t *mapTable) init(l *Link) {
	t.l, t.start = l, time.Now()
	t.maps = make(map[mapKey]*mapping)
	t.pubs = make(map[mapKey][]*mapping)
	t.quit = make(chan struct{})
}

// now is a monotonic clock, in nanoseconds.
func (t *mapTable) now() int64 { return int64(time.Since(t.start)) }

// get returns the mapping of key, and makes it by open if there is none. The
// caller is between enter and leave.
func (t *mapTable) get(key mapKey, open func(*mapping) error) (*mapping, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if m := t.maps[key]; m != nil {
		return m, nil
	}
	if t.closed {
		return nil, os.ErrClosed
	}
	if len(t.maps) >= t.l.opts.MaxMappings {
		t.evictLocked()
	}
	m := &mapping{l: t.l, key: key}
	err := open(m)
	if (err == unix.EMFILE || err == unix.ENFILE) && t.evictLocked() {
		t.l.warn("no file descriptors left: the oldest UDP mappings go", "err", err)
		err = open(m)
	}
	if err != nil {
		return nil, err
	}
	m.last.Store(t.now())
	t.maps[key] = m
	t.l.stats.mappings.Add(1)
	t.l.wg.Add(1)
	if m.up != nil {
		go m.up.run()
	} else {
		go m.read()
	}
	if !t.sweeper {
		t.sweeper = true
		t.l.wg.Add(1)
		go t.sweep()
	}
	return m, nil
}

// evictLocked ends the mapping that is idle for longest.
func (t *mapTable) evictLocked() bool {
	var oldest *mapping
	for _, m := range t.maps {
		if oldest == nil || m.last.Load() < oldest.last.Load() {
			oldest = m
		}
	}
	if oldest == nil {
		return false
	}
	t.removeLocked(oldest)
	t.l.stats.evicted.Add(1)
	return true
}

// removeLocked takes m out; its goroutine ends by the socket's closing.
func (t *mapTable) removeLocked(m *mapping) {
	delete(t.maps, m.key)
	t.l.stats.mappings.Add(-1)
	if m.up != nil {
		m.up.close()
		return
	}
	_ = m.file.Close()
}

// remove takes m out if it is still there.
func (t *mapTable) remove(m *mapping) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.maps[m.key] == m {
		t.removeLocked(m)
	}
}

// idle says after how long m goes.
func (t *mapTable) idle(m *mapping) time.Duration {
	switch {
	case m.key.proto != protoUDP:
		return min(echoIdle, t.l.opts.Idle)
	case m.kind.Load() == usedOnce:
		return min(queryIdle, t.l.opts.Idle)
	}
	return t.l.opts.Idle
}

// sweep ends idle mappings, and itself once there is none left.
func (t *mapTable) sweep() {
	defer t.l.wg.Done()
	tick := time.NewTicker(max(min(queryIdle, t.l.opts.Idle)/4, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-t.quit:
			return
		case <-tick.C:
		}
		t.mu.Lock()
		now := t.now()
		for _, m := range t.maps {
			if now-m.last.Load() > int64(t.idle(m)) {
				t.removeLocked(m)
			}
		}
		if len(t.maps) == 0 {
			t.sweeper = false
			t.mu.Unlock()
			return
		}
		t.mu.Unlock()
	}
}

func (t *mapTable) closeAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	t.closed = true
	close(t.quit)
	for _, all := range t.pubs {
		for _, m := range all {
			_ = m.file.Close()
		}
	}
	clear(t.pubs)
	for _, m := range t.maps {
		t.removeLocked(m)
	}
}

// attach makes fd, a non-blocking socket, the mapping's.
func (m *mapping) attach(fd int, name string) error {
	m.file = os.NewFile(uintptr(fd), name)
	var err error
	if m.rc, err = m.file.SyscallConn(); err != nil {
		_ = m.file.Close()
	}
	return err
}
