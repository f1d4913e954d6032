// SPDX-License-Identifier: Apache-2.0

// Changes that the kernel tells of: addresses that turn out to be unique, what programs
// do to interfaces and routes.

package kernel

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

var _ stacks.Notifier = (*Stack)(nil)

// A monitor is a netlink socket that hears of every change. It has no goroutine but
// the stack's watcher.
type monitor struct {
	fd   int
	stop func() // of the watcher

	mu   sync.Mutex // guards what follows; not held while they are called
	next int
	told map[int]func()
}

// groups are those of rtnetlink(7) that [stacks.State] is made of.
const groups = 1<<(unix.RTNLGRP_LINK-1) | 1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV6_IFADDR-1) |
	1<<(unix.RTNLGRP_IPV4_ROUTE-1) | 1<<(unix.RTNLGRP_IPV6_ROUTE-1)

// newMonitor takes over fd, a socket of NETLINK_ROUTE.
func newMonitor(fd int, w *watcher) (*monitor, error) {
	m := &monitor{fd: fd, told: make(map[int]func())}
	err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups})
	if err == nil {
		m.stop, err = w.add(fd, unix.POLLIN, func(int, stacks.Events) { m.hear() })
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("listen to changes: %w", err)
	}
	return m, nil
}

// hear takes what has come, which only says that something has changed, and tells.
func (m *monitor) hear() {
	var buf [1]byte
	for {
		_, _, err := unix.Recvfrom(m.fd, buf[:], unix.MSG_DONTWAIT|unix.MSG_TRUNC)
		if err != nil && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ENOBUFS) {
			break
		}
	}
	m.mu.Lock()
	all := make([]func(), 0, len(m.told))
	for _, f := range m.told {
		all = append(all, f)
	}
	m.mu.Unlock()
	for _, f := range all {
		f()
	}
}

// close ends it, before the watcher.
func (m *monitor) close() {
	m.stop()
	unix.Close(m.fd)
}

// Notify has f called after changes of the namespace's configuration, whoever made
// them; see [stacks.Notifier].
func (s *Stack) Notify(f func()) (stop func()) {
	m := s.monitor
	m.mu.Lock()
	defer m.mu.Unlock()
	m.next++
	id := m.next
	m.told[id] = f
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.told, id)
	}
}
