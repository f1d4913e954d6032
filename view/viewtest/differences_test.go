// SPDX-License-Identifier: Apache-2.0

// The lines that umrun answers in another way than the kernel, and why.

package viewtest_test

// A difference is one line of a transcript that umrun answers in another way.
type difference struct {
	where         string // cases, as path.Match takes it
	native, umrun string
	sometimes     bool // a race: the native line is right too
	reason        string
}

// Reasons that several lines share.
const (
	unixStream = "the placeholder is an AF_UNIX stream: the calls that do not trap have its errnos"
	noTrap     = "send and recv without an address do not trap: an error is told by the next call that does"
	oneError   = "the only error that AF_UNIX can be made to show is ECONNRESET"
	ofRequest  = "gVisor answers an echo request with its header"
	gateEnd    = "the gate's filler is freed an instant after the failure is shown"
)

var differences = []difference{
	// AF_UNIX under TCP, the calls that the kernel answers.
	{where: "stream/reset-write-*", native: "write first: ECONNRESET", umrun: "write first: EPIPE", reason: unixStream},
	{where: "stream/reset-*", native: "read: 0", umrun: "read: ECONNRESET", reason: unixStream},
	{where: "listen/wrong-listen-*", native: "read a listener: ENOTCONN", umrun: "read a listener: EINVAL", reason: unixStream},
	{where: "listen/wrong-listen-*", native: "send on a listener: EPIPE", umrun: "send on a listener: ENOTCONN", reason: unixStream},
	{where: "listen/shutdown-*", native: "shut listener: OUT|HUP", umrun: "shut listener: none", reason: unixStream},

	// Readiness at a failure.
	{where: "ready/*", native: "result: IN|OUT|ERR|HUP|RDHUP", umrun: "result: IN|ERR|HUP|RDHUP", sometimes: true, reason: gateEnd},
	{where: "ready/*", native: "again: IN|OUT|ERR|HUP|RDHUP", umrun: "again: IN|ERR|HUP|RDHUP", sometimes: true, reason: gateEnd},
	{where: "ready/epoll-et-*", native: "again: none", umrun: "again: IN|OUT|ERR|HUP|RDHUP", sometimes: true, reason: gateEnd},

	// Datagrams that are sent and received without an address.
	{where: "udp/no-address-*", native: "send without address: EDESTADDRREQ", umrun: "send without address: 1", reason: noTrap},
	{where: "udp/no-address-*", native: "write without address: EDESTADDRREQ", umrun: "write without address: 1", reason: noTrap},
	{where: "udp/refused-*", native: "recvfrom: ECONNREFUSED", umrun: "recvfrom: ECONNRESET", reason: oneError},
	{where: "errors/connected-recv-*", native: "recv: ECONNREFUSED", umrun: "recv: ECONNRESET", reason: oneError},
	{where: "errors/connected-recv-*", native: "read: ECONNREFUSED", umrun: "read: ECONNRESET", reason: oneError},
	{where: "badptr/send-null", native: "null: sendto address: EDESTADDRREQ", umrun: "null: sendto address: ok", reason: noTrap},

	// AF_UNIX streams cannot be made to show POLLERR and live on.
	{where: "stamps/tcp-timestamping-?", native: "TX_SOFTWARE: ok", umrun: "TX_SOFTWARE: ENOPROTOOPT", reason: "stamps of what was sent are shown by POLLERR"},

	// Raw sockets.
	{where: "rawsend/unconnected-?", native: "no address: EDESTADDRREQ", umrun: "no address: 1", reason: noTrap},
	{where: "raw/udp-copy-4", native: "raw: ihl 20 tos 0 len 36 id set frag 4000 ttl 64 proto 17 check good",
		umrun: "raw: ihl 20 tos 0 len 36 id 0 frag 4000 ttl 64 proto 17 check good", reason: "gVisor numbers no packets that may not be cut (RFC 6864 §4.1)"},
	{where: "raw/echo-*-4", native: "message: ihl 20 tos 0 len 84 id set frag 0 ttl 64 proto 1 check good",
		umrun: "message: ihl 20 tos 0 len 84 id set frag 4000 ttl 64 proto 1 check good", reason: ofRequest},
	{where: "rawfilter/icmp-filter-4", native: "only the reply: ihl 20 tos 0 len 36 id set frag 0 ttl 64 proto 1 check good",
		umrun: "only the reply: ihl 20 tos 0 len 36 id set frag 4000 ttl 64 proto 1 check good", reason: ofRequest},
}

