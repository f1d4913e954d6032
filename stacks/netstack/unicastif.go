// SPDX-License-Identifier: Apache-2.0

// IP_UNICAST_IF, IPV6_UNICAST_IF and IPV6_PKTINFO: where datagrams leave that are not
// told so.

package netstack

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
)

// optUnicastIf is the option of a level. Its value is the index of an interface in
// the order of the network, 0 for any (ip(7)).
func optUnicastIf(level, nr int, name string) option {
	k := optKey{level, nr}
	return option{
		name: name,
		set: func(s *sock, ep tcpip.Endpoint, v []byte) error {
			if len(v) != 4 {
				return unix.EINVAL
			}
			n := int(int32(binary.BigEndian.Uint32(v)))
			dev := int(ep.SocketOptions().GetBindToDevice())
			switch {
			case n == 0:
			case !s.st.gv.HasNIC(tcpip.NICID(n)):
				return unix.EADDRNOTAVAIL
			case dev != 0 && dev != n:
				return unix.EINVAL
			}
			s.setVal(k, n)
			return nil
		},
		get: func(s *sock, _ tcpip.Endpoint) ([]byte, error) {
			return binary.BigEndian.AppendUint32(nil, uint32(s.val(k, 0))), nil
		},
	}
}

var stickyKey = optKey{ip6, unix.IPV6_PKTINFO}

// stickyInfo is the option IPV6_PKTINFO. Of the address in it Linux makes nothing
// (net/ipv6/ipv6_sockglue.c: sticky_pktinfo).
var stickyInfo = option{
	name: "IPV6_PKTINFO",
	set: func(s *sock, ep tcpip.Endpoint, v []byte) error {
		if len(v) < unix.SizeofInet6Pktinfo {
			return unix.EINVAL
		}
		n := int(int32(binary.NativeEndian.Uint32(v[16:])))
		if dev := s.device(); dev != 0 && int(dev) != n {
			return unix.EINVAL
		}
		s.setVal(stickyKey, n)
		return nil
	},
	get: func(*sock, tcpip.Endpoint) ([]byte, error) { return nil, unix.ENOPROTOOPT },
}

// stickyIf returns the interface that IPV6_PKTINFO says, 0 for any.
//
// +checklocks:s.mu
func (s *packetSocket) stickyIf(to netip.Addr) tcpip.NICID {
	if to.Unmap().Is4() || s.device() != 0 {
		return 0
	}
	return tcpip.NICID(s.val(stickyKey, 0))
}

// unicastIf returns the interface that datagrams to an address leave by, 0 for any.
//
// +checklocks:s.mu
func (s *packetSocket) unicastIf(to netip.Addr) tcpip.NICID {
	if to.Unmap().Is4() {
		return tcpip.NICID(s.val(optKey{ip4, unix.IP_UNICAST_IF}, 0))
	}
	return tcpip.NICID(s.val(optKey{ip6, unix.IPV6_UNICAST_IF}, 0))
}
