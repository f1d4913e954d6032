// SPDX-License-Identifier: Apache-2.0

// The contract of upstreams: what carries connections instead of packets.

package stacks

import (
	"context"
	"net"
	"net/netip"
	"syscall"
)

// An Upstream opens by its own means what a network's programs open: a proxy, above
// all. It knows connections and datagrams, and no packets; something that ends both
// (package nat) stands between it and a stack. Methods are safe for concurrent use.
type Upstream interface {
	// DialStream connects to dst, which a program of the view has connected to. It
	// returns once the other end is known to have accepted. Errors wrap a
	// unix.Errno, as connect(2) would give it, or are those of ctx.
	DialStream(ctx context.Context, dst netip.AddrPort) (UpstreamConn, error)

	// Apart reports whether datagrams to dst need a port that sends to nobody else:
	// who answers could not be told otherwise, as where dst stands for a name.
	Apart(dst netip.AddrPort) bool

	// ListenPacket opens what stands for a UDP port of the view, for datagrams to
	// dst alone if that is valid. Errors are those of DialStream; where there are no
	// datagrams at all, ENETUNREACH at once.
	ListenPacket(ctx context.Context, dst netip.AddrPort) (UpstreamPackets, error)

	// Close ends every connection and waits for the goroutines. Calls under way
	// return. Twice is fine.
	Close() error
}

// An UpstreamConn is a stream of an [Upstream]: a [net.TCPConn], or what behaves
// like one. Beside the methods, its descriptor (SyscallConn) is read and written,
// so it is a non-blocking stream socket; it may be one of AF_UNIX.
type UpstreamConn interface {
	net.Conn
	syscall.Conn
	CloseWrite() error
	SetLinger(sec int) error // 0: Close is a reset
}

// An Aborter is an [UpstreamConn] whose descriptor cannot tell a reset from an
// orderly end.
type Aborter interface {
	// Aborted reports, after the end of the stream, whether it was a reset.
	Aborted() bool
}

// A Holder is an [UpstreamConn] that takes bytes before they have left the process.
type Holder interface {
	// Held returns how many bytes were taken and have not gone on yet; the end of
	// them counts as one.
	Held() int
}

// UpstreamPackets sends and receives the datagrams of one UDP port of the view.
type UpstreamPackets interface {
	// WriteTo sends a datagram without waiting for anything. An error is a
	// unix.Errno, that of the destination (wrapped); EAGAIN drops it.
	WriteTo(p []byte, dst netip.AddrPort) error

	// ReadFrom waits for a datagram and says who sent it: an address as WriteTo
	// takes it. An error ends the use of the port.
	ReadFrom(p []byte) (n int, src netip.AddrPort, err error)

	// Close ends a blocked ReadFrom with net.ErrClosed. Twice is fine.
	Close() error
}
