// SPDX-License-Identifier: Apache-2.0

package netmod

// Sockets returns how many sockets a module has in its table.
func Sockets(m *Module) int {
	m.live.sweep()
	m.live.scan()
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.sockets)
}
