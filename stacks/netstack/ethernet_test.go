// SPDX-License-Identifier: Apache-2.0

// Ethernet links: neighbours that answer, move or are not there, duplicate addresses,
// frames for others.

package netstack_test

import (
	"bytes"
	"encoding/binary"
	"errors"
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

// awaitUnique waits until every address of a stack can be used.
func awaitUnique(t testing.TB, s stacks.Stack) {
	t.Helper()
	changed := make(chan struct{}, 1)
	defer s.(stacks.Notifier).Notify(func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	})()
	deadline := time.After(10 * time.Second)
	for {
		tentative := false
		for _, i := range s.State().Interfaces {
			for _, info := range i.Info {
				tentative = tentative || info.Flags&unix.IFA_F_TENTATIVE != 0
			}
		}
		if !tentative {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatal("addresses stay tentative")
		}
	}
}

// newEther makes a stack on an end of an Ethernet pipe; the test has the other.
func newEther(t *testing.T, mac string, addrs ...string) (s *netstack.Stack, far *pipe.End) {
	t.Helper()
	a, b := pipe.New(pipe.Config{Ethernet: true})
	t.Cleanup(func() { b.Close() })
	hw, err := net.ParseMAC(mac)
	if err != nil {
		t.Fatal(err)
	}
	s, err = netstack.New(netstack.Config{Links: []stacks.LinkConfig{{Name: "eth0", Link: a, MAC: hw, Addrs: prefixes(addrs...)}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, b
}

// frames gives the frames of an EtherType that leave a stack to f, until f is satisfied.
func frames(t *testing.T, far *pipe.End, proto uint16, f func(frame []byte) bool) {
	t.Helper()
	stop := time.AfterFunc(10*time.Second, func() { far.Close() })
	defer stop.Stop()
	bufs, sizes := make([][]byte, 16), make([]int, 16)
	for i := range bufs {
		bufs[i] = make([]byte, 2000)
	}
	for {
		n, err := far.Read(bufs, sizes)
		if err != nil {
			t.Fatalf("what was awaited did not come: %v", err)
		}
		for i := range n {
			frame := bufs[i][:sizes[i]]
			if binary.BigEndian.Uint16(frame[12:]) == proto && f(frame) {
				return
			}
		}
	}
}

func write(t *testing.T, far *pipe.End, frame ...byte) {
	t.Helper()
	if _, err := far.Write([][]byte{frame}); err != nil {
		t.Fatal(err)
	}
}

// arp is a frame of ARP: op is 1 for a request, 2 for an answer.
func arp(dst, src string, op byte, sender, target string, targetMAC string) []byte {
	hw := func(s string) []byte { m, _ := net.ParseMAC(s); return m }
	ip := func(s string) []byte { return netip.MustParseAddr(s).AsSlice() }
	return slices.Concat(hw(dst), hw(src), []byte{8, 6, 0, 1, 8, 0, 6, 4, 0, op}, hw(src), ip(sender), hw(targetMAC), ip(target))
}

const (
	macA, macB, macC = "02:00:00:00:00:0a", "02:00:00:00:00:0b", "02:00:00:00:00:0c"
	macAll, macNone  = "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"
)

// TestNeighbour: a stack asks who has an address, waits for the answer with its
// datagram, answers itself, and follows a neighbour that moves.
func TestNeighbour(t *testing.T) {
	s, far := newEther(t, macA, "10.9.0.1/24")
	to := netip.MustParseAddrPort("10.9.0.2:9")
	goes := func(mac string) {
		t.Helper()
		if err := sends(t, s, to, netip.AddrPort{}); err != nil {
			t.Fatal(err)
		}
		want, _ := net.ParseMAC(mac)
		frames(t, far, unix.ETH_P_IP, func(f []byte) bool {
			if f[14+9] != unix.IPPROTO_UDP {
				return false // IGMP
			}
			if !bytes.Equal(f[:6], want) {
				t.Errorf("the datagram went to %v, want %s", net.HardwareAddr(f[:6]), mac)
			}
			return true
		})
	}
	if err := sends(t, s, to, netip.AddrPort{}); err != nil {
		t.Fatal(err)
	}
	frames(t, far, unix.ETH_P_ARP, func(f []byte) bool {
		if want := arp(macAll, macA, 1, "10.9.0.1", "10.9.0.2", macNone); !bytes.Equal(f, want) {
			t.Errorf("got the request\n%x, want\n%x", f, want)
		}
		return true
	})
	write(t, far, arp(macA, macB, 2, "10.9.0.2", "10.9.0.1", macA)...)
	goes(macB)

	asks := func() {
		t.Helper()
		write(t, far, arp(macAll, macC, 1, "10.9.0.77", "10.9.0.1", macNone)...)
		frames(t, far, unix.ETH_P_ARP, func(f []byte) bool {
			if want := arp(macC, macA, 2, "10.9.0.1", "10.9.0.77", macC); !bytes.Equal(f, want) {
				t.Errorf("got the answer\n%x, want\n%x", f, want)
			}
			return true
		})
	}
	asks()

	// Not at once: net.ipv4.neigh.*.locktime.
	write(t, far, arp(macA, macC, 2, "10.9.0.2", "10.9.0.1", macA)...)
	goes(macB)
	moved := time.Now().Add(1100 * time.Millisecond)
	await(t, func() bool { return time.Now().After(moved) })
	write(t, far, arp(macAll, macC, 1, "10.9.0.2", "10.9.0.2", macNone)...) // gratuitous
	asks()                                                                  // that was read, then
	if err := sends(t, s, to, netip.AddrPort{}); err != nil {
		t.Fatal(err)
	}
	frames(t, far, unix.ETH_P_ARP, func(f []byte) bool { return f[21] == 1 })
	write(t, far, arp(macA, macC, 2, "10.9.0.2", "10.9.0.1", macA)...)
	goes(macC)
}

// TestEchoToAll: an echo request that is for everybody is not answered
// (net.ipv4.icmp_echo_ignore_broadcasts), one for the stack is.
func TestEchoToAll(t *testing.T) {
	_, far := newEther(t, macA, "10.9.0.1/24")
	echo := func(mac, to string, seq byte) []byte {
		dst, _ := net.ParseMAC(mac)
		src, _ := net.ParseMAC(macB)
		ip := header.IPv4(make([]byte, header.IPv4MinimumSize+header.ICMPv4MinimumSize))
		ip.Encode(&header.IPv4Fields{TotalLength: uint16(len(ip)), TTL: 64, Protocol: unix.IPPROTO_ICMP,
			SrcAddr: tcpip.AddrFrom4([4]byte{10, 9, 0, 2}), DstAddr: tcpip.AddrFromSlice(netip.MustParseAddr(to).AsSlice())})
		ip.SetChecksum(^ip.CalculateChecksum())
		icmp := header.ICMPv4(ip.Payload())
		icmp.SetType(header.ICMPv4Echo)
		icmp.SetSequence(uint16(seq))
		icmp.SetChecksum(header.ICMPv4Checksum(icmp, 0))
		return slices.Concat(dst, src, []byte{8, 0}, []byte(ip))
	}
	write(t, far, arp(macA, macB, 2, "10.9.0.2", "10.9.0.1", macA)...)
	write(t, far, arp(macAll, macB, 1, "10.9.0.2", "10.9.0.1", macNone)...)
	write(t, far, echo(macAll, "10.9.0.255", 1)...)
	write(t, far, echo(macAll, "255.255.255.255", 2)...)
	write(t, far, echo("01:00:5e:00:00:01", "224.0.0.1", 3)...)
	write(t, far, echo(macA, "10.9.0.1", 4)...)
	frames(t, far, unix.ETH_P_IP, func(f []byte) bool {
		if f[14+9] != unix.IPPROTO_ICMP {
			return false // IGMP
		}
		if seq := f[len(f)-1]; seq != 4 {
			t.Errorf("the request %d was answered", seq)
			return false
		}
		return true
	})
}

// TestNoNeighbour: after three requests, a second apart, the connection fails, and the
// error queue of a datagram socket says the same (net/ipv4/arp.c:arp_error_report).
func TestNoNeighbour(t *testing.T) {
	s, _ := newEther(t, macA, "10.9.0.1/24", "fd09::1/64")
	awaitUnique(t, s)
	for _, tt := range []struct {
		name   string
		family int
		level  int
		opt    int
		to     string
	}{
		{"v4", unix.AF_INET, unix.SOL_IP, unix.IP_RECVERR, "10.9.0.66:9"},
		{"v6", unix.AF_INET6, unix.SOL_IPV6, unix.IPV6_RECVERR, "[fd09::66]:9"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			to := netip.MustParseAddrPort(tt.to)
			c, err := s.Socket(tt.family, unix.SOCK_STREAM, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			u, err := s.Socket(tt.family, unix.SOCK_DGRAM, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer u.Close()
			if err := u.SetOption(tt.level, tt.opt, []byte{1, 0, 0, 0}); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			if err := c.Connect(to); !errors.Is(err, unix.EINPROGRESS) {
				t.Fatal(err)
			}
			if err := u.(stacks.PacketSocket).SendMsg([]byte("x"), stacks.Message{Peer: to, TTL: -1, TOS: -1}); err != nil {
				t.Fatal(err)
			}
			await(t, func() bool { return c.Poll()&unix.POLLERR != 0 && u.Poll()&unix.POLLERR != 0 })
			if took := time.Since(start); took < 2900*time.Millisecond || took > 4*time.Second {
				t.Errorf("it took %v, Linux takes 3 s", took)
			}
			if err := c.Connect(to); !errors.Is(err, unix.EHOSTUNREACH) {
				t.Errorf("connect: %v, want EHOSTUNREACH", err)
			}
			e, queue := u.(stacks.Reporter).TakeReports()
			if e != unix.EHOSTUNREACH || len(queue) != 1 || queue[0].Errno != unix.EHOSTUNREACH || queue[0].Dst != to || string(queue[0].Payload) != "x" {
				t.Errorf("pending %v, queue %+v", e, queue)
			}
		})
	}
}

// TestDuplicate: an address that somebody else defends is told as such, and unused.
func TestDuplicate(t *testing.T) {
	p := newPair(t, pipe.Config{Ethernet: true}, nil)
	dup := netip.PrefixFrom(b6.Addr(), 64)
	flags := func() uint32 { return p.A.State().Interfaces[1].Info[dup].Flags }
	add := func(st *stacks.State) {
		st.Interfaces[1].Addrs = append(st.Interfaces[1].Addrs, dup)
	}
	if err := change(t, p.A, add); err != nil {
		t.Fatal(err)
	}
	if got := flags(); got&unix.IFA_F_TENTATIVE == 0 { // it may have failed already
		t.Errorf("flags %#x of a new address", got)
	}
	await(t, func() bool { return flags() == unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED })
	if err := sends(t, p.A, netip.AddrPortFrom(p.B6, 9), netip.AddrPortFrom(dup.Addr(), 7)); !errors.Is(err, unix.EADDRNOTAVAIL) {
		t.Errorf("bind to it: %v", err)
	}
	if err := change(t, p.A, func(st *stacks.State) {
		st.Interfaces[1].Addrs = slices.DeleteFunc(st.Interfaces[1].Addrs, func(q netip.Prefix) bool { return q == dup })
	}); err != nil {
		t.Fatal(err)
	}
	if got := flags(); got != 0 {
		t.Errorf("flags %#x of an address that is gone", got)
	}
	if err := change(t, p.A, func(st *stacks.State) {
		add(st)
		st.Interfaces[1].Info = map[netip.Prefix]stacks.AddrInfo{dup: {Flags: unix.IFA_F_NODAD}}
	}); err != nil {
		t.Fatal(err)
	}
	if err := sends(t, p.A, netip.AddrPortFrom(p.B6, 9), netip.AddrPortFrom(dup.Addr(), 7)); err != nil {
		t.Errorf("bind to an address that is not looked for: %v", err)
	}
}

// TestFrames: taps see whole frames, those for others too, and what they inject leaves
// as it is. Another MAC is the source of what follows.
func TestFrames(t *testing.T) {
	s, far := newEther(t, macA, "10.9.0.1/24")
	c := tap(t, s)
	for _, dst := range []struct {
		mac  string
		kind uint8
	}{{macA, unix.PACKET_HOST}, {macAll, unix.PACKET_BROADCAST}, {"01:00:5e:00:00:fb", unix.PACKET_MULTICAST}, {macC, unix.PACKET_OTHERHOST}} {
		frame := arp(dst.mac, macB, 1, "10.9.0.5", "10.9.0.99", macNone)
		write(t, far, frame...)
		var got stacks.Frame
		await(t, func() bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			for _, f := range c.frames {
				if !f.Outgoing && f.Proto == unix.ETH_P_ARP {
					got, c.frames = f, nil
					return true
				}
			}
			return false
		})
		if got.Type != dst.kind || !bytes.Equal(slices.Concat(got.Header, got.Data), frame) {
			t.Errorf("to %s: type %d, frame %x%x", dst.mac, got.Type, got.Header, got.Data)
		}
	}
	raw := slices.Concat(arp(macB, macC, 1, "10.9.0.5", "10.9.0.99", macNone)[:12], []byte{0x88, 0xb5}, []byte("hello"))
	if err := s.Inject(2, 0, raw, nil); err != nil {
		t.Fatal(err)
	}
	frames(t, far, 0x88b5, func(f []byte) bool {
		if !bytes.Equal(f, raw) {
			t.Errorf("got %x, want %x", f, raw)
		}
		return true
	})
	if err := s.Inject(2, 0, raw[:13], nil); !errors.Is(err, unix.EINVAL) {
		t.Errorf("half a header: %v", err)
	}

	set := func(mac string) error {
		return change(t, s, func(st *stacks.State) { st.Interfaces[1].MAC, _ = net.ParseMAC(mac) })
	}
	if err := set("01:00:00:00:00:01"); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a group's address: %v", err)
	}
	if err := set(macC); err != nil {
		t.Fatal(err)
	}
	if err := sends(t, s, netip.MustParseAddrPort("10.9.0.255:9"), netip.AddrPort{}); !errors.Is(err, unix.EACCES) {
		t.Errorf("broadcast: %v", err)
	}
	if err := sends(t, s, netip.MustParseAddrPort("10.9.0.2:9"), netip.AddrPort{}); err != nil {
		t.Fatal(err)
	}
	frames(t, far, unix.ETH_P_ARP, func(f []byte) bool {
		return bytes.Equal(f, arp(macAll, macC, 1, "10.9.0.1", "10.9.0.2", macNone))
	})
}

// TestMadeUpMAC: an interface without a MAC gets one, and an address of it.
func TestMadeUpMAC(t *testing.T) {
	a, b := pipe.New(pipe.Config{Ethernet: true})
	defer b.Close()
	s, err := netstack.New(netstack.Config{Links: []stacks.LinkConfig{{Name: "eth0", Link: a}}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ifc := s.State().Interfaces[1]
	if len(ifc.MAC) != 6 || ifc.MAC[0]&3 != 2 {
		t.Fatalf("MAC %v", ifc.MAC)
	}
	m := ifc.MAC
	want := netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5]})
	if !slices.Equal(ifc.Addrs, []netip.Prefix{netip.PrefixFrom(want, 64)}) {
		t.Errorf("addresses %v, want %v", ifc.Addrs, want)
	}
}
