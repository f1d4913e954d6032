// SPDX-License-Identifier: Apache-2.0

// IPV6_ADDR_PREFERENCES, RFC 5014.

package netstack

import "golang.org/x/sys/unix"

// Source address preferences (linux/in6.h, RFC 5014).
const (
	preferTemporary         = 0x0001
	preferPublic            = 0x0002
	preferPublicOrTemporary = 0x0100
	preferCareOf            = 0x0004
	preferHome              = 0x0400
	preferCGA               = 0x0008
	preferNonCGA            = 0x0800
)

// preferences makes of source address preferences what getsockopt(2) tells of them
// (net/ipv6/ipv6_sockglue.c:__ip6_sock_set_addr_preferences): of each kind at most
// one may be set, and the default is named.
func preferences(v []byte) (int, error) {
	n, err := intOf(v)
	if err != nil {
		return 0, err
	}
	var out int
	switch privacy := n & (preferTemporary | preferPublic | preferPublicOrTemporary); privacy {
	case 0, preferPublicOrTemporary:
		out = preferPublicOrTemporary
	case preferTemporary, preferPublic:
		out = privacy
	default:
		return 0, unix.EINVAL
	}
	switch n & (preferHome | preferCareOf) {
	case 0, preferHome:
		out |= preferHome
	case preferCareOf:
		out |= preferCareOf
	default:
		return 0, unix.EINVAL
	}
	if n&(preferCGA|preferNonCGA) == preferCGA|preferNonCGA {
		return 0, unix.EINVAL
	}
	return out, nil
}
