// SPDX-License-Identifier: Apache-2.0

// Package pipe joins two stacks of one process: a pair of links, what one end
// writes the other reads. It is a patch cable without loss, reordering or
// delay.
//
// # How it works
//
// Each direction is a queue of copied packets, bounded in packets and bytes.
// A writer that finds it full waits for the reader, so a fast sender is slowed
// down and nothing is lost. A reader takes as many packets as it has buffers
// for, with one wake-up for a whole burst.
//
// An offloading pipe carries super-segments of up to 64 KiB with unfinished
// checksums, each behind a virtio_net_hdr: bytes then cost little more than two
// copies. The pipe never looks into a packet.
//
// # Close
//
// Closing an end is pulling out that plug. Its own calls return net.ErrClosed;
// the other end stays up, its reads wait and what it writes is lost, as on a
// cable that ends nowhere.
//
// The package starts no goroutine. Each direction has one lock, and no call
// holds both.
package pipe
