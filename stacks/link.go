// SPDX-License-Identifier: Apache-2.0

// The contract of links: what carries packets to and from a userspace stack.

package stacks

import (
	"net"
	"net/netip"
)

// LinkType says what a link's packets begin with.
type LinkType int

// The link types.
const (
	LinkIP       LinkType = iota // IPv4 and IPv6 packets, no link header (ARPHRD_NONE)
	LinkEthernet                 // Ethernet II frames without FCS (ARPHRD_ETHER)
)

// A Link moves packets in batches.
//
// Ownership: the caller owns every buffer, before and after the call; a link
// copies what it keeps. Read is called by one goroutine at a time, Write by any
// number. Write blocks where the link can push back (that is how TCP slows down
// instead of losing packets) and drops only where the medium itself does.
//
// A link that implements [Offloads] and reports true carries a virtio_net_hdr in
// front of every packet, in both directions; see package offload.
type Link interface {
	Type() LinkType
	MTU() int       // bytes of the network layer
	BatchSize() int // most packets that one Read fills; also the best Write

	// Read waits for at least one packet, puts packets into bufs and their
	// lengths into sizes, and returns how many. A buffer must hold
	// [MaxPacket] bytes if the link offloads, else header + MTU.
	Read(bufs [][]byte, sizes []int) (int, error)

	// Write sends packets and returns how many were taken.
	Write(bufs [][]byte) (int, error)

	// Close ends the link; blocked and later Read and Write return
	// net.ErrClosed. Twice is fine.
	Close() error
}

// MaxPacket is the largest buffer a link reads or writes: virtio_net_hdr,
// Ethernet header, and an IP packet of 64 KiB.
const MaxPacket = 10 + 14 + 65535

// Offloads is implemented by links that can carry super-segments and unfinished
// checksums inside the process.
type Offloads interface {
	// Offloads reports whether each packet is preceded by a virtio_net_hdr of
	// 10 bytes (linux/virtio_net.h, little endian). It is constant.
	Offloads() bool
}

// A TryWriter is implemented by links that can take packets without waiting. A
// stack then saves a goroutine between the sender and the link, which matters to
// packets that come one at a time.
type TryWriter interface {
	// TryWrite takes packets like Link.Write as long as it need not wait, and
	// returns how many; it may be called with locks of the stack held, and calls
	// nothing of the stack's. What it does not take is for Write.
	TryWrite(bufs [][]byte) int
}

// A Pusher is implemented by links that can hand over a packet where it arrives. A
// stack then saves a goroutine between the link and itself, which matters to packets
// that come one at a time.
type Pusher interface {
	// Push has f called with packets that come alone while Read waits, instead of
	// returning them there; the order of each sender's packets is kept. It is
	// called once, before the first Read. f runs on the link's goroutines, several
	// at a time, does not keep the packet, and does not wait for the link.
	Push(f func(packet []byte))
}

// A Waiter is implemented by links that are not up from the first moment.
type Waiter interface {
	// Up returns a channel that is closed when the link first carries traffic
	// (WireGuard: the first handshake of any peer).
	Up() <-chan struct{}
}

// A LinkConfig is one interface of a stack that runs over links, as it begins.
type LinkConfig struct {
	Name   string // at most 15 bytes, not "lo"
	Link   Link
	Addrs  []netip.Prefix   // own addresses; their networks are on link
	Routes []Route          // further routes by this link: Dst, Gateway and Src count
	MTU    int              // bytes of the network layer; the link's own if zero
	MAC    net.HardwareAddr // of an Ethernet link; nil: the stack makes one up, locally administered
}

// A TUNServer is implemented by links that can serve a TUN device of the kernel
// themselves. A kernel stack then moves no packets at all.
type TUNServer interface {
	// ServeTUN makes the device's packets those of the link, instead of Read, Write
	// and what else moves any. fd is a TUN device with IFF_NO_PI and IFF_VNET_HDR,
	// non-blocking; it is the link's from then on, also on an error, and is closed
	// with it. It is called at most once.
	ServeTUN(fd int) error
}
