// SPDX-License-Identifier: Apache-2.0

// Changes of the view's network: by requests, and when the life of an address ends.

package netmod

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"umrun/netmod/rtnetlink"
	"umrun/stacks"
)

// setState returns what makes the stack's configuration another one and tells the
// multicast groups; nil if the stack has a fixed one, or is a namespace where the
// supervisor may do what the program must not. Module.changing is held when it is
// called, and when what it returns is.
func (m *Module) setState() rtnetlink.Setter {
	conf, ok := m.stack.(stacks.Configurer)
	if !ok || m.kernel != nil && !m.kernel.Namespace().Private {
		return nil
	}
	return func(next stacks.State, by rtnetlink.Origin) error {
		if h, ok := m.stack.(stacks.Neighbourhood); ok {
			for _, n := range next.Neighbours {
				if n.State == unix.NUD_NONE {
					_ = h.Forget(n.IfIndex, n.Addr) // it may have gone by itself
				}
			}
		}
		next.Neighbours = slices.DeleteFunc(next.Neighbours, func(n stacks.Neighbour) bool { return n.State == unix.NUD_NONE })
		if err := conf.SetState(next); err != nil {
			return err
		}
		if m.kernel != nil {
			return nil // which tells by itself, and knows when addresses end
		}
		m.tell(by)
		m.awaitExpiry()
		return nil
	}
}

// state is the stack's State with the neighbours that it has learnt of.
func (m *Module) state() stacks.State {
	s := m.stack.State()
	if h, ok := m.stack.(stacks.Neighbourhood); ok {
		if learnt := h.Neighbours(); len(learnt) > 0 {
			s.Neighbours = append(slices.Clip(s.Neighbours), learnt...)
		}
	}
	return s
}

// tell tells those who listen what has become different. Module.changing is held.
func (m *Module) tell(by rtnetlink.Origin) {
	now := m.state()
	m.announce(rtnetlink.Changes(m.told, now, by), by)
	m.told = now
}

// hearStack has what the stack changes by itself told: whether an address is unique.
func (m *Module) hearStack() {
	m.told = m.state()
	n, ok := m.stack.(stacks.Notifier)
	if !ok || m.kernel != nil {
		return
	}
	m.names.notified = true
	m.unnotify = n.Notify(func() {
		m.names.age.Add(1)
		time.AfterFunc(0, func() { // not with the locks of the stack
			m.changing.Lock()
			defer m.changing.Unlock()
			if m.ctx.Err() == nil {
				m.tell(rtnetlink.Origin{})
			}
		})
	})
}

// Change makes the State of st what edit makes of the present one, in turn with the
// program's own changes, and tells programs that listen. st is the module's stack, or
// one of those that it is made of. edit calls nothing of the module's. EPERM if st has
// a fixed State.
func (m *Module) Change(st stacks.Stack, edit func(stacks.State) stacks.State) error {
	conf, ok := st.(stacks.Configurer)
	if whole, divided := m.stack.(stacks.Divided); divided && st != m.stack {
		conf, ok = whole.Part(st)
	}
	if !ok {
		return unix.EPERM
	}
	m.changing.Lock()
	defer m.changing.Unlock()
	if err := conf.SetState(edit(st.State())); err != nil {
		return err
	}
	m.changed()
	return nil
}

// awaitExpiry has expire called when the life of an address ends. Module.changing is
// held.
func (m *Module) awaitExpiry() {
	if m.expiry != nil {
		m.expiry.Stop()
		m.expiry = nil
	}
	_, at, changed := rtnetlink.Expire(m.stack.State(), time.Now())
	if changed {
		at = time.Now()
	}
	if !at.IsZero() && m.ctx.Err() == nil {
		m.expiry = time.AfterFunc(time.Until(at), m.expire)
	}
}

// expire removes the addresses that have lived.
func (m *Module) expire() {
	m.changing.Lock()
	defer m.changing.Unlock()
	if m.ctx.Err() != nil {
		return
	}
	next, _, changed := rtnetlink.Expire(m.stack.State(), time.Now())
	set := m.setState()
	if !changed || set == nil {
		m.awaitExpiry()
		return
	}
	if err := set(next, rtnetlink.Origin{}); err != nil {
		m.log.Error("remove addresses that have lived", "err", err)
	}
}

// stopExpiry ends what awaitExpiry has started; the module's context has ended.
func (m *Module) stopExpiry() {
	m.changing.Lock()
	defer m.changing.Unlock()
	if m.expiry != nil {
		m.expiry.Stop()
	}
}
