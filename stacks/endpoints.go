// SPDX-License-Identifier: Apache-2.0

// What a stack may tell of its endpoints, for ss(8).

package stacks

import (
	"net/netip"
	"time"
)

// A Lister is implemented by stacks that know the state of their endpoints. Of
// those of other stacks, netmod tells what it can see itself.
type Lister interface {
	// Endpoints returns every TCP and UDP endpoint that occupies a port pair:
	// listeners, connections, those that wait to be accepted or that the program
	// has closed, and bound or connected datagram sockets.
	Endpoints() []Endpoint
}

// An Endpoint is one end of a connection, or one that waits for them.
type Endpoint struct {
	Family int // AF_INET or AF_INET6, as the socket was made
	Proto  int // IPPROTO_TCP or IPPROTO_UDP
	State  int // TCP_ESTABLISHED and so on of netinet/tcp.h; UDP: TCP_ESTABLISHED or TCP_CLOSE

	Local, Remote netip.AddrPort // as Socket.Names says; Remote is the zero AddrPort without a peer

	// RecvQ and SendQ are bytes that wait for the program and for the peer. Of a
	// listener they are the connections that wait, and how many may.
	RecvQ, SendQ int

	Timer Timer // of a connection
}

// A TimerKind is what a connection waits for, by its number of linux/inet_diag.h.
type TimerKind uint8

// The kinds.
const (
	NoTimer         TimerKind = 0
	TimerRetransmit TimerKind = 1 // an acknowledgement
	TimerKeepAlive  TimerKind = 2
	TimerTimeWait   TimerKind = 3
	TimerProbe      TimerKind = 4 // a window that is shut opens
)

// A Timer is when a connection that hears nothing does something.
type Timer struct {
	Kind    TimerKind
	Expires time.Duration
	Retries int // retransmissions or probes so far
}

// Peered is implemented by raw sockets, whose Names tells of no peer without a port,
// as getpeername(2) does.
type Peered interface {
	// Peer returns the address that the socket is connected to, the zero Addr if none.
	Peer() netip.Addr
}

// A Held is a socket of a kernel stack that somebody has open.
type Held struct {
	Proto         int // IPPROTO_TCP or IPPROTO_UDP
	Local, Remote netip.AddrPort
	Cookie        uint64 // SO_COOKIE
	Inode         uint32
}

// A Keeper is implemented by kernel stacks that know which sockets there are.
type Keeper interface {
	// Held lists them, in no order.
	Held() []Held
}

// An Unlisted is a socket that may be unknown to its stack's Lister.
type Unlisted interface {
	// Unlisted tells whether it is: what there is to tell of it is what its methods say.
	Unlisted() bool
}
