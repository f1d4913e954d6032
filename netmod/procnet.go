// SPDX-License-Identifier: Apache-2.0

// What the files of /proc/net and /sys/class/net are written from.

package netmod

import (
	"sync/atomic"

	"umrun/netmod/procnet"
	"umrun/stacks"
)

// ProcNet tells of the view's network as it is now, for [procnet.File] and
// [procnet.Sys].
func (m *Module) ProcNet() *procnet.Source {
	s := &procnet.Source{
		State:   m.stack.State(),
		Inet:    m.listSockets,
		Packet:  m.listPackets,
		Netlink: m.listNetlink,
	}
	if c, ok := m.stack.(stacks.Counter); ok {
		s.Counters = c.Counters
	}
	if n, ok := m.stack.(stacks.Neighbourhood); ok {
		s.Neighbours = n.Neighbours
	}
	return s
}

// An ifNames keeps the names of the interfaces until the stack tells of a change: they
// are asked for at each open of a file.
type ifNames struct {
	notified bool          // the stack tells; set before anybody asks
	age      atomic.Uint64 // of what the stack has, counted in changes
	known    atomic.Pointer[agedNames]
}

type agedNames struct {
	age   uint64
	names map[string]bool
}

// HasInterface tells whether an interface of the view has a name.
func (m *Module) HasInterface(name string) bool {
	age := m.names.age.Load() // first: what changes meanwhile is another age
	k := m.names.known.Load()
	if k == nil || k.age != age || !m.names.notified {
		k = &agedNames{age, make(map[string]bool)}
		for _, ifc := range m.stack.State().Interfaces {
			k.names[ifc.Name] = true
		}
		m.names.known.Store(k)
	}
	return k.names[name]
}
