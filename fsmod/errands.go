// SPDX-License-Identifier: Apache-2.0

// Errands: work that takes too long for those few threads that answer calls.

package fsmod

import (
	"context"
	"sync"

	"golang.org/x/sys/unix"
)

// Errands are pieces of work that several calls may wait for, each on a goroutine of its
// own. The zero value has none.
type Errands struct {
	wg   sync.WaitGroup
	mu   sync.Mutex
	byID map[string]*errand // under way. Guarded by mu
}

type errand struct {
	done    chan struct{} // closed when err is set
	err     error
	cancel  context.CancelFunc
	waiting int // how many wait. Guarded by Errands.mu
}

// Begin has f run, unless an errand of that name is under way, and returns how to wait for
// what it returns. That is to be called once. Who waits no more, as its ctx is done, gets
// EINTR; when nobody waits, f's context is done as well.
func (e *Errands) Begin(name string, f func(ctx context.Context) error) (wait func(ctx context.Context) error) {
	w, ok := e.join(name, f)
	return func(ctx context.Context) error {
		select {
		case <-w.done:
			if ok {
				return w.err
			}
			return nil
		case <-ctx.Done():
			if ok {
				e.leave(w)
			}
			return unix.EINTR
		}
	}
}

// join begins to wait for an errand. ok is false if that is about to end, as nobody waited.
func (e *Errands) join(name string, f func(ctx context.Context) error) (w *errand, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if w := e.byID[name]; w != nil {
		if w.waiting == 0 {
			return w, false
		}
		w.waiting++
		return w, true
	}
	ctx, cancel := context.WithCancel(context.Background())
	w = &errand{done: make(chan struct{}), cancel: cancel, waiting: 1}
	if e.byID == nil {
		e.byID = map[string]*errand{}
	}
	e.byID[name] = w
	e.wg.Go(func() {
		defer cancel()
		w.err = f(ctx)
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.byID, name)
		close(w.done)
	})
	return w, true
}

func (e *Errands) leave(w *errand) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if w.waiting--; w.waiting == 0 {
		w.cancel()
	}
}

// Busy reports whether an errand of that name is under way.
func (e *Errands) Busy(name string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.byID[name] != nil
}

// Wait waits until nothing is under way.
func (e *Errands) Wait() { e.wg.Wait() }
