// SPDX-License-Identifier: Apache-2.0

// Ethernet: link headers, and which frames are for the stack.

package netstack

import (
	"crypto/rand"
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"umrun/stacks"
	"umrun/stacks/offload"
)

// vlanTag is what a frame may have besides its header and the MTU, bytes.
const vlanTag = 4

// minEtherType is the least EtherType; below it the field is a length (IEEE 802.3).
const minEtherType = 0x600

// newMAC makes up a locally administered unicast address.
func newMAC() net.HardwareAddr {
	mac := make(net.HardwareAddr, header.EthernetAddressSize)
	rand.Read(mac)
	mac[0] = mac[0]&^1 | 2
	return mac
}

// validMAC tells whether an interface may have the address (is_valid_ether_addr).
func validMAC(mac net.HardwareAddr) bool {
	return len(mac) == header.EthernetAddressSize && mac[0]&1 == 0 && string(mac) != string(make([]byte, len(mac)))
}

// linkLocal is the address that an interface has of itself: fe80::/64 and the modified
// EUI-64 of its MAC (RFC 4291, appendix A; net.ipv6.conf.*.addr_gen_mode 0).
func linkLocal(mac net.HardwareAddr) netip.Prefix {
	a := header.LinkLocalAddr(tcpip.LinkAddress(mac))
	return netip.PrefixFrom(netip.AddrFrom16(a.As16()), 64)
}

// A received is what came in by a link.
type received struct {
	hdr   offload.Hdr
	head  []byte // the link header, if there is one
	data  []byte // what follows
	proto tcpip.NetworkProtocolNumber
	kind  tcpip.PacketType
}

// unwrapIP reads the protocol of a packet without a link header; false if it is none.
func (f *received) unwrapIP() bool {
	if len(f.data) == 0 {
		return false
	}
	switch header.IPVersion(f.data) {
	case header.IPv4Version:
		f.proto = header.IPv4ProtocolNumber
	case header.IPv6Version:
		f.proto = header.IPv6ProtocolNumber
	default:
		return false
	}
	return true
}

// unwrap takes the link header off (net/ethernet/eth.c:eth_type_trans); false if it is
// not there whole.
func (e *endpoint) unwrap(f *received) bool {
	if len(f.data) < header.EthernetMinimumSize {
		return false
	}
	f.head, f.data = f.data[:header.EthernetMinimumSize], f.data[header.EthernetMinimumSize:]
	switch dst := f.head[:header.EthernetAddressSize]; {
	case string(dst) == string(*e.mac.Load()):
		f.kind = tcpip.PacketHost
	case string(dst) == string(header.EthernetBroadcastAddress):
		f.kind = tcpip.PacketBroadcast
	case dst[0]&1 != 0:
		f.kind = tcpip.PacketMulticast
	default:
		f.kind = tcpip.PacketOtherHost
	}
	f.proto = etherType(f.head)
	return true
}

// packetType is f's, PACKET_HOST and the like of linux/if_packet.h.
func (f *received) packetType() uint8 {
	switch f.kind {
	case tcpip.PacketBroadcast:
		return unix.PACKET_BROADCAST
	case tcpip.PacketMulticast:
		return unix.PACKET_MULTICAST
	case tcpip.PacketOtherHost:
		return unix.PACKET_OTHERHOST
	}
	return unix.PACKET_HOST
}

// etherType is the protocol of a frame; one with a length in its place is LLC's.
func etherType(head []byte) tcpip.NetworkProtocolNumber {
	t := binary.BigEndian.Uint16(head[2*header.EthernetAddressSize:])
	if t < minEtherType {
		t = unix.ETH_P_802_2
	}
	return tcpip.NetworkProtocolNumber(t)
}

// groupReport tells whether gVisor sends p to say which groups the stack is in, IGMP
// or MLD. Packets of raw sockets are marked.
func groupReport(p *stack.PacketBuffer) bool {
	if p.Mark == rawMark {
		return false
	}
	h := p.NetworkHeader().Slice()
	switch {
	case p.NetworkProtocolNumber == header.IPv4ProtocolNumber && len(h) >= header.IPv4MinimumSize:
		return header.IPv4(h).Protocol() == uint8(header.IGMPProtocolNumber)
	case p.NetworkProtocolNumber == header.IPv6ProtocolNumber && len(h) > header.IPv6MinimumSize:
		// RFC 2710 §3: behind a router alert.
		return header.IPv6(h).NextHeader() == unix.IPPROTO_HOPOPTS && h[header.IPv6MinimumSize] == unix.IPPROTO_ICMPV6 &&
			header.IPv6(h).HopLimit() == header.MLDHopLimit
	}
	return false
}

// rawMark marks what raw sockets send.
const rawMark = 1

// MaxHeaderLength implements stack.NetworkLinkEndpoint.
func (e *endpoint) MaxHeaderLength() uint16 {
	if e.ether {
		return header.EthernetMinimumSize
	}
	return 0
}

// LinkAddress implements stack.NetworkLinkEndpoint.
func (e *endpoint) LinkAddress() tcpip.LinkAddress {
	if mac := e.mac.Load(); mac != nil {
		return *mac
	}
	return ""
}

// SetLinkAddress implements stack.NetworkLinkEndpoint.
func (e *endpoint) SetLinkAddress(mac tcpip.LinkAddress) { e.mac.Store(&mac) }

// ARPHardwareType implements stack.NetworkLinkEndpoint.
func (e *endpoint) ARPHardwareType() header.ARPHardwareType {
	if e.ether {
		return header.ARPHardwareEther
	}
	return header.ARPHardwareNone
}

// AddHeader implements stack.NetworkLinkEndpoint. The source is the address of now:
// routes keep the one that was when they were made.
func (e *endpoint) AddHeader(p *stack.PacketBuffer) {
	if !e.ether {
		return
	}
	h := header.Ethernet(p.LinkHeader().Push(header.EthernetMinimumSize))
	h.Encode(&header.EthernetFields{SrcAddr: e.LinkAddress(), DstAddr: p.EgressRoute.RemoteLinkAddress, Type: p.NetworkProtocolNumber})
}

// ParseHeader implements stack.NetworkLinkEndpoint.
func (e *endpoint) ParseHeader(p *stack.PacketBuffer) bool {
	if !e.ether {
		return true
	}
	_, ok := p.LinkHeader().Consume(header.EthernetMinimumSize)
	return ok
}

// hardware is the ARPHRD_* of an interface.
func (s *Stack) hardware(nic tcpip.NICID) uint16 {
	if nic == loopbackNIC {
		return unix.ARPHRD_LOOPBACK
	}
	if e := s.links.of(int(nic)); e != nil && e.ether {
		return unix.ARPHRD_ETHER
	}
	return unix.ARPHRD_NONE
}

// checkMAC judges the address of an interface that is to be made.
func checkMAC(l *stacks.LinkConfig) bool {
	return l.MAC == nil || l.Link.Type() == stacks.LinkEthernet && validMAC(l.MAC)
}
