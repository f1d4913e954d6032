// SPDX-License-Identifier: Apache-2.0

// Package netmod turns the socket calls of the target into calls on a stack.
//
// # Placeholders
//
// What the program holds is a real file, installed by the supervisor: a
// placeholder. For SOCK_STREAM it is an unconnected AF_UNIX stream socket, which
// the module later connects or lets listen through a short-lived duplicate of
// the program's own descriptor; its poll(2) mask then equals that of a TCP
// socket in each state. For everything else it is one end of an AF_UNIX pair:
// SOCK_DGRAM, which can be made to show errors, or SOCK_SEQPACKET. read, write, poll, epoll, dup, fork, exec, SCM_RIGHTS and
// close are the kernel's own and never trap.
//
// A socket is found again by the SO_COOKIE of its placeholder, asked of the
// kernel at each trap, so that no descriptor table is kept and no close is
// tracked: closes show as a hang-up on the module's end of the pair, for
// SOCK_DGRAM pairs by inotify(7), see [closes], and for placeholders that have no
// such end by [liveness].
//
// Calls on AF_UNIX sockets that are none of the module's trap as well, and often; such
// a socket is marked, so that one question to the kernel lets them go on ([strangers]).
//
// # The gate
//
// A stream placeholder whose connect(2) is under way is connected to the module
// with its send buffer full: poll shows nothing and writes give EAGAIN, as TCP
// does in SYN_SENT. The buffer is made narrow for that, so that six bytes fill it.
// Success drains the filler and widens the buffer, which raises POLLOUT; failure
// closes the module's end with the filler unread, and the kernel makes that
// ECONNRESET with POLLIN|POLLOUT|POLLERR|POLLHUP|POLLRDHUP. SO_ERROR is trapped
// and tells the true cause. A blocking connect is parked instead and connects the
// placeholder only when it succeeds, so that a failed socket can be used again. One
// that failed behind a gate gets a new placeholder when it is connected again.
//
// # The last byte
//
// The pump from program to stack never consumes the last byte that it has
// forwarded: it stays in the queue, read again and dropped with the next batch.
// So there is always an unread byte, and closing the module's end aborts the
// program's side with ECONNRESET at any moment. Only an orderly end reads it.
// The first such bytes are the gate's last two, or one that the module itself
// writes through the program's end before the program has it.
//
// # Past the stack
//
// Where the far end of a link is in this process too, a stream that moves much asks for
// the descriptor there ([stacks.Bypass]) and splices between that and the placeholder;
// see [bypass]. Each direction changes over when nothing is on its way by the stack,
// and goes back when the descriptor ends, the stack recalls it, or data is urgent.
//
// # Urgent data
//
// AF_UNIX streams have an urgent byte as TCP has one: MSG_OOB, POLLPRI, SIGURG, the
// mark, SO_OOBINLINE. A send with MSG_OOB traps: what was written is moved to the
// stack, and the stack is told which byte is urgent before it gets it
// ([stacks.Urgent]). In the other direction the pump stops at that byte and writes it
// with MSG_OOB, and the rest is the kernel's.
//
// # Datagrams
//
// Where every datagram has the same source (a connected socket, netlink) and
// nothing else must be told of it, the module pushes datagrams into the pair as
// they come. Otherwise at most one datagram is in the pair: a trapped receive
// that finds one there knows that it is the one whose source was noted last, and
// one that finds none takes the next from the stack.
//
// # Errors of datagrams
//
// What ICMP says of a datagram makes an error pending. To show it, the module's end
// of the pair leaves its peer for an instant with a datagram unread: the kernel makes
// that ECONNRESET with POLLERR, once, and pending readers wake up (pair.go). So the
// last datagram that the program wrote stays in the queue, much like the last byte of
// a stream. Calls that trap take back what is shown and tell the true errno, and
// MSG_ERRQUEUE the details (errqueue.go).
//
// # Packet sockets
//
// An AF_PACKET socket is served here, like netlink, by what the stack tells of its
// interfaces ([stacks.Tapper]). It sees the view's interfaces and sends by them;
// WireGuard judges what it sends like any other packet.
//
// # Rings
//
// libpcap does not receive by recv(2): it asks for a ring (PACKET_RX_RING), maps the
// socket, reads the memory and calls poll(2) when there is nothing to read. It has no
// other way, and gives up without a ring. No file that an ordinary user can make has
// both memory that is shared with the supervisor and readiness that the supervisor
// sets, so that two take turns under the program's number. PACKET_RX_RING puts a
// memory file there, for mmap(2), which does not trap; the next trapped call on the
// number, if the memory is mapped by then, puts the placeholder back. Programs bind
// the socket last, to lose no packet (Documentation/networking/packet_mmap.rst), and
// that is such a call. One that never makes any finds the socket always readable.
//
// Readable is what the placeholder is made by an empty datagram, when a frame or
// block was handed over, and no longer once the program has given all of them back.
// That is a store to memory, of which nothing tells: the ring's goroutine looks, at
// once and then less and less often, and takes the datagram out again through a
// duplicate of the placeholder. That duplicate would hide the last close, so it is
// kept only while the memory is in use: the memory file is locked, and its lock ends
// with the last descriptor and mapping of the program's.
//
// # Kernel stacks
//
// Of a [stacks.KernelStack] the program gets real sockets, and this package is out of
// the way (kernel.go): socket(2) traps and installs one, and where the stack's
// namespace is the program's own not even that. What else traps is there for the
// doors (connect(2), since the family of an address stands in memory), for AF_UNIX
// sockets, which are asked about interfaces and belong to the program's namespace, and
// for bind(2), which the kernel does for the program no more (kernelbind.go).
// The rest of this page is about other stacks.
//
// # AF_UNIX in a view with files of its own
//
// Whoever serves the view's files may be asked what the path of an AF_UNIX address leads to
// ([Module.UsePaths]). Calls that name a socket, or may, are then made here on a duplicate of
// the program's, with copies of its memory, of all families: another thread could put an
// AF_UNIX socket under the number, or an address into a message, after we have looked. Where
// umrun is an ordinary user's, messages that tell which process sends them are sent by the
// program's thread in a call that has no address (bythread.go). See
// duplicate.go, copied.go for messages, unixpath.go and unixsend.go for what is special about
// AF_UNIX. A call that may wait does so on a thread of its own, from which a signal to
// the program's thread brings it back ([longCall]).
//
// # Who runs what
//
// Handlers run on intercept's receiver, one at a time, beside those of fsmod. One goroutine, the poller, waits on the
// module's ends of all pairs; a few workers serve what the stack's callbacks
// have marked ready. Each socket is a [job]: it runs on one of them at a time. No
// goroutine belongs to a socket, but for an answer of the DNS stub under way, a
// thread that waits in a trapped receive on a stream or in a call that is made here, or a ring
// of a packet socket.
// One more looks after what no event tells of, see [liveness].
//
// # Locks
//
//	socket.mu    one per socket; held while bytes move
//	Module.changing   one change of the stack's configuration at a time
//	closes.mu    held while closes are read
//	Module.mu    the table and the lists; never held across a call out
//	rendezvous.mu, queue.mu, netlinkPorts.mu, strangers.mu, longCall.mu   leaves
//	afpacket.mu  a leaf, taken by the stack's taps too
//	Module.install  while a socket of a kernel stack is made; before none of the others
//
// They are taken in this order; two socket mutexes are held together only as
// listener, then the child that no one else knows yet, and as netlink socket, then
// the one of another kind that it asks about, or the netlink socket whose port it
// wants.
// [intercept.Call.Complete] is called with the socket's mutex held, and the
// cancel function of a parked call takes it.
package netmod
