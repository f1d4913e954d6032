// SPDX-License-Identifier: Apache-2.0

// Cases of datagram sockets that look at IP: fragments, groups, TTL, ICMP echo.

package stacktest

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

func udpDontFragment(t *testing.T, p Pair) {
	for _, b := range []netip.Addr{p.B4, p.B6} {
		s, addr := bindUDP(t, p.B, b)
		c := newUDP(t, p.A, family(b))
		hdr := 28
		if b.Is4() {
			setInt(t, c, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
		} else {
			setInt(t, c, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO)
			hdr = 48
		}
		wantErr(t, "connect", c.Connect(addr), nil)
		mtu := 0
		if b.Is4() {
			mtu = getInt(t, c, unix.IPPROTO_IP, unix.IP_MTU)
		} else {
			mtu = getInt(t, c, unix.IPPROTO_IPV6, unix.IPV6_MTU)
		}
		if mtu > 65507 {
			continue // the loopback interface takes any datagram
		}
		wantErr(t, "send one byte too much", c.SendMsg(make([]byte, mtu-hdr+1), stacks.Message{}), unix.EMSGSIZE)
		wantErr(t, "send just enough", c.SendMsg(make([]byte, mtu-hdr), stacks.Message{}), nil)
		if got, _ := recvMsg(t, s, 70000); len(got) != mtu-hdr {
			t.Errorf("got %d bytes, want %d", len(got), mtu-hdr)
		}
	}
}

func udpMulticast(t *testing.T, p Pair) {
	group := netip.AddrFrom4([4]byte{239, 1, 2, 3})
	s := newUDP(t, p.B, unix.AF_INET)
	if err := s.Bind(netip.AddrPortFrom(group, 0)); err != nil {
		t.Fatal(err)
	}
	mreq := func(iface netip.Addr) []byte {
		g, i := group.As4(), iface.As4()
		return append(g[:], i[:]...)
	}
	wantErr(t, "leave before join", s.SetOption(unix.IPPROTO_IP, unix.IP_DROP_MEMBERSHIP, mreq(p.B4)), unix.EADDRNOTAVAIL)
	wantErr(t, "join", s.SetOption(unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, mreq(p.B4)), nil)
	wantErr(t, "join again", s.SetOption(unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, mreq(p.B4)), unix.EADDRINUSE)
	c := newUDP(t, p.A, unix.AF_INET)
	out := p.A4.As4()
	wantErr(t, "IP_MULTICAST_IF", c.SetOption(unix.IPPROTO_IP, unix.IP_MULTICAST_IF, out[:]), nil)
	got := make([]byte, 4)
	if n, err := c.Option(unix.IPPROTO_IP, unix.IP_MULTICAST_IF, got); n != 4 || err != nil || !bytes.Equal(got, out[:]) {
		t.Errorf("IP_MULTICAST_IF %v, %v", got[:n], err)
	}
	sendMsg(t, c, []byte("to the group"), reach(s, group))
	if got, m := recvMsg(t, s, 100); string(got) != "to the group" || m.Local != group || m.TTL != 1 {
		t.Errorf("got %q, %+v", got, m)
	}
	wantErr(t, "leave", s.SetOption(unix.IPPROTO_IP, unix.IP_DROP_MEMBERSHIP, mreq(p.B4)), nil)

	// The same by interface index, struct group_req.
	_, m := func() ([]byte, stacks.Message) {
		u, addr := bindUDP(t, p.B, p.B4)
		sendMsg(t, c, []byte("x"), addr)
		return recvMsg(t, u, 10)
	}()
	req := make([]byte, 136)
	copy(req, i32(m.IfIndex))
	binary.NativeEndian.PutUint16(req[8:], unix.AF_INET)
	g := group.As4()
	copy(req[12:], g[:])
	wantErr(t, "join by index", s.SetOption(unix.IPPROTO_IP, unix.MCAST_JOIN_GROUP, req), nil)
	sendMsg(t, c, []byte("again"), reach(s, group))
	if got, _ := recvMsg(t, s, 100); string(got) != "again" {
		t.Errorf("got %q", got)
	}
	wantErr(t, "leave by index", s.SetOption(unix.IPPROTO_IP, unix.MCAST_LEAVE_GROUP, req), nil)
}

func udpMessage(t *testing.T, p Pair) {
	for _, b := range []netip.Addr{p.B4, p.B6} {
		s := newUDP(t, p.B, family(b))
		any := netip.IPv4Unspecified()
		if b.Is6() {
			any = netip.IPv6Unspecified()
		}
		if err := s.Bind(netip.AddrPortFrom(any, 0)); err != nil {
			t.Fatal(err)
		}
		c := newUDP(t, p.A, family(b))
		sendMsg(t, c, []byte("x"), reach(s, b))
		_, m := recvMsg(t, s, 10)
		if m.Local != b || m.IfIndex == 0 || m.TTL != 64 || m.TOS != 0 {
			t.Errorf("got %+v, want local %s, TTL 64, TOS 0", m, b)
		}
		if err := c.SendMsg([]byte("x"), stacks.Message{Peer: reach(s, b), TTL: 7, TOS: 0x22}); err != nil {
			t.Fatal(err)
		}
		if _, m := recvMsg(t, s, 10); m.TTL != 7 || m.TOS != 0x22 {
			t.Errorf("TTL %d, TOS %#x, want 7 and 0x22", m.TTL, m.TOS)
		}
		if b.Is4() {
			setInt(t, c, unix.IPPROTO_IP, unix.IP_TTL, 9)
			setInt(t, c, unix.IPPROTO_IP, unix.IP_TOS, 0x10)
		} else {
			setInt(t, c, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, 9)
			setInt(t, c, unix.IPPROTO_IPV6, unix.IPV6_TCLASS, 0x10)
		}
		sendMsg(t, c, []byte("x"), reach(s, b))
		if _, m := recvMsg(t, s, 10); m.TTL != 9 || m.TOS != 0x10 {
			t.Errorf("TTL %d, TOS %#x, want 9 and 0x10", m.TTL, m.TOS)
		}
	}
}

func pingEcho(t *testing.T, p Pair) {
	if !p.Ping {
		t.Skip("net.ipv4.ping_group_range does not let this user have ping sockets")
	}
	for _, b := range []netip.Addr{p.B4, p.B6, p.A4, p.A6} {
		proto, request, reply := unix.IPPROTO_ICMP, byte(8), byte(0)
		if b.Is6() {
			proto, request, reply = unix.IPPROTO_ICMPV6, 128, 129
		}
		s := newSocket(t, p.A, family(b), unix.SOCK_DGRAM, proto).(stacks.PacketSocket)
		if got := getInt(t, s, unix.SOL_SOCKET, unix.SO_PROTOCOL); got != proto {
			t.Errorf("SO_PROTOCOL %d", got)
		}
		msg := []byte{request, 0, 0xde, 0xad, 0xbe, 0xef, 0, 7, 'd', 'a', 't', 'a'}
		sendMsg(t, s, msg, netip.AddrPortFrom(b, 0))
		got, m := recvMsg(t, s, 100)
		local, _ := s.Names()
		// The identifier is the socket's port, whatever the program wrote.
		want := bytes.Clone(msg)
		want[0] = reply
		binary.BigEndian.PutUint16(want[4:], local.Port())
		if len(got) == len(want) {
			copy(want[2:4], got[2:4]) // the kernel has verified the checksum
		}
		if !bytes.Equal(got, want) || m.Peer.Addr() != b || m.Peer.Port() != 0 {
			t.Errorf("got % x from %s\nwant % x from %s", got, m.Peer, want, b)
		}
		wantErr(t, "send of another type", s.SendMsg([]byte{13, 0, 0, 0, 0, 0, 0, 0}, stacks.Message{Peer: netip.AddrPortFrom(b, 0)}), unix.EINVAL)
		wantErr(t, "send of a short message", s.SendMsg([]byte{request, 0, 0}, stacks.Message{Peer: netip.AddrPortFrom(b, 0)}), unix.EINVAL)
		wantErr(t, "connect", s.Connect(netip.AddrPortFrom(b, 0)), nil)
		if err := s.SendMsg(msg, stacks.Message{}); err != nil {
			t.Errorf("send when connected: %v", err)
		}
		if got, _ := recvMsg(t, s, 100); len(got) != len(msg) {
			t.Errorf("got % x", got)
		}
	}
}
