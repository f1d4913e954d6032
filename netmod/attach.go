// SPDX-License-Identifier: Apache-2.0

// Interfaces that come and go while programs listen.

package netmod

import (
	"umrun/netmod/rtnetlink"
	"umrun/stacks"
)

// Attach adds an interface to a, which is the module's stack or part of it, in turn with
// the changes that programs make, and tells those who listen.
func (m *Module) Attach(a stacks.Attacher, l stacks.LinkConfig) (index int, err error) {
	m.changing.Lock()
	defer m.changing.Unlock()
	if index, err = a.Attach(l); err == nil {
		m.changed()
	}
	return index, err
}

// Detach removes one that Attach has added.
func (m *Module) Detach(a stacks.Attacher, index int) error {
	m.changing.Lock()
	defer m.changing.Unlock()
	err := a.Detach(index)
	m.changed()
	return err
}

// changed tells what the stack has become, other than by a program. Module.changing is held.
func (m *Module) changed() {
	if m.kernel == nil && m.ctx.Err() == nil {
		m.tell(rtnetlink.Origin{})
		m.awaitExpiry()
	}
}
