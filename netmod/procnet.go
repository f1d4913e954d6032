// SPDX-License-Identifier: Apache-2.0

// What the files of /proc/net and /sys/class/net are written from.

package netmod

import (
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
