// SPDX-License-Identifier: Apache-2.0

// What the network says about datagrams that were sent, and connections that are made.

package stacks

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// A Report is an entry of a socket's error queue: ip(7), IP_RECVERR. Its fields are
// those of struct sock_extended_err and of recvmsg(2) with MSG_ERRQUEUE.
type Report struct {
	Errno    unix.Errno
	Origin   uint8 // SO_EE_ORIGIN_*
	Type     uint8 // of ICMP
	Code     uint8
	Info     uint32
	Data     uint32
	Offender netip.Addr     // who said so; the zero Addr if this machine did
	Dst      netip.AddrPort // where the datagram or SYN was sent to
	Payload  []byte         // the datagram, or the header of TCP, as far as the report quotes it
	Msg      Message        // of the packet that brought the report
}

// A Reporter is implemented by PacketSockets that hear what becomes of their
// datagrams. The error is pending in the sense of SO_ERROR: RecvMsg, SendMsg and
// Option tell it too, whoever comes first. StreamSockets that implement it have entries
// alone, of connections that are being made: the error is that of Connect.
type Reporter interface {
	// TakeReports returns the pending error, 0 if there is none, and the entries
	// that were queued since the last call, oldest first; a datagram
	// socket has entries only if IP_RECVERR or IPV6_RECVERR is set. Watch tells of both
	// as POLLERR.
	TakeReports() (pending unix.Errno, queue []Report)
}
