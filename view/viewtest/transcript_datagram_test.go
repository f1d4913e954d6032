// SPDX-License-Identifier: Apache-2.0

// Datagrams in breadth: multicast, broadcast, binding, flags and control messages.

package viewtest_test

func init() {
	transcripts = append(transcripts,
		"groups 4", "groups 6", "mcast ip4", "mcast ip6", "broadcast",
	)
	differences = append(differences,
		difference{where: "mcast/bind-address-is-source", native: "from: 3 \"own\" from SELF port EPH len 16", umrun: "from: EAGAIN",
			reason: "a packet leaves by an interface that has its source address, not by another that IP_MULTICAST_IF names"},
	)
}
