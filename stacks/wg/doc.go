// SPDX-License-Identifier: Apache-2.0

// Package wg is WireGuard inside the process: a reader of wg-quick files, and a
// [Link] that carries a stack's packets over wireguard-go's device without a
// kernel interface.
//
// # Paths
//
// The link offloads (see package offload), so the stack above hands over and
// takes super-segments of up to 64 KiB. There is no queue in it and no goroutine
// on the way; each direction is a hand-over with one copy:
//
//	Write --Splitter--> buffers that the device's TUN reader lent --> encrypt --> UDP
//	Read  <- buffers that it lent itself <--Coalescer-- Verify <-- decrypt <-- UDP
//
// A writer works straight into the buffers of the reader that waits, and the
// reader is woken once; what comes before it runs goes into the same batch. With
// no reader waiting the writer waits: that is the back-pressure. The device drops
// what its own rules tell it to (no session yet, no peer for an address), and a
// [meter] keeps what is inside of it small.
//
// What comes out of a tunnel is checked as if it came from a wire, since a peer
// may forward what it got from elsewhere: a packet whose lengths or checksums are
// wrong is dropped and counted.
//
// # Outer side
//
// The UDP sockets are on the host's network, by design, close on exec. The bind
// wraps wireguard-go's own; see [bind] for why. Cryptokey routing, roaming,
// rekeying and timers are the device's. Endpoint names are resolved by the host's
// resolver, when the link opens and again while handshakes go unanswered.
//
// # Goroutines
//
// Open starts one, which watches for the first handshake and later for endpoints
// that moved; Close waits for it, and for the device's readers and writers. The
// device's crypto workers end by themselves once their queues are closed.
//
// Lock order: a direction's lock is taken last, and nothing is called under it
// but package offload.
package wg
