// SPDX-License-Identifier: Apache-2.0

// Conflicts of IPv4 addresses: asked about before use, told of, and defended, RFC 5227.

package netconf

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"
)

// arp is a request for to, of a host with mac and from, RFC 826.
func arp(mac net.HardwareAddr, from, to netip.Addr) []byte {
	b := ether(broadcastMAC, mac, unix.ETH_P_ARP)
	b = append(b, 0, 1, 8, 0, 6, 4, 0, 1)
	b = append(append(b, mac...), from.AsSlice()...)
	b = append(b, 0, 0, 0, 0, 0, 0)
	return append(b, to.AsSlice()...)
}

// An arpMessage is a request or a reply.
type arpMessage struct {
	mac  net.HardwareAddr
	from netip.Addr
	to   netip.Addr
}

// parseARP reads a message of ARP for IPv4 over Ethernet.
func parseARP(b []byte) (m arpMessage, ok bool) {
	if len(b) < arpLen || binary.BigEndian.Uint64(b)>>16 != 0x000108000604 {
		return m, false
	}
	if op := binary.BigEndian.Uint16(b[6:]); op != 1 && op != 2 {
		return m, false
	}
	return arpMessage{
		mac: net.HardwareAddr(b[8:14]), from: netip.AddrFrom4([4]byte(b[14:18])), to: netip.AddrFrom4([4]byte(b[24:28])),
	}, true
}

// probe asks whether somebody has the offered address, and takes it when nobody said so.
func (d *dhcp4) probe(now time.Time) {
	if d.left == 0 {
		d.hold(now, d.offer, d.got)
		d.declines, d.left = 0, announces4
		d.tellNeighbours(now)
		return
	}
	d.left--
	d.c.send("ARP probe", arp(d.c.conf.MAC, netip.IPv4Unspecified(), d.offer.addr.Addr()))
	d.at = now.Add(probeInterval)
}

// tellNeighbours announces the address, so that nobody keeps that of its last holder.
func (d *dhcp4) tellNeighbours(now time.Time) {
	d.announce = time.Time{}
	if d.left == 0 || d.phase < bound || d.phase == declined {
		return
	}
	a := d.lease.addr.Addr()
	d.c.send("ARP announcement", arp(d.c.conf.MAC, a, a))
	if d.left--; d.left > 0 {
		d.announce = now.Add(announceEvery)
	}
}

// hear looks for others who use the address, or are about to.
func (d *dhcp4) hear(now time.Time, b []byte) {
	m, ok := parseARP(b)
	if !ok || slices.Equal(m.mac, d.c.conf.MAC) {
		return
	}
	switch {
	case d.phase == probing:
		a := d.offer.addr.Addr()
		if m.from == a || m.from.IsUnspecified() && m.to == a {
			d.decline(now, m.mac)
		}
	case d.phase >= bound && d.phase != declined && m.from == d.lease.addr.Addr():
		// RFC 5227 §2.4 (b): it is said once in ten seconds whose it is. The lease is
		// kept, since it is the server who gave it.
		if now.Sub(d.defended) < defendEvery {
			return
		}
		d.defended = now
		d.trouble = fmt.Sprintf("%s uses %s too", m.mac, m.from)
		d.c.log.Warn("somebody else uses the address", "addr", m.from, "mac", m.mac)
		d.c.send("ARP announcement", arp(d.c.conf.MAC, m.from, m.from))
	}
}

// decline tells the server that the address is in use, and begins again.
func (d *dhcp4) decline(now time.Time, mac net.HardwareAddr) {
	a := d.offer.addr.Addr()
	d.trouble = fmt.Sprintf("%s was offered and is in use by %s", a, mac)
	d.c.log.Warn("the address that was offered is in use", "addr", a, "mac", mac)
	d.c.link.addr4.Store(0)
	d.xid = transaction()
	d.phase = declined
	m := d.message(dhcpv4.MessageTypeDecline, dhcpv4.OptRequestedIPAddress(a.AsSlice()), dhcpv4.OptServerIdentifier(d.offer.server.AsSlice()))
	d.broadcast(m, now)
	wait := declineWait
	if d.declines == 0 {
		wait = time.Second
	}
	d.declines++
	d.at = now.Add(wait)
}
