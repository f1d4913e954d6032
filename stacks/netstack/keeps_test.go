// SPDX-License-Identifier: Apache-2.0

// Packets without an owner that the policy keeps from leaving, or not.

package netstack

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"umrun/stacks"
)

// TestKeepsFragments: those of answers are judged, and not those whose whole was.
func TestKeepsFragments(t *testing.T) {
	var rules []stacks.Rule
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		rules = append(rules, stacks.Rule{Family: family, Action: stacks.RuleProhibit})
	}
	p := newPolicy(stacks.State{Rules: rules})
	for _, proto := range []uint8{unix.IPPROTO_UDP, unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6} {
		four := stack.NewPacketBuffer(stack.PacketBufferOptions{ReserveHeaderBytes: header.IPv4MinimumSize})
		defer four.DecRef()
		four.NetworkProtocolNumber = header.IPv4ProtocolNumber
		header.IPv4(four.NetworkHeader().Push(header.IPv4MinimumSize)).Encode(&header.IPv4Fields{Protocol: proto, Flags: header.IPv4FlagMoreFragments,
			SrcAddr: gvAddr(netip.MustParseAddr("10.0.0.1")), DstAddr: gvAddr(netip.MustParseAddr("10.0.0.2"))})
		six := stack.NewPacketBuffer(stack.PacketBufferOptions{ReserveHeaderBytes: header.IPv6MinimumSize + header.IPv6FragmentHeaderSize})
		defer six.DecRef()
		six.NetworkProtocolNumber = header.IPv6ProtocolNumber
		h := six.NetworkHeader().Push(header.IPv6MinimumSize + header.IPv6FragmentHeaderSize)
		header.IPv6(h).Encode(&header.IPv6Fields{TransportProtocol: header.IPv6FragmentHeader,
			SrcAddr: gvAddr(netip.MustParseAddr("fd00::1")), DstAddr: gvAddr(netip.MustParseAddr("fd00::2"))})
		h[header.IPv6MinimumSize] = proto
		for name, b := range map[string]*stack.PacketBuffer{"IPv4": four, "IPv6": six} {
			if got, want := p.keeps(b, firstLinkNIC), proto != unix.IPPROTO_UDP; got != want {
				t.Errorf("a fragment over %s of protocol %d: %t, want %t", name, proto, got, want)
			}
		}
	}
}
