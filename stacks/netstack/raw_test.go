// SPDX-License-Identifier: Apache-2.0

// Raw sockets over a link, and what they make of bytes that mean harm. What single
// calls do is held against the kernel by testdata/targets/raw*.c.

package netstack_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"umrun/stacks"
	"umrun/stacks/netstack"
	"umrun/stacks/pipe"
)

// experiment is a protocol that nothing else uses (RFC 3692).
const experiment = 253

func rawOf(t testing.TB, s stacks.Stack, family, proto int) stacks.PacketSocket {
	t.Helper()
	sock, err := s.Socket(family, unix.SOCK_RAW, proto)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sock.Close() })
	return sock.(stacks.PacketSocket)
}

// awaitPacket waits for a packet and returns it.
func awaitPacket(t *testing.T, s stacks.PacketSocket) ([]byte, stacks.Message) {
	t.Helper()
	b := make([]byte, 70000)
	var n int
	var m stacks.Message
	await(t, func() bool {
		var err error
		n, _, m, err = s.RecvMsg(b, false)
		return err == nil
	})
	return b[:n], m
}

func hdrincl(t testing.TB, s stacks.PacketSocket, level, name int) {
	t.Helper()
	if err := s.SetOption(level, name, binary.NativeEndian.AppendUint32(nil, 1)); err != nil {
		t.Fatal(err)
	}
}

// packet6 makes an IPv6 packet.
func packet6(src, dst netip.Addr, next byte, body []byte) []byte {
	b := []byte{0x60, 0, 0, 0, byte(len(body) >> 8), byte(len(body)), next, 64}
	return slices.Concat(b, src.AsSlice(), dst.AsSlice(), body)
}

// TestRawFragments sends more than the link carries at once: it arrives as one packet.
func TestRawFragments(t *testing.T) {
	p := newPair(t, pipe.Config{}, nil)
	data := bytes.Repeat([]byte("0123456789"), 900)
	for _, c := range []struct {
		name     string
		family   int
		to, from netip.Addr
		header   int
	}{{"IPv4", unix.AF_INET, p.B4, p.A4, 20}, {"IPv6", unix.AF_INET6, p.B6, p.A6, 0}} {
		t.Run(c.name, func(t *testing.T) {
			a, b := rawOf(t, p.A, c.family, experiment), rawOf(t, p.B, c.family, experiment)
			if err := a.SendMsg(data, stacks.Message{Peer: netip.AddrPortFrom(c.to, 0)}); err != nil {
				t.Fatal(err)
			}
			got, m := awaitPacket(t, b)
			if len(got) < c.header || !bytes.Equal(got[c.header:], data) || m.Peer != netip.AddrPortFrom(c.from, 0) || m.Local != c.to {
				t.Errorf("%d bytes from %v to %v, want %d from %v to %v", len(got), m.Peer, m.Local, c.header+len(data), c.from, c.to)
			}
		})
	}
}

// TestRawSource: a source that is not the sender's goes out as it was written.
func TestRawSource(t *testing.T) {
	p := newPair(t, pipe.Config{}, nil)
	spoofed := netip.MustParseAddr("203.0.113.9")
	a, b := rawOf(t, p.A, unix.AF_INET, unix.IPPROTO_RAW), rawOf(t, p.B, unix.AF_INET, experiment)
	packet := slices.Concat([]byte{0x45, 0, 0, 0, 0, 0, 0, 0, 9, experiment, 0, 0}, spoofed.AsSlice(), p.B4.AsSlice(), []byte("payload"))
	if err := a.SendMsg(packet, stacks.Message{Peer: netip.AddrPortFrom(p.B4, 0)}); err != nil {
		t.Fatal(err)
	}
	if got, m := awaitPacket(t, b); m.Peer.Addr() != spoofed || string(got[20:]) != "payload" || m.TTL != 9 {
		t.Errorf("%x from %v with TTL %d", got, m.Peer, m.TTL)
	}
}

