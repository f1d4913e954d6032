// SPDX-License-Identifier: Apache-2.0

// What tests of other packages need to see of a module.

package netmod

// Sockets returns how many sockets a module has in its table.
func Sockets(m *Module) int {
	m.live.sweep()
	m.live.scan()
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.sockets)
}

// Known returns the same, without looking first for those that are closed.
func Known(m *Module) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.sockets)
}
