// SPDX-License-Identifier: Apache-2.0

// The options of raw sockets: of level SOL_RAW, raw(7), of IPPROTO_ICMPV6, and those
// of other levels that only raw sockets have.

package netstack

import (
	"encoding/binary"
	"math"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"

	"umrun/stacks/bpf"
)

// Options that package unix does not have (linux/icmp.h, linux/in6.h).
const (
	icmpFilterOption = 1 // ICMP_FILTER
	ipv6HdrIncl      = 36
)

// An icmpFilter has a bit set for each type of message that is not received: of
// ICMP_FILTER the first 32, of ICMP6_FILTER all (RFC 3542 §3.2).
type icmpFilter [8]uint32

// filtered tells whether an ICMP message is not received.
func (s *rawSocket) filtered(b []byte) bool {
	if len(b) < 4 {
		return true
	}
	s.in.mu.Lock()
	defer s.in.mu.Unlock()
	return s.in.icmp[b[0]>>5]>>(b[0]&31)&1 != 0
}

// rawOption is a row of the tables below; the functions run with the mutex of the
// socket and that of its inbox held.
func rawOption(name string, set func(*rawSocket, []byte) error, get func(*rawSocket) ([]byte, error)) option {
	o := option{name: name}
	if set != nil {
		o.set = func(s *sock, _ tcpip.Endpoint, v []byte) error {
			r := s.raw
			r.in.mu.Lock()
			defer r.in.mu.Unlock()
			return set(r, v)
		}
	}
	if get != nil {
		o.get = func(s *sock, _ tcpip.Endpoint) ([]byte, error) {
			r := s.raw
			r.in.mu.Lock()
			defer r.in.mu.Unlock()
			return get(r)
		}
	}
	return o
}

// icmpOption is ICMP_FILTER or ICMP6_FILTER, of n bytes; a shorter value changes the
// first of them.
func icmpOption(name string, proto, n int) option {
	return rawOption(name, func(s *rawSocket, v []byte) error {
		if s.proto != proto {
			return unix.EOPNOTSUPP
		}
		b := s.in.icmp.bytes()
		copy(b[:n], v)
		for i := range s.in.icmp {
			s.in.icmp[i] = binary.NativeEndian.Uint32(b[4*i:])
		}
		return nil
	}, func(s *rawSocket) ([]byte, error) {
		if s.proto != proto {
			return nil, unix.EOPNOTSUPP
		}
		return s.in.icmp.bytes()[:n], nil
	})
}

func (f *icmpFilter) bytes() []byte {
	var b []byte
	for _, w := range f {
		b = binary.NativeEndian.AppendUint32(b, w)
	}
	return b
}

// solRawAny is what raw sockets of both versions have.
var solRawAny = map[optKey]option{
	// The value is the program itself, an array of struct sock_filter: where a
	// struct sock_fprog points to, only netmod can look.
	{sock0, unix.SO_ATTACH_FILTER}: rawOption("SO_ATTACH_FILTER", func(s *rawSocket, v []byte) error {
		if s.in.locked {
			return unix.EPERM
		}
		p, err := bpf.Parse(v)
		if err == nil {
			s.in.filter = p
		}
		return err
	}, func(s *rawSocket) ([]byte, error) { // SO_GET_FILTER has the same number
		if s.in.filter == nil {
			return nil, nil
		}
		return s.in.filter.Bytes(), nil
	}),
	{sock0, unix.SO_DETACH_FILTER}: rawOption("SO_DETACH_FILTER", func(s *rawSocket, v []byte) error {
		switch {
		case len(v) < 4:
			return unix.EINVAL
		case s.in.locked:
			return unix.EPERM
		case s.in.filter == nil:
			return unix.ENOENT
		}
		s.in.filter = nil
		return nil
	}, nil),
	// These are free to change with CAP_NET_RAW, which who has a raw socket has.
	{sock0, unix.SO_PRIORITY}: kept(sock0, unix.SO_PRIORITY, "SO_PRIORITY", 0, math.MinInt32, math.MaxInt32, intOf, ""),
	{sock0, unix.SO_BINDTOIFINDEX}: rawOption("SO_BINDTOIFINDEX", func(s *rawSocket, v []byte) error {
		n, err := intOf(v)
		switch {
		case err != nil:
			return err
		case n < 0:
			return unix.EINVAL
		}
		s.in.dev = tcpip.NICID(n) // also one that does not exist
		return nil
	}, func(s *rawSocket) ([]byte, error) { return bytesOf(int(s.in.dev)), nil }),
	{sock0, unix.SO_BINDTODEVICE}: {name: "SO_BINDTODEVICE", set: func(s *sock, _ tcpip.Endpoint, v []byte) error {
		n, err := s.st.device(v)
		if err == nil {
			s.raw.in.mu.Lock()
			s.raw.in.dev = n
			s.raw.in.mu.Unlock()
		}
		return err
	}, ask: func(s *sock, v []byte) ([]byte, error) {
		s.raw.in.mu.Lock()
		n := s.raw.in.dev
		s.raw.in.mu.Unlock()
		return s.st.deviceName(int(n), v)
	}},
	{sock0, unix.SO_LOCK_FILTER}: rawOption("SO_LOCK_FILTER", func(s *rawSocket, v []byte) error {
		n, err := intOf(v)
		switch {
		case err != nil:
			return err
		case s.in.locked && n == 0:
			return unix.EPERM
		}
		s.in.locked = n != 0
		return nil
	}, func(s *rawSocket) ([]byte, error) { return boolBytes(s.in.locked), nil }),
}

