// SPDX-License-Identifier: Apache-2.0

// Package offload holds what a network card would do for a stack: cutting
// super-segments into packets, putting runs of packets together again, and
// summing checksums. A link that reports stacks.Offloads puts a [Hdr] in front
// of every packet, so that inside the process a TCP stack handles 64 KiB at a
// time and nobody sums a checksum twice.
//
// The ends of that shortcut are the links that leave the process. They cut with
// [Split], which completes every checksum, and take in with [Verify] and
// [Coalescer], so that a packet marked [DataValid] was summed in this process.
//
//	stack --[Hdr|super-segment]--> Split   --packets--> medium
//	stack <--[Hdr|super-segment]-- Coalescer <-- Verify <--packets-- medium
//
// Nothing here starts goroutines or takes locks; functions are safe for
// concurrent use, a Coalescer belongs to one goroutine at a time.
package offload
