// SPDX-License-Identifier: Apache-2.0

// ICMP messages about connections that are being made.

package netstack_test

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"umrun/stacks"
)

// TestSYNError: a message ends the attempt if it quotes the SYN, and not if whoever
// made it has never seen that.
func TestSYNError(t *testing.T) {
	s, far := newEther(t, macA, "10.9.0.1/24")
	write(t, far, arp(macAll, macB, 1, "10.9.0.2", "10.9.0.1", macNone)...)
	k, err := s.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if err := k.Connect(netip.MustParseAddrPort("10.9.0.2:9")); err != unix.EINPROGRESS {
		t.Fatal(err)
	}
	var syn []byte
	frames(t, far, unix.ETH_P_IP, func(f []byte) bool {
		if header.IPv4(f[14:]).Protocol() != unix.IPPROTO_TCP {
			return false
		}
		syn = slices.Clone(f[14:])
		return true
	})
	// exceeded is "time exceeded" by 10.9.0.by about the SYN with d added to its number.
	exceeded := func(d uint32, by byte) []byte {
		quoted := slices.Clone(syn)
		h := header.TCP(header.IPv4(quoted).Payload())
		h.SetSequenceNumber(h.SequenceNumber() + d)
		ip := header.IPv4(make([]byte, header.IPv4MinimumSize+header.ICMPv4MinimumSize, 100))
		ip.Encode(&header.IPv4Fields{TotalLength: uint16(len(ip) + len(quoted)), TTL: 64, Protocol: unix.IPPROTO_ICMP,
			SrcAddr: tcpip.AddrFrom4([4]byte{10, 9, 0, by}), DstAddr: tcpip.AddrFrom4([4]byte{10, 9, 0, 1})})
		ip.SetChecksum(^ip.CalculateChecksum())
		b := append([]byte(ip), quoted...)
		icmp := header.ICMPv4(b[header.IPv4MinimumSize:])
		icmp.SetType(header.ICMPv4TimeExceeded)
		icmp.SetChecksum(header.ICMPv4Checksum(icmp, 0))
		hw := func(s string) []byte { m, _ := net.ParseMAC(s); return m }
		return slices.Concat(hw(macA), hw(macB), []byte{8, 0}, b)
	}
	for _, d := range []uint32{2, 1 << 31, ^uint32(0)} {
		write(t, far, exceeded(d, 8)...)
	}
	write(t, far, exceeded(0, 7)...)
	for end := time.Now().Add(10 * time.Second); k.Poll()&unix.POLLERR == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the attempt goes on")
		}
	}
	_, queue := k.(stacks.Reporter).TakeReports()
	if len(queue) != 1 || queue[0].Errno != unix.EHOSTUNREACH || queue[0].Offender != netip.MustParseAddr("10.9.0.7") {
		t.Errorf("the error queue has %+v", queue)
	}
}
