// SPDX-License-Identifier: Apache-2.0

// Levels SOL_RAW and IPPROTO_ICMPV6, of raw sockets.

package sockapi

import "golang.org/x/sys/unix"

var solRaw = []Option{
	{Name: "ICMP_FILTER", Number: 1, Access: Both, Shape: Bytes, Support: Full},
}

var solICMPv6 = []Option{
	{Name: "ICMPV6_FILTER", Number: unix.ICMPV6_FILTER, Access: Both, Shape: Bytes, Support: Full},
}
