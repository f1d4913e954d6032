// SPDX-License-Identifier: Apache-2.0

// Connections whose bytes go past the stack.

package netstack

import (
	"net/netip"
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"umrun/stacks"
)

// A bypass is a conduit of a link that is out. Whoever wants to see packets, or
// changes the ways that they take, recalls it: from then on its connection is like all
// others.
type bypass struct {
	stacks.Conduit
	st       *Stack
	of       *stream
	count    *sendQueue // may be nil
	nic      *endpoint
	changed  func()
	recalled atomic.Bool
}

// bypasses are those that are out.
type bypasses struct {
	mu  sync.Mutex
	all map[*bypass]struct{} // +checklocks:mu
}

var _ stacks.Bypass = (*stream)(nil)

// Bypass implements [stacks.Bypass]. There is none while somebody may look at packets,
// and where the connection's own would not reach the link.
func (s *stream) Bypass(changed func()) stacks.Conduit {
	s.mu.Lock()
	corked, count := s.corkSet() || s.cork.more, s.counted
	s.mu.Unlock()
	if corked || s.down() != nil || s.state() != tcp.StateEstablished {
		return nil
	}
	local, remote := s.Names()
	local = netip.AddrPortFrom(local.Addr().Unmap(), local.Port())
	remote = netip.AddrPortFrom(remote.Addr().Unmap().WithZone(""), remote.Port())
	for _, e := range s.st.links.all() {
		l, ok := e.link.(stacks.Shortcut)
		if !ok {
			continue
		}
		c := l.Shortcut(local, remote, changed)
		if c == nil {
			continue
		}
		b := &bypass{Conduit: c, st: s.st, of: s, count: count, nic: e, changed: changed}
		s.st.bypasses.add(b)
		if s.st.watched() || !s.st.carries(e, local.Addr(), remote.Addr()) {
			b.Release(nil)
			return nil
		}
		return b
	}
	return nil
}

// watched tells whether somebody may see packets of other people's connections.
func (s *Stack) watched() bool { return s.taps.on() || s.raws.sees(tcp.ProtocolNumber) }

// carries tells whether packets between two addresses go by e.
func (s *Stack) carries(e *endpoint, local, remote netip.Addr) bool {
	p := s.policy.Load()
	if !p.plain || !p.up[e.index] {
		return false // what rules say is asked for every packet
	}
	r, err := s.gv.FindRoute(0, gvAddr(local), gvAddr(remote), protoOf(local), false)
	if err != nil {
		return false
	}
	defer r.Release()
	return int(r.NICID()) == e.index
}

func (l *bypasses) add(b *bypass) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all == nil {
		l.all = make(map[*bypass]struct{})
	}
	l.all[b] = struct{}{}
}

// recall calls back all that are out, or that of one stream.
func (l *bypasses) recall(of *stream) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for b := range l.all {
		if of != nil && b.of != of {
			continue
		}
		b.recalled.Store(true)
		b.changed()
	}
}

// Recalled implements [stacks.Conduit].
func (b *bypass) Recalled() bool { return b.recalled.Load() || b.Conduit.Recalled() }

// Moved implements [stacks.Conduit]: TCP_INFO and the interface count these bytes as if
// the stack had moved them, in segments as large as it makes them.
func (b *bypass) Moved(up, down int) {
	b.Conduit.Moved(up, down)
	if c := b.count; c != nil {
		c.sent.Add(int64(up))
		c.taken.Add(int64(down))
		c.heard.Store(b.st.now())
	}
	b.nic.past.add(&b.nic.past.txPackets, &b.nic.past.txBytes, up)
	b.nic.past.add(&b.nic.past.rxPackets, &b.nic.past.rxBytes, down)
}

// Release implements [stacks.Conduit].
func (b *bypass) Release(err error) {
	b.st.bypasses.mu.Lock()
	delete(b.st.bypasses.all, b)
	b.st.bypasses.mu.Unlock()
	b.Conduit.Release(err)
}

// pastCounters count what went past an interface of gVisor's.
type pastCounters struct{ rxPackets, txPackets, rxBytes, txBytes atomic.Uint64 }

func (*pastCounters) add(packets, bytes *atomic.Uint64, n int) {
	if n > 0 {
		packets.Add(uint64((n + gsoMaxSize - 1) / gsoMaxSize))
		bytes.Add(uint64(n))
	}
}

// sent and received count a packet that gVisor does not.
func (c *pastCounters) sent(size int) {
	c.txPackets.Add(1)
	c.txBytes.Add(uint64(size))
}

func (c *pastCounters) received(size int) {
	c.rxPackets.Add(1)
	c.rxBytes.Add(uint64(size))
}

// addTo adds what was counted to c.
func (p *pastCounters) addTo(c *stacks.Counters) {
	c.RxPackets += p.rxPackets.Load()
	c.RxBytes += p.rxBytes.Load()
	c.TxPackets += p.txPackets.Load()
	c.TxBytes += p.txBytes.Load()
}