var solRaw4 = map[optKey]option{
	{unix.SOL_RAW, icmpFilterOption}: icmpOption("ICMP_FILTER", unix.IPPROTO_ICMP, 4),
	{ip4, unix.IP_HDRINCL}:           hdrinclOption("IP_HDRINCL", ipIntOrNone),
	// Packets are not put together before they are sent here.
	{ip4, unix.IP_TRANSPARENT}: kept(ip4, unix.IP_TRANSPARENT, "IP_TRANSPARENT", 0, 0, 1, truth(ipInt), ""),
	{ip4, unix.IP_FREEBIND}:    kept(ip4, unix.IP_FREEBIND, "IP_FREEBIND", 0, 0, 1, truth(ipInt), ""),
	{ip4, unix.IP_NODEFRAG}:    keptBool(ip4, unix.IP_NODEFRAG, "IP_NODEFRAG", 0, ""),
}

var solRaw6 = map[optKey]option{
	{unix.IPPROTO_ICMPV6, unix.ICMPV6_FILTER}: icmpOption("ICMPV6_FILTER", unix.IPPROTO_ICMPV6, 32),
	{ip6, ipv6HdrIncl}:                        hdrinclOption("IPV6_HDRINCL", intOf),
	{unix.SOL_RAW, ipv6HdrIncl}:               hdrinclOption("IPV6_HDRINCL", intOf),
	{ip6, unix.IPV6_TRANSPARENT}:              kept(ip6, unix.IPV6_TRANSPARENT, "IPV6_TRANSPARENT", 0, 0, 1, truth(intOf), ""),
	{ip6, unix.IPV6_CHECKSUM}:                 checksumOption(true),
	{unix.SOL_RAW, unix.IPV6_CHECKSUM}:        checksumOption(false),
}

func hdrinclOption(name string, decode func([]byte) (int, error)) option {
	return rawOption(name, func(s *rawSocket, v []byte) error {
		n, err := decode(v)
		if err == nil {
			s.in.hdrincl = n != 0
		}
		return err
	}, func(s *rawSocket) ([]byte, error) { return boolBytes(s.in.hdrincl), nil })
}

// checksumOption is IPV6_CHECKSUM. ICMPv6 always has a checksum, but by level SOL_RAW
// its place can be changed (net/ipv6/raw.c:do_rawv6_setsockopt).
func checksumOption(strict bool) option {
	return rawOption("IPV6_CHECKSUM", func(s *rawSocket, v []byte) error {
		n, err := intOf(v)
		switch {
		case err != nil:
			return err
		case strict && s.proto == unix.IPPROTO_ICMPV6, n > 0 && n&1 != 0:
			return unix.EINVAL
		}
		s.in.sum = max(n, -1)
		return nil
	}, func(s *rawSocket) ([]byte, error) { return bytesOf(s.in.sum), nil })
}

// rawTables are the tables of a raw socket that may have an option. One of IPv6 has
// none of IPv4 (net/ipv6/ipv6_sockglue.c:ipv6_setsockopt).
func (s *sock) rawTables(k optKey) []map[optKey]option {
	switch {
	case s.family != unix.AF_INET6:
		return []map[optKey]option{solRawAny, solRaw4, solSocket, solIP, groupOptions}
	case k.level == ip4:
		return nil
	}
	return []map[optKey]option{solRawAny, solRaw6, solSocket, solIPv6, groupOptions}
}