// TestRawOthers: what is not for this stack is not shown, though it comes by the link.
func TestRawOthers(t *testing.T) {
	p := newPair(t, pipe.Config{}, nil)
	a, b := rawOf(t, p.A, unix.AF_INET6, experiment), rawOf(t, p.B, unix.AF_INET6, experiment)
	hdrincl(t, a, unix.IPPROTO_IPV6, 36)
	other := netip.MustParseAddr("fd01::99")
	for _, dst := range []netip.Addr{other, p.B6} {
		if err := a.SendMsg(packet6(p.A6, dst, experiment, []byte("x")), stacks.Message{Peer: netip.AddrPortFrom(p.B6, 0)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, m := awaitPacket(t, b); m.Local != p.B6 {
		t.Errorf("a packet to %v was shown", m.Local)
	}
	if _, _, m, err := b.RecvMsg(make([]byte, 10), false); err != unix.EAGAIN {
		t.Errorf("and one to %v, %v", m.Local, err)
	}
}

// TestRawReassembly: fragments in any order, again, too many, and overlapping.
func TestRawReassembly(t *testing.T) {
	type piece struct {
		at   int
		more bool
		data string
	}
	for _, c := range []struct {
		name   string
		pieces []piece
		want   string // "" is none
	}{
		{"in order", []piece{{0, true, "01234567"}, {8, true, "89abcdef"}, {16, false, "xyz"}}, "0123456789abcdefxyz"},
		{"the last first", []piece{{16, false, "xyz"}, {8, true, "89abcdef"}, {0, true, "01234567"}}, "0123456789abcdefxyz"},
		{"one twice", []piece{{0, true, "01234567"}, {0, true, "01234567"}, {8, false, "8"}}, "012345678"},
		{"atomic", []piece{{0, false, "whole"}}, "whole"},
		{"a hole", []piece{{0, true, "01234567"}, {16, false, "xyz"}}, ""},
		{"overlapping", []piece{{0, true, "0123456789abcdef"}, {8, true, "89abcdef"}, {16, false, "xyz"}}, ""},
		{"beyond the end", []piece{{8, false, "8"}, {16, true, "01234567"}, {0, true, "01234567"}}, ""},
		{"two ends", []piece{{8, false, "8"}, {8, false, "89"}, {0, true, "01234567"}}, ""},
		{"a length that is no multiple of 8", []piece{{0, true, "01234"}, {8, false, "8"}}, ""},
		{"longer than IP", []piece{{65528, false, "0123456789"}, {0, true, "01234567"}}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := pipe.New(pipe.Config{})
			st := newStack(t, a, a4, a6)
			t.Cleanup(func() { b.Close() })
			s := rawOf(t, st, unix.AF_INET6, experiment)
			write := func(next byte, body []byte) {
				t.Helper()
				if _, err := b.Write([][]byte{packet6(b6.Addr(), a6.Addr(), next, body)}); err != nil {
					t.Fatal(err)
				}
			}
			for _, p := range c.pieces {
				flags := uint16(p.at)
				if p.more {
					flags |= 1
				}
				h := binary.BigEndian.AppendUint16([]byte{experiment, 0}, flags)
				write(unix.IPPROTO_FRAGMENT, append(append(h, 0, 0, 0, 77), p.data...))
			}
			write(experiment, []byte("done"))
			for _, want := range []string{c.want, "done"} {
				if want == "" {
					continue
				}
				if got, _ := awaitPacket(t, s); string(got) != want {
					t.Errorf("got %q, want %q", got, want)
				}
			}
		})
	}
}

// TestRawExtensions: the payload behind extension headers is found.
func TestRawExtensions(t *testing.T) {
	a, b := pipe.New(pipe.Config{})
	st := newStack(t, a, a4, a6)
	t.Cleanup(func() { b.Close() })
	s := rawOf(t, st, unix.AF_INET6, experiment)
	options := func(next byte) []byte { return []byte{next, 0, 1, 4, 0, 0, 0, 0} } // PadN
	body := slices.Concat(options(unix.IPPROTO_DSTOPTS), options(experiment), []byte("behind"))
	if _, err := b.Write([][]byte{packet6(b6.Addr(), a6.Addr(), unix.IPPROTO_HOPOPTS, body)}); err != nil {
		t.Fatal(err)
	}
	if got, _ := awaitPacket(t, s); string(got) != "behind" {
		t.Errorf("got %q", got)
	}
}

// TestRawConcurrently opens, closes, binds and filters sockets while packets come.
func TestRawConcurrently(t *testing.T) {
	st, err := netstack.New(netstack.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	var wg sync.WaitGroup
	for i := range 4 {
		family, proto, to := unix.AF_INET, unix.IPPROTO_ICMP, netip.MustParseAddr("127.0.0.1")
		if i%2 == 1 {
			family, proto, to = unix.AF_INET6, experiment, netip.IPv6Loopback()
		}
		wg.Go(func() {
			for range 200 {
				sock, err := st.Socket(family, unix.SOCK_RAW, proto)
				if err != nil {
					t.Error(err)
					return
				}
				s := sock.(stacks.PacketSocket)
				stop := s.Watch(unix.POLLIN, func(stacks.Events) {})
				keep := []byte{6, 0, 0, 0, 9, 0, 0, 0} // BPF_RET 9
				for _, err := range []error{
					s.SetOption(unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, keep),
					s.Connect(netip.AddrPortFrom(to, 0)),
					s.SendMsg([]byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0}, stacks.Message{}),
				} {
					if err != nil {
						t.Error(err)
					}
				}
				if s.Poll()&unix.POLLIN == 0 { // delivered below SendMsg
					t.Error("the sender has not got its own packet")
				}
				if _, _, _, err := s.RecvMsg(make([]byte, 100), false); err != nil {
					t.Error(err)
				}
				stop()
				s.Close()
			}
		})
	}
	wg.Wait()
}

// FuzzRawSend sends any bytes as packets with their header, to the stack itself and
// over a link: it takes or drops them, and lives.
func FuzzRawSend(f *testing.F) {
	p := newPair(f, pipe.Config{}, nil)
	loop4, loop6 := netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()
	seed4 := slices.Concat([]byte{0x45, 0, 0, 0, 0, 0, 0, 0, 9, 1, 0, 0}, loop4.AsSlice(), loop4.AsSlice(), []byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0})
	f.Add(uint8(0), seed4)
	f.Add(uint8(1), seed4)
	f.Add(uint8(0), append([]byte{0x4f}, seed4[1:]...))
	f.Add(uint8(0), slices.Concat([]byte{0x46}, seed4[1:20], []byte{7, 39, 4, 0}, seed4[20:])) // record route
	for _, next := range []byte{0, 6, 17, 43, 44, 58, 59, 60, 253} {
		f.Add(uint8(2), packet6(loop6, loop6, next, []byte{58, 0, 0, 0, 0, 0, 0, 1, 128, 0, 0, 0, 0, 0, 0, 0}))
		f.Add(uint8(3), packet6(p.A6, p.B6, next, []byte{253, 0, 0, 1, 0, 0, 0, 1, 128, 0, 0, 0, 0, 0, 0, 0}))
	}
	send4, send6 := rawOf(f, p.A, unix.AF_INET, unix.IPPROTO_RAW), rawOf(f, p.A, unix.AF_INET6, unix.IPPROTO_RAW)
	for _, st := range []stacks.Stack{p.A, p.B} {
		for _, proto := range []int{1, 6, 17, 58, experiment} {
			for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
				s := rawOf(f, st, family, proto)
				stop := s.Watch(unix.POLLIN, func(stacks.Events) {})
				f.Cleanup(stop)
			}
		}
	}
	f.Fuzz(func(t *testing.T, way uint8, b []byte) {
		s, to := send4, []netip.Addr{loop4, p.B4}[way&1]
		if way&2 != 0 {
			s, to = send6, []netip.Addr{loop6, p.B6}[way&1]
		}
		err := s.SendMsg(b, stacks.Message{Peer: netip.AddrPortFrom(to, 0)})
		switch err {
		case nil, unix.EINVAL, unix.EMSGSIZE, unix.EAGAIN, unix.ECONNREFUSED, unix.EPROTO, unix.EHOSTUNREACH, unix.ENOPROTOOPT:
		default:
			t.Errorf("SendMsg: %v", err)
		}
	})
}
