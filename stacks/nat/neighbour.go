// SPDX-License-Identifier: Apache-2.0

// Neighbours of a Server: which guest has which address, ARP.

package nat

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

const (
	maxNeighbours = 4096
	// maxAwaiting are the packets that wait for a neighbour to answer; with more the
	// oldest goes (RFC 1122 §2.3.2.2 asks for one).
	maxAwaiting = 16
	askEvery    = time.Second // RFC 4861 §10, RETRANS_TIMER
	maxAsk      = 3           // MAX_MULTICAST_SOLICIT
)

// A neighbour is a guest's address.
type neighbour struct {
	mac   mac
	known bool
	seen  time.Time // when it last sent, or was first asked for
	asked int       // how often; 0 if known
	wait  [][]byte  // [etherLen][Hdr][packet]
}

// A found frame can be sent now.
type found struct {
	to    mac
	frame []byte
}

// neighbours is the table of them. A guest is believed whatever it says of itself,
// also by the packets that it sends, as any router believes ARP.
type neighbours struct {
	mu     sync.RWMutex
	table  map[addr]*neighbour // +checklocks:mu
	asks   []addr              // +checklocks:mu, to be asked for
	ready  []found             // +checklocks:mu
	closed bool                // +checklocks:mu, the server ends

	wake  chan struct{} // asks or ready has grown; capacity 1
	timer *time.Timer   // runs while somebody was asked for
}

func (t *neighbours) init() {
	t.table = make(map[addr]*neighbour)
	t.wake = make(chan struct{}, 1)
	t.timer = time.NewTimer(time.Hour)
	t.timer.Stop()
}

func (t *neighbours) nudge() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// guest reports whether a may be the address of a guest.
func guest(a addr) bool {
	return (Net4.Contains(a) && a != subnetCast4 && a != Net4.Addr() || Net6.Contains(a) || a.Is6() && a.IsLinkLocalUnicast()) && !ours(a)
}

// learn notes that a is at m.
func (t *neighbours) learn(a addr, m mac) {
	if !guest(a) {
		return
	}
	now := time.Now()
	t.mu.RLock()
	n := t.table[a]
	same := n != nil && n.known && n.mac == m && now.Sub(n.seen) < askEvery
	t.mu.RUnlock()
	if same {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if n = t.table[a]; n == nil {
		n = t.makeLocked(a)
	}
	n.mac, n.known, n.seen, n.asked = m, true, now, 0
	if len(n.wait) > 0 {
		for _, b := range n.wait {
			t.ready = append(t.ready, found{m, b})
		}
		n.wait = nil
		t.nudge()
	}
}

// makeLocked makes an entry, in the place of the one that is silent for longest if
// there is no room.
//
// +checklocks:t.mu
func (t *neighbours) makeLocked(a addr) *neighbour {
	if len(t.table) >= maxNeighbours {
		var old addr
		for b, n := range t.table {
			if o := t.table[old]; o == nil || n.seen.Before(o.seen) {
				old = b
			}
		}
		delete(t.table, old)
	}
	n := &neighbour{seen: time.Now()}
	t.table[a] = n
	return n
}

// lookup tells where a is. If that is not known it is asked for, and b, which is
// copied, is sent when it is.
func (t *neighbours) lookup(a addr, b []byte) (mac, bool) {
	t.mu.RLock()
	if n := t.table[a]; n != nil && n.known {
		m := n.mac
		t.mu.RUnlock()
		return m, true
	}
	t.mu.RUnlock()
	if !guest(a) {
		return mac{}, false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.table[a]
	if n == nil {
		n = t.makeLocked(a)
	}
	if n.known {
		return n.mac, true
	}
	if len(n.wait) == maxAwaiting {
		n.wait = slices.Delete(n.wait, 0, 1)
	}
	n.wait = append(n.wait, bytes.Clone(b))
	if n.asked == 0 {
		n.asked = 1
		t.asks = append(t.asks, a)
		t.timer.Reset(askEvery)
		t.nudge()
	}
	return mac{}, false
}

// again asks once more for those who have not answered, or gives them up.
func (t *neighbours) again() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for a, n := range t.table {
		switch {
		case n.known:
		case n.asked >= maxAsk:
			delete(t.table, a)
		default:
			n.asked++
			t.asks = append(t.asks, a)
		}
	}
	if len(t.asks) > 0 {
		t.timer.Reset(askEvery)
		t.nudge()
	}
}

// take returns who is to be asked for, and what can be sent.
func (t *neighbours) take() ([]addr, []found) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a, f := t.asks, t.ready
	t.asks, t.ready = nil, nil
	return a, f
}

// other reports whether somebody else than m was heard to use a lately.
func (t *neighbours) other(a addr, m mac, within time.Duration) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	n := t.table[a]
	return n != nil && n.known && n.mac != m && time.Since(n.seen) < within
}

// solicit asks the guests who has a.
func (s *Server) solicit(a addr) {
	if a.Is6() {
		s.solicit6(a)
		return
	}
	p := header.ARP(make([]byte, header.ARPSize))
	p.SetIPv4OverEthernet()
	p.SetOp(header.ARPRequest)
	copy(p.HardwareAddressSender(), ourMAC[:])
	copy(p.ProtocolAddressSender(), Gateway4.AsSlice())
	copy(p.ProtocolAddressTarget(), a.AsSlice())
	s.sendOwn(broadcastMAC, unix.ETH_P_ARP, p)
}

// arp handles an ARP packet (RFC 826), announcements and probes included (RFC 5227).
func (s *Server) arp(from mac, b []byte) {
	p := header.ARP(b)
	if !p.IsValid() {
		s.nat.stats.malformed.Add(1)
		return
	}
	sender := addr4(p.ProtocolAddressSender())
	target := addr4(p.ProtocolAddressTarget())
	hw := mac(p.HardwareAddressSender())
	if hw[0]&1 == 0 && hw != ourMAC {
		s.near.learn(sender, hw)
	}
	if p.Op() != header.ARPRequest || !ours(target) {
		return
	}
	r := header.ARP(make([]byte, header.ARPSize))
	r.SetIPv4OverEthernet()
	r.SetOp(header.ARPReply)
	copy(r.HardwareAddressSender(), ourMAC[:])
	copy(r.ProtocolAddressSender(), target.AsSlice())
	copy(r.HardwareAddressTarget(), hw[:])
	copy(r.ProtocolAddressTarget(), p.ProtocolAddressSender())
	s.reply(from, unix.ETH_P_ARP, r)
}

// sendOwn writes a packet of the server's own; only its control goroutine does.
func (s *Server) sendOwn(to mac, proto uint16, packet []byte) {
	b := make([]byte, etherLen+len(packet))
	putEther(b, to, proto)
	copy(b[etherLen:], packet)
	s.write(b)
}

// groupMAC is the link-layer address of an IPv6 group (RFC 2464 §7).
func groupMAC(a netip.Addr) mac {
	m := mac{0x33, 0x33}
	b := a.As16()
	binary.BigEndian.PutUint32(m[2:], binary.BigEndian.Uint32(b[12:]))
	return m
}
