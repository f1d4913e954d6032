// SPDX-License-Identifier: Apache-2.0

// Level SOL_PACKET.

package sockapi

import "golang.org/x/sys/unix"

const noPacket = "no packet sockets"

var solPacket = []Option{
	no("PACKET_ADD_MEMBERSHIP", unix.PACKET_ADD_MEMBERSHIP, noPacket),
	no("PACKET_DROP_MEMBERSHIP", unix.PACKET_DROP_MEMBERSHIP, noPacket),
	no("PACKET_RECV_OUTPUT", unix.PACKET_RECV_OUTPUT, noPacket),
	no("PACKET_RX_RING", unix.PACKET_RX_RING, noPacket),
	no("PACKET_STATISTICS", unix.PACKET_STATISTICS, noPacket),
	no("PACKET_COPY_THRESH", unix.PACKET_COPY_THRESH, noPacket),
	no("PACKET_AUXDATA", unix.PACKET_AUXDATA, noPacket),
	no("PACKET_ORIGDEV", unix.PACKET_ORIGDEV, noPacket),
	no("PACKET_VERSION", unix.PACKET_VERSION, noPacket),
	no("PACKET_HDRLEN", unix.PACKET_HDRLEN, noPacket),
	no("PACKET_RESERVE", unix.PACKET_RESERVE, noPacket),
	no("PACKET_TX_RING", unix.PACKET_TX_RING, noPacket),
	no("PACKET_LOSS", unix.PACKET_LOSS, noPacket),
	no("PACKET_VNET_HDR", unix.PACKET_VNET_HDR, noPacket),
	no("PACKET_TX_TIMESTAMP", unix.PACKET_TX_TIMESTAMP, noPacket),
	no("PACKET_TIMESTAMP", unix.PACKET_TIMESTAMP, noPacket),
	no("PACKET_FANOUT", unix.PACKET_FANOUT, noPacket),
	no("PACKET_TX_HAS_OFF", unix.PACKET_TX_HAS_OFF, noPacket),
	no("PACKET_QDISC_BYPASS", unix.PACKET_QDISC_BYPASS, noPacket),
	no("PACKET_ROLLOVER_STATS", unix.PACKET_ROLLOVER_STATS, noPacket),
	no("PACKET_FANOUT_DATA", unix.PACKET_FANOUT_DATA, noPacket),
	no("PACKET_IGNORE_OUTGOING", unix.PACKET_IGNORE_OUTGOING, noPacket),
	no("PACKET_VNET_HDR_SZ", unix.PACKET_VNET_HDR_SZ, noPacket),
}
