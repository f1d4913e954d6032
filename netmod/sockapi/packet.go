// SPDX-License-Identifier: Apache-2.0

// Level SOL_PACKET.

package sockapi

import "golang.org/x/sys/unix"

const (
	notModelled = "not modelled"
	hearsAll    = "an interface of the view hears all that there is"
)

var solPacket = []Option{
	{Name: "PACKET_ADD_MEMBERSHIP", Number: unix.PACKET_ADD_MEMBERSHIP, Access: Set, Shape: Mreq, Support: Full, Gap: hearsAll},
	{Name: "PACKET_DROP_MEMBERSHIP", Number: unix.PACKET_DROP_MEMBERSHIP, Access: Set, Shape: Mreq, Support: Full, Gap: hearsAll},
	no("PACKET_RECV_OUTPUT", unix.PACKET_RECV_OUTPUT, "Linux has it not either"),
	{Name: "PACKET_RX_RING", Number: unix.PACKET_RX_RING, Access: Set, Shape: Opaque, Support: Part, Gap: "poll(2) may return in vain; 1 GiB at most; see limits.md"},
	{Name: "PACKET_STATISTICS", Number: unix.PACKET_STATISTICS, Access: Get, Shape: Opaque, Support: Full},
	{Name: "PACKET_COPY_THRESH", Number: unix.PACKET_COPY_THRESH, Access: Both, Support: Part, Gap: "what a frame of a ring cuts off is not queued besides"},
	{Name: "PACKET_AUXDATA", Number: unix.PACKET_AUXDATA, Access: Both, Support: Full},
	{Name: "PACKET_ORIGDEV", Number: unix.PACKET_ORIGDEV, Access: Both, Support: Kept},
	{Name: "PACKET_VERSION", Number: unix.PACKET_VERSION, Access: Both, Support: Full},
	{Name: "PACKET_HDRLEN", Number: unix.PACKET_HDRLEN, Access: Get, Support: Full},
	{Name: "PACKET_RESERVE", Number: unix.PACKET_RESERVE, Access: Both, Support: Full},
	no("PACKET_TX_RING", unix.PACKET_TX_RING, notModelled),
	{Name: "PACKET_LOSS", Number: unix.PACKET_LOSS, Access: Both, Support: Kept},
	no("PACKET_VNET_HDR", unix.PACKET_VNET_HDR, notModelled),
	no("PACKET_TX_TIMESTAMP", unix.PACKET_TX_TIMESTAMP, "Linux has it not either"),
	{Name: "PACKET_TIMESTAMP", Number: unix.PACKET_TIMESTAMP, Access: Both, Support: Kept},
	no("PACKET_FANOUT", unix.PACKET_FANOUT, notModelled),
	no("PACKET_TX_HAS_OFF", unix.PACKET_TX_HAS_OFF, notModelled),
	{Name: "PACKET_QDISC_BYPASS", Number: unix.PACKET_QDISC_BYPASS, Access: Both, Support: Kept},
	no("PACKET_ROLLOVER_STATS", unix.PACKET_ROLLOVER_STATS, notModelled),
	no("PACKET_FANOUT_DATA", unix.PACKET_FANOUT_DATA, notModelled),
	{Name: "PACKET_IGNORE_OUTGOING", Number: unix.PACKET_IGNORE_OUTGOING, Access: Both, Support: Full},
	no("PACKET_VNET_HDR_SZ", unix.PACKET_VNET_HDR_SZ, notModelled),
}
