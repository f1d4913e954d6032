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
	"umrun/stacks/netstack"
	"umrun/stacks/pipe"
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
	exceeded := func(d uint32, by byte) []byte {
		hw := func(s string) []byte { m, _ := net.ParseMAC(s); return m }
		return slices.Concat(hw(macA), hw(macB), []byte{8, 0}, exceeded(syn, d, by))
	}
	for _, d := range []uint32{2, 1 << 31, ^uint32(0)} {
		write(t, far, exceeded(d, 8)...)
	}
	write(t, far, exceeded(0, 7)...)
	givesUp(t, k)
}

// givesUp expects the attempt of k to end by the message of 10.9.0.7 alone.
func givesUp(t *testing.T, k stacks.Socket) {
	t.Helper()
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

// exceeded is "time exceeded" by 10.9.0.by about a SYN with d added to its number.
func exceeded(syn []byte, d uint32, by byte) []byte {
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
	return b
}

// A hastyLink answers what is written before the writer goes on.
type hastyLink struct {
	*pipe.End
	answer func(packet []byte)
	got    bool // Read has returned a packet: it was dealt with when the next Read comes
	dealt  chan bool
}

func (l *hastyLink) TryWrite(bufs [][]byte) int {
	for _, b := range bufs {
		l.answer(b)
	}
	return len(bufs)
}

func (l *hastyLink) Read(bufs [][]byte, sizes []int) (int, error) {
	if l.got {
		l.dealt <- true
	}
	n, err := l.End.Read(bufs, sizes)
	l.got = n > 0
	return n, err
}

// TestSYNErrorAtOnce: a message that is there before connect knows of its own port.
func TestSYNErrorAtOnce(t *testing.T) {
	near, far := pipe.New(pipe.Config{})
	defer far.Close()
	l := &hastyLink{End: near, dealt: make(chan bool, 1)}
	first := true // the SYN; what is sent again is not answered
	l.answer = func(packet []byte) {
		if ip := header.IPv4(packet); first && ip.Protocol() == unix.IPPROTO_TCP {
			first = false
			write(t, far, exceeded(ip, 0, 7)...)
			select {
			case <-l.dealt:
			case <-time.After(10 * time.Second):
				t.Error("the stack does not read while it writes")
			}
		}
	}
	s, err := netstack.New(netstack.Config{Links: []stacks.LinkConfig{{Name: "tun0", Link: l, Addrs: prefixes("10.9.0.1/24")}}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	k, err := s.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if err := k.Connect(netip.MustParseAddrPort("10.9.0.2:9")); err != unix.EINPROGRESS {
		t.Fatal(err)
	}
	givesUp(t, k)
}
