// SPDX-License-Identifier: Apache-2.0

// Sending datagrams.

package netstack

import (
	"bytes"
	"math"
	"net/netip"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"umrun/stacks"
)

// SendMsg sends one datagram.
func (s *packetSocket) SendMsg(p []byte, m stacks.Message) error {
	if err := s.down(); err != nil {
		return err
	}
	var o tcpip.WriteOptions
	var v course
	v4 := s.family == unix.AF_INET
	if m.Peer.IsValid() {
		if m.Peer.Port() == 0 && s.proto == unix.IPPROTO_UDP {
			return unix.EINVAL
		}
		f, err := s.destination(m.Peer)
		if err != nil {
			return err
		}
		if err := s.sendScope(&f, m.Peer.Addr()); err != nil {
			return err
		}
		if m.IfIndex != 0 && f.NIC == 0 {
			f.NIC = tcpip.NICID(m.IfIndex)
		}
		s.mu.Lock()
		if f.NIC == 0 {
			f.NIC = s.stickyIf(m.Peer.Addr())
		}
		unreachable := s.noGroups(f)
		if f.NIC == 0 && !m.Peer.Addr().IsMulticast() {
			f.NIC = s.unicastIf(m.Peer.Addr())
		}
		s.mu.Unlock()
		if unreachable {
			return unix.ENETUNREACH
		}
		if v, err = s.steer(&f, &m, false); err != nil {
			return err
		}
		o.To = &f
		v4 = v4 || m.Peer.Addr().Unmap().Is4()
	} else if f, gerr := s.endpoint().GetRemoteAddress(); gerr == nil && f.Addr.Len() > 0 {
		v4 = v4 || addrOf(unix.AF_INET, f.Addr, 0).Unmap().Is4()
		was := f.NIC
		if to := addrOf(unix.AF_INET, f.Addr, 0); !to.IsLinkLocalUnicast() && !to.IsMulticast() {
			f.NIC = 0 // where connect(2) found its way, and not what it was bound to
		}
		m.Marked = m.Marked && v4 // net/ipv6/udp.c: the route is that of connect(2)
		var err error
		if v, err = s.steer(&f, &m, false); err != nil {
			return err
		}
		if f.NIC != 0 && f.NIC != was && !s.st.policy.Load().plain {
			o.To = &f // rules may have changed since
		}
	}
	var err error
	s.st.by(v, func() { err = s.send(p, m, o, v4) })
	return err
}

// send sends one datagram, to the peer or to o.To.
func (s *packetSocket) send(p []byte, m stacks.Message, o tcpip.WriteOptions, v4 bool) error {
	segment := max(m.Segment, -1)
	if segment == 0 {
		segment = int(s.segment.Load())
	}
	if segment > 0 && s.proto != unix.IPPROTO_UDP {
		segment = 0
	}
	var narrow int
	var err error
	if segment > 0 {
		err = s.checkSegment(len(p), segment, v4, o.To)
	} else {
		narrow, err = s.checkSize(len(p), v4, o.To)
	}
	if err != nil {
		return err
	}
	if m.TTL > 0 {
		o.ControlMessages.HasTTL, o.ControlMessages.TTL = true, uint8(m.TTL)
		o.ControlMessages.HasHopLimit, o.ControlMessages.HopLimit = true, uint8(m.TTL)
	}
	if m.IfIndex != 0 && !s.st.gv.HasNIC(tcpip.NICID(m.IfIndex)) {
		return unix.ENODEV
	}
	if !m.Local.IsValid() {
		m.Local = s.loopbackSource(m.Peer.Addr())
	}
	source := false // gVisor must be told the source, and cannot be
	if m.Local.IsValid() && !m.Local.IsUnspecified() {
		if source, err = s.chooseSource(&o, m, v4); err != nil {
			return err
		}
	}
	s.mu.Lock()
	wrShut := s.wrShut
	s.mu.Unlock()
	if wrShut {
		return unix.EPIPE
	}
	if e := s.takePending(); e != 0 {
		return e
	}
	if err := s.name(o.To != nil); err != nil {
		return err
	}
	send := func(p []byte) tcpip.Error {
		switch {
		case source:
			return s.writeFrom(p, o.To, m)
		case narrow != 0 && !v4:
			return s.writeFragments(p, o.To, m, narrow)
		}
		return s.write(p, o, m.TOS, v4, narrow != 0)
	}
	var gerr tcpip.Error
	if segment > 0 && len(p) > segment {
		gerr = s.sendSegments(p, segment, send)
	} else if gerr = send(p); noted(gerr) {
		gerr = send(p)
	}
	switch gerr.(type) {
	case nil:
		return nil
	case *tcpip.ErrHostUnreachable, *tcpip.ErrNetworkUnreachable: // no route; ICMP errors have other types
		if o.To != nil {
			return s.noRoute(*o.To)
		}
		return unix.ENETUNREACH
	}
	return errno(gerr)
}