// kernelDifferences are those with stack=kernel, where sockets are the kernel's: none.
var kernelDifferences []difference

// kernelApart are cases that are not compared with stack=kernel.
var kernelApart = []difference{
	{where: "sockopt/*.SOL_SOCKET.SO_DEBUG", reason: ofMachine},
	{where: "sockopt/*.SOL_SOCKET.SO_SNDBUFFORCE", reason: ofMachine},
	{where: "sockopt/*.SOL_SOCKET.SO_RCVBUFFORCE", reason: ofMachine},
	{where: "sockopt/*.SOL_SOCKET.SO_BUSY_POLL", reason: ofMachine, sometimes: true},
	{where: "sockopt/*.SOL_SOCKET.SO_PREFER_BUSY_POLL", reason: ofMachine},
	{where: "sockopt/*.SOL_SOCKET.SO_BUSY_POLL_BUDGET", reason: ofMachine},
	{where: "sockopt/*.SOL_SOCKET.SO_NETNS_COOKIE", reason: "each namespace has its own"},
	{where: "sockopt/*.SOL_SOCKET.SO_INCOMING_CPU", reason: "where a packet happened to be handled", sometimes: true},
}

// ofMachine is why they differ: the program natively is root of the machine, and under
// umrun of the namespace alone.
const ofMachine = "it takes privileges on the machine, not in a namespace"

// Reasons why what is second differs.
const (
	loopFirst = "the loopback interface is the first network's: a socket that is bound to the other one, or there, has no endpoint beyond"
	nextPeer  = "a socket that is connected anew sends by the network of the new peer, from its address"
)

// secondDifferences are those of a network that is not the first one, beside differences.
var secondDifferences = []difference{
	{where: "bind/connect-chooses-source", native: "own getsockname: 127.0.0.1 port EPH len 16", umrun: "own getsockname: SELF port EPH len 16", reason: nextPeer},
	{where: "bind/connect-chooses-source", native: "to the peer: EINVAL", umrun: "to the peer: ok", reason: nextPeer},
	{where: "bind/connect-chooses-source", native: "peer getsockname: 127.0.0.1 port EPH len 16", umrun: "peer getsockname: SELF port EPH len 16", reason: nextPeer},
	{where: "bind/connect-chooses-source", native: "peer getpeername: SELF port 9 len 16", umrun: "peer getpeername: 10.77.0.1 port 9 len 16", reason: nextPeer},
	{where: "mcast/interfaces-of-a-member", native: "another joins on lo: ok", umrun: "another joins on lo: ENODEV", reason: loopFirst},
	{where: "mcast/interfaces-of-a-member", native: `a group that was joined elsewhere: 6 "twelve" from 127.0.0.1 port EPH len 16`, umrun: "a group that was joined elsewhere: EAGAIN", reason: loopFirst},
	{where: "mcast/bind-address-is-source", native: "by lo: ok", umrun: "by lo: ENODEV", reason: loopFirst},
	{where: "scope/*-link-local", native: " sendto: 8", umrun: " sendto: EINVAL", reason: loopFirst},
	{where: "mapped/scope-sendto", native: "another interface: 1", umrun: "another interface: EINVAL", reason: loopFirst},
	{where: "rawsend/arguments-6", native: "mapped: 1", umrun: "mapped: ENETUNREACH", reason: "an address that stands for one of IPv4 goes by that one's network, loopback's here"},
}

// secondApart are cases of it that are not compared: a line follows from another one.
var secondApart = []difference{
	{where: "scope/udp-group-of-the-link", reason: loopFirst},
	{where: "scope/raw-group-of-the-link", reason: loopFirst},
}
