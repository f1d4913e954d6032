// SPDX-License-Identifier: Apache-2.0

// The forwarding table of a switch: behind which port an address was seen last.

package vde

import (
	"sync"
	"time"
)

// A table learns addresses. An entry that nobody has used to send for the expiry time
// is as good as none. It is safe for concurrent use.
type table struct {
	expire time.Duration
	max    int // entries; beyond it, old ones and then arbitrary ones give way

	mu sync.RWMutex
	m  map[macKey]*entry // +checklocks:mu
}

type entry struct {
	port *port
	seen time.Time
}

func newTable(expire time.Duration, max int) *table {
	return &table{expire: expire, max: max, m: map[macKey]*entry{}}
}

// learn notes that the sender k is behind p. Group addresses send nothing.
func (t *table) learn(k macKey, p *port, now time.Time) {
	if k.group() {
		return
	}
	t.mu.RLock()
	e := t.m[k]
	// Most frames say what the last one did; a second is precise enough for the age.
	known := e != nil && e.port == p && now.Sub(e.seen) < time.Second
	t.mu.RUnlock()
	if known {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.m[k] == nil && len(t.m) >= t.max {
		t.makeRoomLocked(now)
	}
	t.m[k] = &entry{p, now}
}

// find returns the port of k, nil if it is not known.
func (t *table) find(k macKey, now time.Time) *port {
	if k.group() {
		return nil
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	if e := t.m[k]; e != nil && now.Sub(e.seen) < t.expire {
		return e.port
	}
	return nil
}

// forget drops what is known of p.
func (t *table) forget(p *port) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for k, e := range t.m {
		if e.port == p {
			delete(t.m, k)
		}
	}
}

// makeRoomLocked drops what has expired, and else a few entries that come first.
func (t *table) makeRoomLocked(now time.Time) {
	for k, e := range t.m {
		if now.Sub(e.seen) >= t.expire {
			delete(t.m, k)
		}
	}
	few := max(t.max/16, 1)
	for k := range t.m {
		if len(t.m)+few <= t.max {
			break
		}
		delete(t.m, k)
	}
}
