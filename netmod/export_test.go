// SPDX-License-Identifier: Apache-2.0

// What tests of other packages need to see of a module.

package netmod

import (
	"testing"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

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

// WithoutInotify makes m's watches for closes fail from now on.
func WithoutInotify(m *Module) {
	m.closes.mu.Lock()
	defer m.closes.mu.Unlock()
	unix.Close(m.closes.fd)
	m.closes.fd, m.closes.err = -1, unix.ENOSPC
}

// Placeholder makes a UDP socket and returns the name of its placeholder.
func Placeholder(t testing.TB, m *Module) (end unix.Sockaddr, stop func()) {
	t.Helper()
	s, fd, err := m.newSocket(stacks.Caller{}, unix.AF_INET, unix.SOCK_DGRAM, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	return s.(*packet).end, func() {
		unix.Close(fd)
		s.destroy()
	}
}
