// SPDX-License-Identifier: Apache-2.0

// An upstream in the host's place: connections and datagrams that go through a
// proxy.

package nat

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

const (
	// maxWaiting bounds the datagrams that wait for a port to be opened.
	maxWaiting = 32

	// notAgain is for how long a port that the upstream has refused is not asked
	// for again: its datagrams are answered at once.
	notAgain = 2 * time.Second
)

// unreachProhibited says that a network does not carry such packets. Unlike that
// of unreachNet, its code is told to UDP sockets as to TCP's (RFC 1812 §5.2.7.1;
// net/ipv4/icmp.c:icmp_err_convert).
var unreachProhibited = reason{3, 9, 1, 1}

// A port is a UDP port of the view on an upstream; a mapping without a socket of
// the host. Opening one takes a while: what is sent meanwhile waits.
type port struct {
	m *mapping

	mu      sync.Mutex
	conn    stacks.UpstreamPackets // +checklocks:mu, nil: not open yet, or refused
	err     error                  // +checklocks:mu, why it is refused
	waiting []datagram             // +checklocks:mu, copies
	closed  chan struct{}          // by close
	once    sync.Once
}

func (m *mapping) openUpstream() error {
	m.up = &port{m: m, closed: make(chan struct{})}
	return nil
}

// sendUpstream sends a valid UDP datagram on its way. It does not block.
func (l *Link) sendUpstream(from, to addrPort, d datagram) {
	key := mapKey{proto: protoUDP, src: from}
	if l.opts.Upstream.Apart(to) {
		key.dst = to
	}
	m, err := l.maps.get(key, (*mapping).openUpstream)
	if err != nil {
		return // closed
	}
	m.last.Store(l.maps.now())
	if to.Port() != dnsPort && m.kind.Load() != usedLong {
		m.kind.Store(usedLong)
	}
	p := m.up
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.err != nil:
		l.unreachable(d, upstreamReason(p.err))
	case p.conn != nil:
		p.writeLocked(d)
	case len(p.waiting) >= maxWaiting:
		l.stats.lost.Add(1)
	default:
		d.packet, d.payload = bytes.Clone(d.packet[:min(len(d.packet), 1280)]), bytes.Clone(d.payload)
		p.waiting = append(p.waiting, d)
	}
}

// writeLocked hands a datagram to the upstream.
//
// +checklocks:p.mu
func (p *port) writeLocked(d datagram) {
	to := netip.AddrPortFrom(d.dst, binary.BigEndian.Uint16(d.payload[2:]))
	err := p.conn.WriteTo(d.payload[udpHdr:], to)
	switch {
	case err == nil:
	case errors.Is(err, unix.EAGAIN):
		p.m.l.stats.lost.Add(1)
	default:
		p.m.l.unreachable(d, upstreamReason(err))
	}
}

// run opens the port, passes on what arrives until it is closed, and answers what
// waited if it cannot be opened.
func (p *port) run() {
	l := p.m.l
	defer l.wg.Done()
	defer l.maps.remove(p.m)
	conn, err := l.opts.Upstream.ListenPacket(l.ctx, p.m.key.dst)
	p.mu.Lock()
	p.conn, p.err = conn, err
	for _, d := range p.waiting {
		if err != nil {
			l.unreachable(d, upstreamReason(err))
		} else {
			p.writeLocked(d)
		}
	}
	p.waiting = nil
	p.mu.Unlock()
	if err != nil {
		l.log.Debug("upstream opens no UDP port", "err", err)
		select {
		case <-p.closed:
		case <-time.After(notAgain):
		}
		return
	}
	done := make(chan struct{})
	defer close(done)
	l.wg.Add(1)
	go func() { // close is called with locks that conn.Close may not wait under
		defer l.wg.Done()
		select {
		case <-p.closed:
		case <-done:
		}
		_ = conn.Close()
	}()
	buf := readBufs.Get().(*[maxIP]byte)
	defer readBufs.Put(buf)
	for {
		n, src, err := conn.ReadFrom(buf[:])
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				l.log.Debug("upstream closed a UDP port", "err", err)
			}
			return
		}
		p.m.last.Store(l.maps.now())
		if from := src.Addr(); from.Is4() == p.m.key.src.Addr().Is4() && from.IsValid() && !ours(from) {
			l.sendUDP(src, p.m.key.src, buf[:n], true)
		} else {
			l.stats.ignored.Add(1)
		}
	}
}

// close ends run.
func (p *port) close() { p.once.Do(func() { close(p.closed) }) }

// Undelivered sums what is carried for all connections, for a stack that cannot tell
// which of them it has left; see [stacks.Lingerer].
func (l *Link) Undelivered() (bytes, waiting int) {
	l.flows.mu.Lock()
	defer l.flows.mu.Unlock()
	for f := range l.flows.flows {
		if n := f.carried(); n > 0 {
			bytes += n - 1
			waiting++
		}
	}
	return bytes, waiting
}

var _ stacks.Lingerer = (*Link)(nil)

// upstreamReason says which ICMP error tells err to the sender of a datagram.
func upstreamReason(err error) reason {
	if why, ok := reasonOf(err); ok && why != unreachNet {
		return why
	}
	return unreachProhibited
}
