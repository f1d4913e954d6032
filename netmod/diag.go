// SPDX-License-Identifier: Apache-2.0

// The sockets of the view, for ss(8): what the module knows joined with what the
// stack knows.

package netmod

import (
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"umrun/netmod/sockdiag"
	"umrun/stacks"
)

// endpointKey is what a socket and its endpoint have in common.
type endpointKey struct {
	proto         int
	local, remote netip.AddrPort
}

func keyOf(proto int, local, remote netip.AddrPort) endpointKey {
	plain := func(a netip.AddrPort) netip.AddrPort {
		if !a.IsValid() || a.Port() == 0 {
			return netip.AddrPort{}
		}
		return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
	}
	return endpointKey{proto, plain(local), plain(remote)}
}

// listSockets tells of every socket that occupies a port. Those of the stack that
// the program does not hold (it has not accepted them yet, or has closed them)
// have no inode. No mutex of an inet socket is held by the caller.
func (m *Module) listSockets() []sockdiag.Socket {
	var ends []stacks.Endpoint
	lister, listed := m.stack.(stacks.Lister)
	if listed {
		ends = lister.Endpoints()
	}
	byKey := make(map[endpointKey][]int, len(ends))
	for i, e := range ends {
		k := keyOf(e.Proto, e.Local, e.Remote)
		byKey[k] = append(byKey[k], i)
	}

	m.mu.Lock()
	socks := make([]socket, 0, len(m.sockets))
	for _, s := range m.sockets {
		if f := s.common().family; f == unix.AF_INET || f == unix.AF_INET6 {
			socks = append(socks, s)
		}
	}
	m.mu.Unlock()

	var out []sockdiag.Socket
	unread := m.unread(socks)
	for _, s := range socks {
		d, k, own, ok := describe(s, unread)
		if !ok {
			continue
		}
		if at := byKey[k]; len(at) > 0 {
			byKey[k] = at[1:]
			e := &ends[at[0]]
			if !own {
				d.State = e.State
			}
			d.RecvQ += e.RecvQ
			d.Timer = e.Timer
			if d.Proto == unix.IPPROTO_UDP {
				d.SendQ += e.SendQ
			}
			e.Proto = 0 // told
		} else if listed && !own {
			continue // it holds no port: not bound, or dead
		}
		d.SendQ += unheard(&d.Endpoint)
		out = append(out, d)
	}
	for _, e := range ends {
		if e.Proto != 0 {
			e.SendQ += unheard(&e)
			out = append(out, sockdiag.Socket{Endpoint: e})
		}
	}
	return out
}

// unheard is 1 if a SYN or a FIN is not acknowledged, which the kernel counts as a byte.
func unheard(e *stacks.Endpoint) int {
	if e.Proto == unix.IPPROTO_TCP {
		switch e.State {
		case sockdiag.SynSent, sockdiag.FinWait1, sockdiag.Closing, sockdiag.LastAck:
			return 1
		}
	}
	return 0
}

// unread is what lies in the placeholders of streams, by cookie; nil if there are none,
// or the kernel does not tell.
func (m *Module) unread(socks []socket) map[uint64]int {
	if !slices.ContainsFunc(socks, func(s socket) bool { _, ok := s.(*stream); return ok }) {
		return nil
	}
	bytes, err := unread()
	if err != nil {
		m.warnOnce("unread", "queues of sockets are told by their memory", "err", err)
	}
	return bytes
}

// tcpStateOf is the state of a stream as far as the module knows it.
func tcpStateOf(s *stream) int {
	switch s.state {
	case connecting:
		return sockdiag.SynSent
	case listening:
		return sockdiag.Listen
	case connected:
		switch {
		case s.finSent && s.downEOF:
			return sockdiag.LastAck
		case s.finSent:
			return sockdiag.FinWait1
		case s.downEOF:
			return sockdiag.CloseWait
		}
		return sockdiag.Established
	}
	return sockdiag.Close
}

