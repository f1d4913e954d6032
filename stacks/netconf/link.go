// SPDX-License-Identifier: Apache-2.0

// The link that a stack gets: it shows the client what concerns it.

package netconf

import (
	"encoding/binary"
	"net/netip"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"umrun/stacks"
	"umrun/stacks/offload"
)

// A link passes frames between the link below and the stack above. What is for the
// client is taken out, or copied, on the way up; nothing is looked at on the way down.
type link struct {
	stacks.Link
	c    *Client
	head int // bytes before the Ethernet header: that of virtio, or none

	// What the client waits for. Zero is nothing.
	xid4  atomic.Uint32 // transaction of DHCP
	xid6  atomic.Uint32 // transaction of DHCPv6, with bit 31 set
	addr4 atomic.Uint32 // an address that others may have too
	nd    atomic.Uint32 // which messages of neighbour discovery, as bits from wantRA
}

// Bits of link.nd.
const (
	wantRA        = 1 << iota // router advertisements
	wantNeighbour             // what others say of addresses
)

// tryLink is a link over one that can take packets without waiting.
type tryLink struct {
	*link
	stacks.TryWriter
}

var (
	_ stacks.Offloads  = (*link)(nil)
	_ stacks.Pusher    = (*link)(nil)
	_ stacks.Waiter    = (*link)(nil)
	_ stacks.TryWriter = (*tryLink)(nil)
)

// Offloads implements [stacks.Offloads].
func (l *link) Offloads() bool { return l.head > 0 }

// Up implements [stacks.Waiter]; it is that of the link below. One that is no Waiter is
// up from the first moment.
func (l *link) Up() <-chan struct{} {
	if w, ok := l.Link.(stacks.Waiter); ok {
		return w.Up()
	}
	up := make(chan struct{})
	close(up)
	return up
}

// Push implements [stacks.Pusher]. A link below that cannot push does not.
func (l *link) Push(f func([]byte)) {
	if p, ok := l.Link.(stacks.Pusher); ok {
		p.Push(func(b []byte) {
			if !l.take(b) {
				f(b)
			}
		})
	}
}

// Read implements [stacks.Link].
func (l *link) Read(bufs [][]byte, sizes []int) (int, error) {
	for {
		n, err := l.Link.Read(bufs, sizes)
		kept := 0
		for i := range n {
			if l.take(bufs[i][:sizes[i]]) {
				continue
			}
			if kept < i { // the buffers stay in the caller's order
				sizes[kept] = copy(bufs[kept], bufs[i][:sizes[i]])
			}
			kept++
		}
		if kept > 0 || n == 0 || err != nil {
			return kept, err
		}
	}
}

// Close ends the client, then the link.
func (l *link) Close() error { return l.c.close() }

// take hands b to the client if it waits for such a frame, and reports whether it was
// for the client alone. Frames of every connection come by: it is quick about those.
func (l *link) take(b []byte) bool {
	if len(b) < l.head+etherLen+arpLen {
		return false
	}
	h := b[l.head:]
	alone := false
	switch typ, ip := binary.BigEndian.Uint16(h[12:]), h[etherLen:]; typ {
	case unix.ETH_P_IP:
		xid := l.xid4.Load()
		if xid == 0 || ip[9] != unix.IPPROTO_UDP {
			return false
		}
		udp := int(ip[0]&15) * 4
		if len(ip) < udp+udpLen+8 || binary.BigEndian.Uint16(ip[udp+2:]) != client4 || binary.BigEndian.Uint32(ip[udp+udpLen+4:]) != xid {
			return false
		}
		alone = true
	case unix.ETH_P_IPV6:
		if len(ip) < ip6Len+icmpLen {
			return false
		}
		switch next := ip[ip6Len:]; ip[6] {
		case unix.IPPROTO_ICMPV6:
			want := uint32(0)
			switch next[0] {
			case typeRouterAdvert:
				want = wantRA
			case typeNeighborSolicit, typeNeighborAdvert:
				want = wantNeighbour
			}
			if l.nd.Load()&want == 0 {
				return false
			}
		case unix.IPPROTO_UDP:
			xid := l.xid6.Load()
			if xid == 0 || len(next) < udpLen+4 || binary.BigEndian.Uint16(next[2:]) != client6 || binary.BigEndian.Uint32(next[udpLen:])&0xffffff != xid&0xffffff {
				return false
			}
			alone = true
		default:
			return false
		}
	case unix.ETH_P_ARP:
		a := l.addr4.Load()
		if a == 0 || binary.BigEndian.Uint32(ip[14:]) != a && binary.BigEndian.Uint32(ip[24:]) != a {
			return false
		}
	default:
		return false
	}
	summed := false
	if l.head > 0 {
		// What was left to a device, which there is not, has not been damaged either.
		summed = b[0]&(offload.NeedsCsum|offload.DataValid) != 0
	}
	p, ok := parse(append([]byte(nil), h...), summed)
	if !ok {
		return false // the stack counts what is damaged
	}
	select {
	case l.c.frames <- p:
	default: // more than it can be: someone floods us
	}
	return alone
}

// send writes a frame.
func (l *link) send(frame []byte) error {
	if l.head > 0 {
		frame = append(make([]byte, l.head, l.head+len(frame)), frame...)
	}
	_, err := l.Link.Write([][]byte{frame})
	return err
}

// as4 is an address of IPv4 as link.addr4 has it.
func as4(a netip.Addr) uint32 {
	if !a.Is4() {
		return 0
	}
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}
