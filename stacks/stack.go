// SPDX-License-Identifier: Apache-2.0

// The contract of stacks and their sockets.

package stacks

import (
	"io"
	"net/netip"
)

// A Stack is one network as a program sees it: a maker of sockets with its own
// addresses, routes and port space.
type Stack interface {
	// Socket makes a socket. Arguments are those of socket(2), without
	// SOCK_NONBLOCK and SOCK_CLOEXEC. SOCK_STREAM gives a [StreamSocket],
	// everything else a [PacketSocket]. Errors: EAFNOSUPPORT, EPROTONOSUPPORT,
	// ESOCKTNOSUPPORT, ENOBUFS.
	Socket(family, typ, proto int) (Socket, error)

	// State returns a snapshot that the caller may keep and must not change.
	State() State

	// Close ends the stack and every socket of it (their calls then give
	// ENETDOWN) and closes its links. It waits for the stack's goroutines.
	// Closing twice is fine.
	Close() error
}

// A KernelStack hands over real sockets of a network namespace. The program then
// calls the kernel, and nothing of it but socket(2) traps.
type KernelStack interface {
	Stack

	// SocketFD makes the socket that the program itself will hold, blocking and
	// close-on-exec; the caller owns it. Arguments are those of Socket, and errors
	// what socket(2) says in that namespace. It may wait for another process.
	SocketFD(family, typ, proto int) (fd int, err error)

	// ReadyFD is SocketFD where that need not wait; ok is false where it must.
	ReadyFD(family, typ, proto int) (fd int, ok bool)

	// Namespace says where the sockets are.
	Namespace() Namespace
}

// A Namespace is a network namespace as far as it matters to who may do what there.
type Namespace struct {
	Inode uint64 // of its file in nsfs

	// Private: it was made for the stack, and whoever uses the stack may do there
	// what takes privileges elsewhere (raw sockets, changes of addresses).
	Private bool
}

// A Lingerer is implemented by stacks and links that know what is on its way when no program
// has a socket any more.
type Lingerer interface {
	// Undelivered returns the bytes that the peers have not yet acknowledged, and on
	// how many connections or interfaces something waits at all.
	Undelivered() (bytes, waiting int)
}

// Events is a set of poll(2) events: unix.POLLIN, POLLOUT, POLLPRI, POLLERR,
// POLLHUP, POLLRDHUP.
type Events uint32

// A Socket is what streams and datagrams have in common. No call blocks.
type Socket interface {
	// Bind names the socket, bind(2). Port 0 picks an ephemeral port.
	Bind(netip.AddrPort) error

	// Connect starts or reports a connection, connect(2) on a non-blocking
	// socket: nil when connected (datagrams: always at once), EINPROGRESS when
	// started, EALREADY while under way, EISCONN after success was reported,
	// else the cause of failure. The zero AddrPort dissolves a datagram
	// socket's association (AF_UNSPEC).
	Connect(netip.AddrPort) error

	// Names returns the local and the remote address; the remote one is the
	// zero AddrPort while there is no peer.
	Names() (local, remote netip.AddrPort)

	// Shutdown takes unix.SHUT_RD, SHUT_WR, SHUT_RDWR. ENOTCONN without a peer.
	Shutdown(how int) error

	// SetOption is setsockopt(2) with the value as the program gave it.
	// ENOPROTOOPT for what the stack does not model, EINVAL for a short value.
	SetOption(level, name int, value []byte) error

	// Option is getsockopt(2): it fills value and returns how many bytes the
	// option has (never more than len(value)). SO_ERROR is served here too and
	// clears the error it reports. value holds what the program's buffer holds
	// where that says what is asked for (IP_MSFILTER, MCAST_MSFILTER).
	Option(level, name int, value []byte) (int, error)

	// Poll returns the events that hold now, as poll(2) would report them.
	Poll() Events

	// Watch calls f with a hint of what changed each time that one of the
	// events in mask may have begun to hold, edge triggered; spurious calls are
	// allowed, lost edges are not. stop is idempotent; f may still be running
	// when it returns.
	Watch(mask Events, f func(Events)) (stop func())

	// Close releases the socket. A connected stream sends what is queued, then
	// FIN, in the background (close(2) without SO_LINGER). Twice is fine.
	Close() error
}

// Owned is what a Socket may have for rules that look at who made it.
type Owned interface {
	// SetOwner says which user made the socket, if that is not the one whom this
	// process belongs to. It is called before all else.
	SetOwner(uid uint32)
}

