// SPDX-License-Identifier: Apache-2.0

// Package tpacket fills the receive rings of packet sockets (PACKET_RX_RING of
// packet(7)) in versions 1, 2 and 3, as net/packet/af_packet.c does: memory that a
// writer, the kernel's part, shares with a reader, a program. Who owns a frame or
// a block is said by a status word in it, which either side stores last.
//
// The writer trusts nothing that it reads there but that status: what it needs to
// know it keeps, so that a program that scribbles over its ring harms itself only.
// A Ring is not safe for concurrent use. It starts no goroutine and no timer: its
// user calls Expire when Deadline says so.
package tpacket