// describe tells what the module knows of a socket, and by which key the stack
// knows its endpoint. own: the endpoint's state is not the socket's. !ok: ss does
// not show it. unread is what streams have in their placeholders.
func describe(s socket, unread map[uint64]int) (d sockdiag.Socket, k endpointKey, own, ok bool) {
	b := s.common()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.gone {
		return d, k, false, false
	}
	d.Family, d.Cookie, d.Inode, d.UID = b.family, b.cookie, uint32(b.inode), b.uid
	d.Local, d.Remote = b.ep.Names()
	switch s := s.(type) {
	case *stream:
		d.Proto, d.State = unix.IPPROTO_TCP, tcpStateOf(s)
		k = keyOf(d.Proto, d.Local, d.Remote)
		switch {
		case s.state == fresh || s.state == failed:
			return d, k, false, false
		case s.state == listening:
			d.Remote = netip.AddrPort{}
			k = keyOf(d.Proto, d.Local, d.Remote)
			d.RecvQ, d.SendQ = len(s.queue.ready), s.queue.backlog
		default:
			if s.remote.IsValid() {
				d.Remote = s.remote
			}
			d.SendQ = max(0, s.unsentLocked())
		}
		if s.local.IsValid() {
			d.Local = s.local
		}
		own = s.stubbed
		d.Info, d.Congestion = option(b.ep, unix.IPPROTO_TCP, unix.TCP_INFO), cString(option(b.ep, unix.IPPROTO_TCP, unix.TCP_CONGESTION))
	case *packet:
		if b.typ == unix.SOCK_RAW {
			describeRaw(&d, b.ep, b.proto)
			own = true
			break
		}
		if !s.isUDP() || d.Local.Port() == 0 {
			return d, k, false, false
		}
		d.Proto, d.State = unix.IPPROTO_UDP, sockdiag.Close
		k = keyOf(d.Proto, d.Local, d.Remote)
		if d.Remote.IsValid() {
			d.State = sockdiag.Established
		}
		if s.stubPeer.IsValid() {
			d.Local, d.Remote, d.State, own = s.stubLocal(d.Local), s.stubPeer, sockdiag.Established, true
		}
	default:
		return d, k, false, false
	}
	if n, ok := unread[b.cookie]; ok {
		d.RecvQ += n
	} else if b.peer >= 0 {
		// What lies in the placeholder, in bytes of memory, as the kernel counts
		// datagrams.
		if n, err := unix.IoctlGetInt(b.peer, unix.TIOCOUTQ); err == nil {
			d.RecvQ += n
		}
	}
	if u, ok := b.ep.(stacks.Unlisted); ok && u.Unlisted() {
		own = true // nobody else tells of it
	}
	d.RcvBuf, d.SndBuf = intOption(b.ep, unix.SOL_SOCKET, unix.SO_RCVBUF), intOption(b.ep, unix.SOL_SOCKET, unix.SO_SNDBUF)
	if v := option(b.ep, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY); b.family == unix.AF_INET6 && len(v) >= 4 {
		d.V6Only = native.Uint32(v) != 0
	}
	return d, k, own, true
}

// describeRaw tells a raw socket, whose protocol stands where others have a port.
func describeRaw(d *sockdiag.Socket, ep stacks.Socket, proto int) {
	d.Proto, d.State = unix.IPPROTO_RAW, sockdiag.Close
	if p, ok := ep.(stacks.Peered); ok && p.Peer().IsValid() {
		d.State = sockdiag.Established
		d.Remote = netip.AddrPortFrom(p.Peer(), 0)
	}
	a := d.Local.Addr()
	if !a.IsValid() {
		a = netip.IPv4Unspecified()
		if d.Family == unix.AF_INET6 {
			a = netip.IPv6Unspecified()
		}
	}
	d.Local = netip.AddrPortFrom(a, uint16(proto))
}

// listNetlink tells of the netlink sockets that have a name.
func (m *Module) listNetlink() []sockdiag.Netlink {
	m.mu.Lock()
	all := make(map[*netlink]sockdiag.Netlink)
	for cookie, s := range m.sockets {
		p, ok := s.(*packet)
		if !ok {
			continue
		}
		if n, ok := p.pkt.(*netlink); ok {
			all[n] = sockdiag.Netlink{Type: p.typ, Protocol: n.proto, Cookie: cookie, Inode: uint32(p.inode)}
		}
	}
	m.mu.Unlock()
	var out []sockdiag.Netlink
	for n, d := range all {
		// The socket that asks holds its own mutex: what is looked at is not under
		// it. What lies in the placeholder is not counted.
		d.RcvBuf, d.SndBuf = intOption(n, unix.SOL_SOCKET, unix.SO_RCVBUF), intOption(n, unix.SOL_SOCKET, unix.SO_SNDBUF)
		n.mu.Lock()
		d.Port, d.Groups = n.port, n.groups
		for _, q := range n.queue {
			d.RecvQ += len(q.data)
		}
		n.mu.Unlock()
		if d.Port != 0 {
			out = append(out, d)
		}
	}
	return out
}

// listPackets tells of the packet sockets.
func (m *Module) listPackets() []sockdiag.Packet {
	m.mu.Lock()
	all := make(map[*afpacket]sockdiag.Packet)
	for cookie, s := range m.sockets {
		if p, ok := s.(*packet); ok {
			if a, ok := p.pkt.(*afpacket); ok {
				all[a] = sockdiag.Packet{Type: p.typ, Cookie: cookie, Inode: uint32(p.inode), UID: p.uid}
			}
		}
	}
	m.mu.Unlock()
	var out []sockdiag.Packet
	for a, d := range all {
		d.RcvBuf, d.SndBuf = intOption(a, unix.SOL_SOCKET, unix.SO_RCVBUF), intOption(a, unix.SOL_SOCKET, unix.SO_SNDBUF)
		a.mu.Lock()
		d.Protocol, d.IfIndex, d.RecvQ = a.proto, a.ifIndex, a.size
		a.mu.Unlock()
		out = append(out, d)
	}
	return out
}

// intOption is option for an int, 0 if there is none.
func intOption(ep stacks.Socket, level, name int) int {
	if v := option(ep, level, name); len(v) >= 4 {
		return int(int32(native.Uint32(v)))
	}
	return 0
}

// option asks an endpoint for an option; nil if it has none.
func option(ep stacks.Socket, level, name int) []byte {
	var v [256]byte
	n, err := ep.Option(level, name, v[:])
	if err != nil {
		return nil
	}
	return v[:n:n]
}

// cString is the string before the first zero.
func cString(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}
