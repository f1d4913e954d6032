// SPDX-License-Identifier: Apache-2.0

// What cannot be done where it is found out, because of locks that are held there.

package netstack

import "sync"

// tasks are short goroutines of a stack, which none outlives. Its mutex is a leaf.
type tasks struct {
	mu     sync.Mutex
	closed bool
	wg     sync.WaitGroup
}

// start runs f, unless the stack closes.
func (t *tasks) start(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.wg.Go(f)
	}
}

// close waits for those that run; no more start.
func (t *tasks) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.wg.Wait()
}
