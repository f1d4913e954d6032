// SPDX-License-Identifier: Apache-2.0

// Clients that come again with the name of a connection in TIME_WAIT.

package netstack_test

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"umrun/stacks"
	"umrun/stacks/pipe"
)

// TestTakeOver: a SYN with a lower sequence number than that of the connection before
// is answered, as one of another machine with the same address is.
func TestTakeOver(t *testing.T) {
	p := newPair(t, pipe.Config{}, nil)
	c := tap(t, p.A)
	l, err := p.B.Socket(unix.AF_INET6, unix.SOCK_STREAM, 0) // serves IPv4 too
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	server := netip.AddrPortFrom(p.B4, 80)
	if err := l.Bind(netip.MustParseAddrPort("[::]:80")); err != nil {
		t.Fatal(err)
	}
	if err := l.(stacks.StreamSocket).Listen(5); err != nil {
		t.Fatal(err)
	}
	s, err := p.A.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Bind(netip.AddrPortFrom(p.A4, 4000)); err != nil {
		t.Fatal(err)
	}
	_ = s.Connect(server)
	var served stacks.StreamSocket
	await(t, func() bool { served, err = l.(stacks.StreamSocket).Accept(); return err == nil })
	served.Close() // first: TIME_WAIT is the server's
	await(t, func() bool { return s.Poll()&unix.POLLRDHUP != 0 })
	s.Close()

	// segments takes the TCP segments seen at A since the last call.
	segments := func() (all []stacks.Frame) {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, f := range c.frames {
			if f.Proto == unix.ETH_P_IP && f.Data[9] == unix.IPPROTO_TCP {
				all = append(all, f)
			}
		}
		c.frames = nil
		return all
	}
	var first uint32
	last := false
	await(t, func() bool {
		for _, f := range segments() {
			if flags := f.Data[33]; f.Outgoing && flags == 2 {
				first = binary.BigEndian.Uint32(f.Data[24:])
			}
			last = last || !f.Outgoing && f.Data[33] == 0x10 && binary.BigEndian.Uint32(f.Data[28:]) == first+2 // of A's FIN
		}
		return last
	})
	// A's TCP knows nothing of this one, and resets what is answered.
	raw, err := p.A.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_TCP)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	syn := make([]byte, 20)
	binary.BigEndian.PutUint16(syn, 4000)
	binary.BigEndian.PutUint16(syn[2:], 80)
	seq := first - 100000
	binary.BigEndian.PutUint32(syn[4:], seq)
	syn[12], syn[13], syn[14] = 0x50, 2, 0xff
	sum := uint32(unix.IPPROTO_TCP + len(syn))
	a, b := p.A4.As4(), p.B4.As4()
	for _, part := range [][]byte{a[:], b[:], syn} {
		for i := 0; i < len(part); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(part[i:]))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(syn[16:], ^uint16(sum))
	if err := raw.(stacks.PacketSocket).SendMsg(syn, stacks.Message{Peer: netip.AddrPortFrom(p.B4, 0), TTL: -1, TOS: -1}); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		for _, f := range segments() {
			if !f.Outgoing && f.Data[33] == 0x12 && binary.BigEndian.Uint32(f.Data[28:]) == seq+1 {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("the SYN has no answer")
		}
	}
}