// A Payload is a source of bytes whose length is known: Len bytes are there to
// be read at once. Read may be called with an empty slice and then returns 0,
// nil.
type Payload interface {
	io.Reader
	Len() int
}

// A StreamSocket is a TCP socket.
type StreamSocket interface {
	Socket

	// Listen turns a bound or unbound socket into a listener, listen(2); a
	// second call changes the backlog.
	Listen(backlog int) error

	// Accept takes an established connection; EAGAIN when there is none, EINVAL
	// when the socket does not listen. Where the peer has already reset the
	// connection it is handed out all the same, as on Linux.
	Accept() (StreamSocket, error)

	// Send queues up to p.Len() bytes and returns how many were taken. EAGAIN
	// when the send buffer is full, EPIPE after SHUT_WR, ECONNRESET and the
	// like once, then EPIPE. More than 64 KiB at once is not useful.
	Send(p Payload) (int, error)

	// Recv writes up to n received bytes to w and returns how many; a short
	// write of w leaves the rest queued. EAGAIN when nothing is there, io.EOF
	// after FIN, ECONNRESET after a reset that was not reported yet. Recv also
	// lets the receive window grow by what was taken.
	Recv(w io.Writer, n int) (int, error)

	// Abort closes with RST and throws away what is queued.
	Abort()
}

// Unacked is what a StreamSocket may know of its send queue.
type Unacked interface {
	// Unacked returns the bytes that Send took and the peer has not yet
	// acknowledged (SIOCOUTQ of tcp(7)), a FIN not counted; done says that
	// nothing more will happen: all was acknowledged and, after Close, the FIN
	// too, or the connection is dead.
	Unacked() (bytes int, done bool)
}

// Corked is what a StreamSocket may have for MSG_MORE.
type Corked interface {
	// More says whether a segment that is not full may be held back, as after a
	// send with MSG_MORE, for some time (tcp(7), TCP_CORK: 200 ms). false sends it.
	More(bool)
}

// Urgent is what a StreamSocket may have for MSG_OOB.
type Urgent interface {
	// MarkUrgent makes the byte urgent that is sent when ahead more have been; it
	// is called before they are. It returns false where that cannot be said to the
	// peer, to which the byte then comes as any other. One byte of a connection is
	// urgent, the last that was marked.
	MarkUrgent(ahead int) bool

	// Urgent tells how many bytes Recv gives before one that the peer has marked;
	// ok is false if there is none. Recv stops before that byte, and gives it alone
	// once Urgent has said that it is the next one.
	Urgent() (ahead int, ok bool)
}

// A PacketSocket is a datagram socket: UDP, ICMP echo, or a raw socket, raw(7), whose
// datagrams are packets: received ones begin with their header if they are IPv4, and
// behind it if they are IPv6. Of a raw socket's local address the port is its protocol,
// and SO_ATTACH_FILTER is set with the program itself, an array of struct sock_filter.
type PacketSocket interface {
	Socket

	// SendMsg sends one datagram. m.Peer overrides the connected peer. EDESTADDRREQ
	// without any, EMSGSIZE, EAGAIN when the queue is full, ENETUNREACH, or a
	// pending asynchronous error such as ECONNREFUSED.
	SendMsg(p []byte, m Message) error

	// RecvMsg takes the first datagram, or only looks at it (peek): n bytes were
	// put into p, the datagram has size bytes, m tells where it came from.
	// EAGAIN when there is none, or a pending asynchronous error.
	RecvMsg(p []byte, peek bool) (n, size int, m Message, err error)
}

// A Message is what travels with a datagram.
type Message struct {
	Peer    netip.AddrPort // source when received, destination when sent
	Local   netip.Addr     // address it was sent to, or shall be sent from (IP_PKTINFO)
	IfIndex int            // interface it came in by, or shall leave by; 0 any
	TTL     int            // TTL or hop limit as received; when sending, -1 or 0 is the socket's
	TOS     int            // TOS or traffic class, likewise
	Stamp   int64          // time of arrival, ns since the epoch; 0 unknown
	Dropped uint32         // datagrams that found no room at the socket by the time this one was taken
	Link    any            // of a packet socket, its own business

	// Mark is what rules see instead of the socket's SO_MARK if Marked is set, when
	// sending. EPERM where a stack cannot have marks of single datagrams.
	Mark   uint32
	Marked bool

	// Segment is the size in bytes of the datagrams that one message stands for,
	// the last of which may be shorter (udp(7), UDP_SEGMENT and UDP_GRO). When
	// sending, 0 is the socket's setting and -1 is none; received messages of a
	// stack are single datagrams, 0.
	Segment int
}
