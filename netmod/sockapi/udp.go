// SPDX-License-Identifier: Apache-2.0

// Level IPPROTO_UDP.

package sockapi

import "golang.org/x/sys/unix"

var solUDP = []Option{
	{Name: "UDP_CORK", Number: unix.UDP_CORK, Access: Both, Support: Full},
	no("UDP_ENCAP", unix.UDP_ENCAP, "no IPsec"),
	no("UDP_NO_CHECK6_TX", unix.UDP_NO_CHECK6_TX, "not modelled"),
	no("UDP_NO_CHECK6_RX", unix.UDP_NO_CHECK6_RX, "not modelled"),
	{Name: "UDP_SEGMENT", Number: unix.UDP_SEGMENT, Access: Both, Support: Full},
	{Name: "UDP_GRO", Number: unix.UDP_GRO, Access: Both, Support: Full},
}
