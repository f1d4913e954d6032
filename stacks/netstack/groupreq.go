// SPDX-License-Identifier: Apache-2.0

// What the options about multicast groups carry: struct ip_mreq, group_req,
// group_filter and their kin.

package netstack

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
)

// mreq decodes struct ip_mreq or ip_mreqn.
func mreq(v []byte) (r groupReq, err error) {
	if len(v) < 8 {
		return r, unix.EINVAL
	}
	r.group, r.local = netip.AddrFrom4([4]byte(v)), netip.AddrFrom4([4]byte(v[4:]))
	if len(v) >= 12 {
		r.nic = tcpip.NICID(binary.NativeEndian.Uint32(v[8:]))
	}
	return r, nil
}

// mreq6 decodes struct ipv6_mreq.
func mreq6(v []byte) (r groupReq, err error) {
	if len(v) < 20 {
		return r, unix.EINVAL
	}
	r.group = netip.AddrFrom16([16]byte(v))
	r.nic = tcpip.NICID(binary.NativeEndian.Uint32(v[16:]))
	if r.group.Is4In6() {
		return r, unix.EINVAL
	}
	return r, nil
}

// mreqSource decodes struct ip_mreq_source: group, interface, source.
func mreqSource(v []byte) (r groupReq, err error) {
	if len(v) != 12 {
		return r, unix.EINVAL
	}
	r.group, r.local, r.source = netip.AddrFrom4([4]byte(v)), netip.AddrFrom4([4]byte(v[4:])), netip.AddrFrom4([4]byte(v[8:]))
	return r, nil
}

// Layout of struct group_req, group_source_req and group_filter: an interface
// index, and sockaddr_storages from the eighth byte on.
const (
	storageLen      = 128
	groupAt         = 8
	sourceAt        = groupAt + storageLen
	groupReqLen     = groupAt + storageLen
	groupSourceLen  = sourceAt + storageLen
	filterModeAt    = groupAt + storageLen
	filterCountAt   = filterModeAt + 4
	filterSourcesAt = filterCountAt + 4
)

// storage decodes a sockaddr_storage of the family that belongs to a level.
func storage(level int, v []byte) (netip.Addr, bool) {
	switch family := int(binary.NativeEndian.Uint16(v)); {
	case level == ip4 && family == unix.AF_INET:
		return netip.AddrFrom4([4]byte(v[4:])), true
	case level == ip6 && family == unix.AF_INET6:
		return netip.AddrFrom16([16]byte(v[8:])), true
	}
	return netip.Addr{}, false
}

func decodeGroupReq(level int, v []byte) (r groupReq, err error) {
	if len(v) < groupReqLen {
		return r, unix.EINVAL
	}
	var ok bool
	if r.group, ok = storage(level, v[groupAt:]); !ok {
		if level == ip4 {
			return r, unix.EINVAL // net/ipv4/ip_sockglue.c:ip_mcast_join_leave
		}
		return r, unix.EADDRNOTAVAIL
	}
	r.nic = tcpip.NICID(binary.NativeEndian.Uint32(v))
	return r, nil
}

func decodeGroupSource(level int, v []byte) (r groupReq, err error) {
	if len(v) < groupSourceLen {
		return r, unix.EINVAL
	}
	var ok, ok2 bool
	r.group, ok = storage(level, v[groupAt:])
	r.source, ok2 = storage(level, v[sourceAt:])
	if !ok || !ok2 {
		return r, unix.EADDRNOTAVAIL
	}
	r.nic = tcpip.NICID(binary.NativeEndian.Uint32(v))
	return r, nil
}

// decodeGroupFilter decodes struct group_filter.
func decodeGroupFilter(level int, v []byte, set bool) (f groupFilter, err error) {
	if len(v) < filterSourcesAt {
		return f, unix.EINVAL
	}
	n, size := int(binary.NativeEndian.Uint32(v[filterCountAt:])), filterSourcesAt
	if err := checkFilter(&f, level, int(binary.NativeEndian.Uint32(v[filterModeAt:])), n, (len(v)-size)/storageLen, set); err != nil {
		return f, err
	}
	// The family: net/ipv4/igmp.c:ip_mc_gsfget and ip_sockglue.c have two errnos for
	// it, of IPv6 setting does not look at it (net/ipv6/mcast.c:ip6_mc_msfilter).
	var ok bool
	switch f.group, ok = storage(level, v[groupAt:]); {
	case ok:
	case level == ip6 && set:
		f.group = netip.AddrFrom16([16]byte(v[groupAt+8:]))
	case level == ip4 && !set:
		return f, unix.EINVAL
	default:
		return f, unix.EADDRNOTAVAIL
	}
	f.nic = tcpip.NICID(binary.NativeEndian.Uint32(v))
	for i := range n {
		if !set {
			break
		}
		a, ok := storage(level, v[size+i*storageLen:])
		if !ok {
			return f, unix.EADDRNOTAVAIL
		}
		f.sources = append(f.sources, a)
	}
	f.encode = func(f groupFilter) []byte {
		out := slices.Clone(v[:size])
		binary.NativeEndian.PutUint32(out[filterModeAt:], filterMode(f))
		binary.NativeEndian.PutUint32(out[filterCountAt:], uint32(len(f.sources)))
		for _, a := range f.sources[:min(len(f.sources), f.room)] {
			sa := make([]byte, storageLen)
			if level == ip4 {
				binary.NativeEndian.PutUint16(sa, unix.AF_INET)
				copy(sa[4:], a.AsSlice())
			} else {
				binary.NativeEndian.PutUint16(sa, unix.AF_INET6)
				copy(sa[8:], a.AsSlice())
			}
			out = append(out, sa...)
		}
		return out
	}
	return f, nil
}

// ipMsfilter decodes struct ip_msfilter: group, interface, mode, count, sources.
func ipMsfilter(v []byte, set bool) (f groupFilter, err error) {
	const head = 16
	if len(v) < head {
		return f, unix.EINVAL
	}
	n := int(binary.NativeEndian.Uint32(v[12:]))
	if err := checkFilter(&f, ip4, int(binary.NativeEndian.Uint32(v[8:])), n, (len(v)-head)/4, set); err != nil {
		return f, err
	}
	f.group, f.local = netip.AddrFrom4([4]byte(v)), netip.AddrFrom4([4]byte(v[4:]))
	for i := range n {
		if !set {
			break
		}
		f.sources = append(f.sources, netip.AddrFrom4([4]byte(v[head+4*i:])))
	}
	f.encode = func(f groupFilter) []byte {
		out := slices.Clone(v[:head])
		binary.NativeEndian.PutUint32(out[8:], filterMode(f))
		binary.NativeEndian.PutUint32(out[12:], uint32(len(f.sources)))
		for _, a := range f.sources[:min(len(f.sources), f.room)] {
			out = append(out, a.AsSlice()...)
		}
		return out
	}
	return f, nil
}

// checkFilter notes mode and number of sources; room is how many are there.
func checkFilter(f *groupFilter, level, mode, n, room int, set bool) error {
	if !set {
		f.room = min(n, room)
		return nil
	}
	most := maxSources4
	if level == ip6 {
		most = maxSources6
	}
	switch {
	case n > most:
		return unix.ENOBUFS
	case n > room:
		return unix.EINVAL
	case mode != unix.MCAST_INCLUDE && mode != unix.MCAST_EXCLUDE:
		return unix.EINVAL
	}
	f.include = mode == unix.MCAST_INCLUDE
	return nil
}

func filterMode(f groupFilter) uint32 {
	if f.include {
		return unix.MCAST_INCLUDE
	}
	return unix.MCAST_EXCLUDE
}