// noted tells whether err is what gVisor notes itself of an ICMP message; it is
// in the socket's reports already (report.go), and the call may go on.
func noted(err tcpip.Error) bool {
	_, ok := err.(*tcpip.ErrConnectionRefused)
	return ok
}

// name binds a socket that is about to send to an address for the first time, as
// gVisor would: what is said about the datagram must find its way back.
func (s *packetSocket) name(addressed bool) error {
	if !addressed || s.reports.named.Load() {
		return nil
	}
	if s.localName().Port() == 0 {
		// Another thread may do the same; it is named then.
		if err := s.endpoint().Bind(tcpip.FullAddress{}); err != nil && s.localName().Port() == 0 {
			return errno(err)
		}
	}
	s.enroll()
	return nil
}

// chooseSource sets the source address of one datagram, IP_PKTINFO. gVisor does
// it for IPv6 only; other reports that this is IPv4 and that the route would
// choose another address than m.Local.
func (s *packetSocket) chooseSource(o *tcpip.WriteOptions, m stacks.Message, v4 bool) (other bool, err error) {
	local := m.Local.Unmap().WithZone("")
	if s.st.gv.CheckLocalAddress(0, protoOf(local), gvAddr(local)) == 0 {
		if v4 {
			return false, unix.ENETUNREACH // no address of this machine (ip_route_output_key_hash_rcu)
		}
		return false, unix.EINVAL
	}
	if !v4 {
		o.ControlMessages.HasIPv6PacketInfo = true
		o.ControlMessages.IPv6PacketInfo = tcpip.IPv6PacketInfo{
			Addr: gvAddr(local), NIC: tcpip.NICID(m.IfIndex),
		}
		return false, nil
	}
	if s.proto != unix.IPPROTO_UDP || !local.Is4() {
		return false, nil
	}
	if bound, _ := s.Names(); bound.Addr().Unmap() == local {
		return false, nil
	}
	r, gerr := s.route(o.To, tcpip.Address{})
	if gerr != nil {
		return false, nil // sending will say so
	}
	defer r.Release()
	return r.LocalAddress() != gvAddr(local), nil
}

// route returns the route of a datagram to an address, the peer if nil.
func (s *packetSocket) route(to *tcpip.FullAddress, local tcpip.Address) (*stack.Route, tcpip.Error) {
	dst := tcpip.FullAddress{}
	if to != nil {
		dst = *to
	} else if f, err := s.endpoint().GetRemoteAddress(); err == nil {
		dst = f
	} else {
		return nil, &tcpip.ErrDestinationRequired{}
	}
	a := addrOf(unix.AF_INET, dst.Addr, 0).Unmap()
	return s.st.gv.FindRoute(dst.NIC, local, gvAddr(a), protoOf(a), false)
}

