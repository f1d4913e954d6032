// SPDX-License-Identifier: Apache-2.0

// What a tree must do before a call, and what takes long: copying a file.

package fsmod

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// A Use is what a call is about to do with a name, see [Preparer].
type Use int

// The uses.
const (
	UseOpen Use = iota // open it, with flags
	UseOwn             // change its attributes
	UseMove            // give it another name, or let it change places
	UseLink            // give it one more name
)

// A Preparer is an [FS] in which something must be done first, which may take long, before
// a name is used: a file copied, say.
type Preparer interface {
	// Prepare begins what there is to do, and returns how to wait for it, which is to be called
	// once, see [Errands]; nil: nothing, or so little that the use itself can do it, or the
	// use will not be allowed. The tree is not closed before it has ended.
	Prepare(name string, use Use, flags int) (wait func(ctx context.Context) error)
}

// later is no error: what has to be done before a call can be answered.
type later struct {
	wait func(ctx context.Context) error
}

func (*later) Error() string { return "there is something to be prepared" }

// prepare says with a *later that there is something to do before name is used. A call that
// is answered by a goroutine of its own is not told.
func (m *Module) prepare(c *intercept.Call, mt *mount, name string, use Use, flags int) error {
	if mt == nil {
		return nil
	}
	p, ok := mt.fs.(Preparer)
	if !ok {
		return nil
	}
	if _, apart := m.apart.Load(c); apart {
		return nil
	}
	if wait := p.Prepare(name, use, flags); wait != nil {
		return &later{wait}
	}
	return nil
}

// orLater is result, but of a *later: a goroutine waits for that, and then again gives the
// answer, by the mounts as they are then.
func (m *Module) orLater(c *intercept.Call, err error, again func(m *Module) intercept.Action) intercept.Action {
	var l *later
	if !errors.As(err, &l) {
		return result(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.waits.Go(func() {
		defer cancel()
		err := l.wait(ctx)
		if ctx.Err() != nil {
			return // nobody waits
		}
		c.CompleteFunc(func() intercept.Action {
			if err != nil && !errors.Is(err, unix.ENOENT) { // ENOENT: another has removed it, which is for the call to say
				return fail(err)
			}
			m.apart.Store(c, nil)
			defer m.apart.Delete(c)
			now := m.enterCall()
			defer now.using.RUnlock()
			if !now.mixed.Load() {
				return again(now)
			}
			return now.as(c, func() intercept.Action { return again(now) })
		})
	})
	return c.Park(func(r intercept.Reason) intercept.Action {
		if r == intercept.Gone {
			cancel()
		} else {
			// The thread comes again when the signal's handler is done, and goes on waiting.
			time.AfterFunc(comesAgain, cancel)
		}
		return intercept.Repeat()
	})
}

// comesAgain is how long the handler of a signal may take before what its thread waits for
// is given up.
const comesAgain = time.Second
