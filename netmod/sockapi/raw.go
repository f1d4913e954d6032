// SPDX-License-Identifier: Apache-2.0

// Levels SOL_RAW and IPPROTO_ICMPV6, of raw sockets.

package sockapi

import "golang.org/x/sys/unix"

var solRaw = []Option{
	no("ICMP_FILTER", 1, "no raw sockets"),
}

var solICMPv6 = []Option{
	no("ICMPV6_FILTER", unix.ICMPV6_FILTER, "no raw sockets"),
}
