// SPDX-License-Identifier: Apache-2.0

// Datagram and raw sockets: an endpoint for each network that they talk to.

package multihome

import (
	"net/netip"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

// A packet is a socket of datagrams, or a raw one.
type packet struct {
	socket
	single atomic.Bool // connected, with one endpoint: it needs no choice
	turn   int         // whose datagrams come next
}

var (
	_ stacks.PacketSocket = (*packet)(nil)
	_ stacks.Reporter     = (*packet)(nil)
	_ stacks.Peered       = (*packet)(nil)
	_ stacks.Owned        = (*packet)(nil)
)

// noMessage is a datagram that says nothing of its way.
var noMessage = stacks.Message{TTL: -1, TOS: -1}

// begin gives a raw socket its endpoints on all networks.
func (p *packet) begin() error {
	if err := p.socket.begin(); err != nil || p.typ != unix.SOCK_RAW {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.spread()
	return nil
}

// spread adds endpoints on the networks where the socket has none, as it is bound; what
// a network cannot give is left out. The mutex is held.
func (p *packet) spread() {
	for _, n := range p.everywhere() {
		if p.on(n) != nil {
			continue
		}
		if e, isNew, err := p.reach(n); err == nil && isNew {
			p.ends = append(p.ends, e)
		}
	}
}

// isEverywhere tells whether the socket, while it has no peer, has endpoints on all
// networks. The mutex is held.
func (p *packet) isEverywhere() bool {
	return p.bindNet == anyNet && (p.bound.IsValid() || p.typ == unix.SOCK_RAW)
}

// Connect chooses the network of the peer, the only one that the socket then has an
// endpoint on.
func (p *packet) Connect(to netip.AddrPort) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !to.IsValid() {
		return p.dissolve()
	}
	net, err := p.choose(to, noMessage)
	if err != nil {
		return err
	}
	e, isNew, err := p.reach(net)
	if err != nil {
		return err
	}
	if err := e.ep.Connect(p.st.inward(net, to)); err != nil {
		switch {
		case isNew && p.unused():
			p.use(e) // which may have chosen a port all the same
		case isNew:
			p.shut(e)
		}
		return err
	}
	e.deaf = false
	p.use(e)
	p.single.Store(true)
	return nil
}

// dissolve makes the socket one without a peer. The mutex is held.
func (p *packet) dissolve() error {
	if err := p.main.Load().ep.Connect(netip.AddrPort{}); err != nil {
		return err
	}
	p.single.Store(false)
	var buf [1]byte
	for _, e := range p.ends {
		for e.deaf {
			if _, _, _, err := e.packet.RecvMsg(buf[:], false); err != nil {
				e.deaf = false
			}
		}
	}
	// A raw socket keeps the address of its connection, and one of IPv6 hears nothing
	// more at all.
	if p.isEverywhere() && p.typ != unix.SOCK_RAW {
		p.spread()
	}
	return nil
}

// SendMsg sends one datagram by the network that it is for.
func (p *packet) SendMsg(b []byte, m stacks.Message) error {
	if p.single.Load() && !m.Peer.IsValid() && m.IfIndex == 0 {
		return p.main.Load().packet.SendMsg(b, m)
	}
	e, err := p.towards(m)
	if err != nil {
		return err
	}
	m.Peer = p.st.inward(e.net.n, m.Peer)
	if m.IfIndex != 0 {
		if net, index, ok := p.st.inner(m.IfIndex); ok && (net == e.net.n || index == loopback) {
			m.IfIndex = index
		} else {
			m.IfIndex = noInterface
		}
	}
	return e.packet.SendMsg(b, m)
}

// towards returns the endpoint for a datagram.
func (p *packet) towards(m stacks.Message) (*end, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	main := p.main.Load()
	_, remote := main.ep.Names()
	to := m.Peer
	if !to.IsValid() {
		if to = remote; p.typ == unix.SOCK_RAW {
			to = netip.AddrPortFrom(p.peer(), 0)
		}
	}
	if !to.Addr().IsValid() {
		return main, nil // which says so
	}
	net, err := p.choose(to, m)
	if err != nil {
		return nil, err
	}
	e, isNew, err := p.reach(net)
	switch {
	case err != nil:
		return nil, err
	case !isNew:
	case p.unused():
		p.use(e)
	default:
		e.deaf = p.single.Load()
		p.ends = append(p.ends, e)
	}
	return e, nil
}

// unused tells whether the only endpoint has never sent or received. The mutex is held.
func (p *packet) unused() bool {
	local, _ := p.ends[0].ep.Names()
	return local.Port() == 0 && len(p.ends) == 1 && p.typ != unix.SOCK_RAW
}

// RecvMsg takes a datagram, from each network in turn.
func (p *packet) RecvMsg(b []byte, peek bool) (n, size int, m stacks.Message, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var first error
	for i := range p.ends {
		at := (p.turn + i) % len(p.ends)
		e := p.ends[at]
		n, size, m, err := e.packet.RecvMsg(b, peek && !e.deaf)
		if e.deaf {
			for err == nil {
				_, _, _, err = e.packet.RecvMsg(b, false)
			}
			continue
		}
		if errnoOf(err) == unix.EAGAIN {
			if first == nil {
				first = err
			}
			continue
		}
		if p.turn = at; !peek {
			p.turn = (at + 1) % len(p.ends)
		}
		if err == nil {
			p.outwardMsg(e, &m)
		}
		return n, size, m, err
	}
	if first == nil {
		first = unix.EAGAIN
	}
	return 0, 0, stacks.Message{}, first
}

// outwardMsg makes what came with a datagram the view's.
func (p *packet) outwardMsg(e *end, m *stacks.Message) {
	m.IfIndex = p.st.outer(e.net.n, m.IfIndex)
	m.Peer = p.st.outward(e.net.n, m.Peer)
}

// TakeReports tells what all networks say.
func (p *packet) TakeReports() (pending unix.Errno, queue []stacks.Report) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.ends {
		r, ok := e.ep.(stacks.Reporter)
		if !ok {
			continue
		}
		errno, q := r.TakeReports()
		if pending == 0 {
			pending = errno
		}
		for i := range q {
			q[i].Dst = p.st.outward(e.net.n, q[i].Dst)
			p.outwardMsg(e, &q[i].Msg)
		}
		queue = append(queue, q...)
	}
	return pending, queue
}

// Peer is that of a raw socket.
func (p *packet) Peer() netip.Addr {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.peer()
}

func (p *packet) peer() netip.Addr {
	if r, ok := p.main.Load().ep.(stacks.Peered); ok {
		return r.Peer()
	}
	_, remote := p.main.Load().ep.Names()
	return remote.Addr()
}
