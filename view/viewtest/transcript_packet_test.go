// SPDX-License-Identifier: Apache-2.0

// Packet sockets: natively root's, under umrun an ordinary user's.

package viewtest_test

func init() {
	privileged = append(privileged, "packet", "packetfilter", "packetring", "sockopt packet")
}