// write hands a datagram to gVisor, which has a TOS or traffic class per socket
// only: datagrams with one of their own (above 0) are sent one at a time, and so are
// IPv4 datagrams that a router shall cut.
func (s *packetSocket) write(p []byte, o tcpip.WriteOptions, tos int, v4, cut bool) tcpip.Error {
	ep := s.endpoint()
	if tos <= 0 && !cut {
		s.sending.RLock()
		defer s.sending.RUnlock()
		_, err := ep.Write(bytes.NewReader(p), o)
		return err
	}
	s.sending.Lock()
	defer s.sending.Unlock()
	set := func(opt tcpip.SockOptInt, v int) (restore func(), err tcpip.Error) {
		old, err := ep.GetSockOptInt(opt)
		if err == nil {
			err = ep.SetSockOptInt(opt, v)
		}
		return func() { ep.SetSockOptInt(opt, old) }, err
	}
	if tos > 0 {
		opt := tcpip.IPv6TrafficClassOption
		if v4 {
			opt = tcpip.IPv4TOSOption
		}
		restore, err := set(opt, tos)
		if err != nil {
			return err
		}
		defer restore()
	}
	if cut {
		restore, err := set(tcpip.MTUDiscoverOption, int(tcpip.PMTUDiscoveryDont))
		if err != nil {
			return err
		}
		defer restore()
	}
	_, err := ep.Write(bytes.NewReader(p), o)
	return err
}

// checkSize returns EMSGSIZE for a datagram that IP cannot carry, or that may
// not be fragmented and is larger than the path takes. The latter is reported too
// (net/ipv4/ip_output.c:__ip_append_data, net/ipv6/ip6_output.c). narrow is the MTU
// of the path in bytes if the datagram fits the link, maybe in fragments, but not
// the path; and that of the link if it goes in fragments that routers may cut
// further, as those of IPv4 do (__ip_make_skb: no DF).
func (s *packetSocket) checkSize(n int, v4 bool, to *tcpip.FullAddress) (narrow int, err error) {
	limit, hdr := maxUDP6, header.IPv6MinimumSize
	if v4 {
		limit, hdr = maxUDP4, header.IPv4MinimumSize
	}
	if s.proto == unix.IPPROTO_UDP {
		hdr += header.UDPMinimumSize
	} else { // the header of ICMP is the program's
		limit += header.UDPMinimumSize
	}
	if n > limit && v4 && n > math.MaxUint16 { // net/ipv4/udp.c:udp_sendmsg
		return 0, unix.EMSGSIZE
	}
	if n <= limit && n+hdr <= s.st.minMTU() && !s.st.paths.known() {
		return 0, nil
	}
	s.mu.Lock()
	dontFrag := s.val(optKey{ip6, unix.IPV6_DONTFRAG}, 0) != 0 && !v4
	s.mu.Unlock()
	strategy := s.reports.strategy.Load()
	switch strategy {
	case unix.IP_PMTUDISC_DO, unix.IP_PMTUDISC_PROBE, unix.IP_PMTUDISC_INTERFACE:
		dontFrag = true
	}
	mayCut := !dontFrag && v4 && strategy == unix.IP_PMTUDISC_WANT
	if n <= limit && !dontFrag && !mayCut && !s.st.paths.known() {
		return 0, nil
	}
	dst, link, ok := s.pathMTU(to)
	mtu := link
	if ok && strategy < unix.IP_PMTUDISC_PROBE { // net/ip.h:ip_sk_use_pmtu
		mtu = s.st.paths.of(dst.Addr().Unmap().WithZone(""), link)
	}
	switch {
	case n > limit && !ok:
		return 0, unix.EMSGSIZE
	case n > limit:
	case !ok || n+hdr <= mtu:
		return 0, nil
	case !dontFrag && mtu < link, mayCut:
		return mtu, nil
	case !dontFrag:
		return 0, nil
	}
	if v4 && to != nil { // inet->inet_dport: that of the peer
		_, peer := s.Names()
		dst = netip.AddrPortFrom(dst.Addr(), peer.Port())
	}
	s.report(stacks.Report{Errno: unix.EMSGSIZE, Origin: unix.SO_EE_ORIGIN_LOCAL, Info: uint32(mtu), Dst: dst, Msg: noMessage}, false)
	return 0, unix.EMSGSIZE
}

// noMessage says nothing.
var noMessage = stacks.Message{TTL: -1, TOS: -1}
