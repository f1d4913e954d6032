// SPDX-License-Identifier: Apache-2.0

// Ports that the program serves, for who publishes them.

package netmod

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// An Opening is a port at which the program waits for others: a TCP listener, or a UDP
// socket that was bound to a port.
type Opening struct {
	Proto int            // IPPROTO_TCP or IPPROTO_UDP
	Local netip.AddrPort // may be a wildcard address
	Both  bool           // the wildcard of IPv6 is that of IPv4 too (ipv6(7), IPV6_V6ONLY)
}

// announce tells that the socket is open to others, once.
//
// +checklocks:b.mu
func (b *base) announce(proto int) {
	f := b.m.conf.Opened
	if f == nil || b.opening != nil {
		return
	}
	local, _ := b.ep.Names()
	if local.Port() == 0 {
		return
	}
	o := &Opening{Proto: proto, Local: local}
	if b.family == unix.AF_INET6 && local.Addr().IsUnspecified() {
		var v [4]byte
		n, err := b.ep.Option(unix.SOL_IPV6, unix.IPV6_V6ONLY, v[:])
		o.Both = err == nil && n == len(v) && native.Uint32(v[:]) == 0
	}
	b.opening = o
	f(*o)
}

// withdraw tells that it is not any more.
//
// +checklocks:b.mu
func (b *base) withdraw() {
	if o := b.opening; o != nil {
		b.opening = nil
		b.m.conf.Closed(*o)
	}
}
