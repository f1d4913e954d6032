// SPDX-License-Identifier: Apache-2.0

// The lines that umrun answers in another way than the kernel, and why.

package viewtest_test

// A difference is one line of a transcript that umrun answers in another way.
type difference struct {
	where         string // case, as path.Match takes it
	native, umrun string
	sometimes     bool // a race: the native line is right too
	reason        string
}

// Reasons that several lines share.
const (
	unixStream = "the placeholder is an AF_UNIX stream: the calls that do not trap have its errnos"
	noTrap     = "send and recv without an address do not trap: an error is told by the next call that does"
	gateEnd    = "the gate's filler is freed an instant after the failure is shown"
	kernelRace = "the kernel sets the error an instant before the state, and shows two events"
	stackPort  = "the stack gives the port of a failed connection back"
	recorded   = "the value is taken and not kept: a placeholder's own low-water mark is always 1"
	unmodelled = "the stack does not model it, so it is refused as unknown"
)

var differences = []difference{
	// AF_UNIX under TCP, the calls that the kernel answers.
	{where: "stream resets *", native: "write first: ECONNRESET", umrun: "write first: EPIPE", reason: unixStream},
	{where: "stream resets *", native: "read: 0", umrun: "read: ECONNRESET", reason: unixStream},
	{where: "listen wrong*", native: "read a listener: ENOTCONN", umrun: "read a listener: EINVAL", reason: unixStream},
	{where: "listen wrong*", native: "send on a listener: EPIPE", umrun: "send on a listener: ENOTCONN", reason: unixStream},
	{where: "listen wrong*", native: "shut listener: OUT|HUP", umrun: "shut listener: none", reason: unixStream},

	// Readiness at a failure.
	{where: "ready *", native: "result: IN|OUT|ERR|HUP|RDHUP", umrun: "result: IN|ERR|HUP|RDHUP", sometimes: true, reason: gateEnd},
	{where: "ready *", native: "again: IN|OUT|ERR|HUP|RDHUP", umrun: "again: IN|ERR|HUP|RDHUP", sometimes: true, reason: gateEnd},
	{where: "ready epoll-et *", native: "again: none", umrun: "again: IN|OUT|ERR|HUP|RDHUP", sometimes: true, reason: gateEnd},

	// The kernel's own race: the error is set an instant before the state.
	{where: "ready *", native: "result: OUT|ERR|HUP", umrun: "result: IN|OUT|ERR|HUP|RDHUP", sometimes: true, reason: kernelRace},
	{where: "ready *", native: "again: IN|OUT|ERR|HUP|RDHUP", umrun: "again: none", sometimes: true, reason: kernelRace},

	// Datagrams that are sent and received without an address.
	{where: "udp unconnected *", native: "send without address: EDESTADDRREQ", umrun: "send without address: 1", reason: noTrap},
	{where: "udp unconnected *", native: "write without address: EDESTADDRREQ", umrun: "write without address: 1", reason: noTrap},
	{where: "udp connected *", native: "recvfrom: ECONNREFUSED", umrun: "recvfrom: EAGAIN", reason: noTrap},
	{where: "udp connected *", native: "sendto, then: 1", umrun: "sendto, then: ECONNREFUSED", reason: noTrap},
	{where: "udp connected *", native: "recvfrom with address: ECONNREFUSED", umrun: "recvfrom with address: EAGAIN", reason: noTrap},
	{where: "badptr", native: "null: sendmsg control: EFAULT", umrun: "null: sendmsg control: EDESTADDRREQ", reason: noTrap},
	{where: "badptr", native: "null: sendto address: EDESTADDRREQ", umrun: "null: sendto address: ok", reason: noTrap},

	// Options.
	{where: "options *", native: "SO_RCVLOWAT: 1 (4), set 2: ok, then 2", umrun: "SO_RCVLOWAT: 1 (4), set 2: ok, then 1", reason: recorded},
	{where: "options ???4", native: "IP_FREEBIND: 0 (4)", umrun: "IP_FREEBIND: ENOPROTOOPT", reason: unmodelled},
	{where: "options udp?", native: "UDP_CORK: 0 (4)", umrun: "UDP_CORK: ENOPROTOOPT", reason: unmodelled},
	{where: "options tcp4", native: "IP_MULTICAST_TTL: 1 (4), set 5: EINVAL, then 1", umrun: "IP_MULTICAST_TTL: 1 (4), set 5: ok, then 1", reason: "the stack takes it on any socket"},
	{where: "options tcp6", native: "IPV6_MULTICAST_HOPS: 1 (4), set 5: ENOPROTOOPT, then 1", umrun: "IPV6_MULTICAST_HOPS: 1 (4), set 5: ok, then 1", reason: "the stack takes it on any socket"},
	{where: "options ???6", native: "unknown level: ENOPROTOOPT", umrun: "unknown level: EOPNOTSUPP", reason: "the kernel's families differ here, ours do not"},
	{where: "options udp6", native: "TCP option: -92", umrun: "TCP option: -95", reason: "the kernel's families differ here, ours do not"},
	{where: "options sockets", native: "type 15: EINVAL", umrun: "type 15: ESOCKTNOSUPPORT", reason: "a type that no kernel has"},

	{where: "connect arguments tcp6", native: "the other family: EINVAL", umrun: "the other family: EAFNOSUPPORT", reason: "the family is judged before the length"},

	// Connections that failed, and calls on connected sockets that cannot succeed.
	{where: "connect outcomes", native: "refused v4 getsockname: 0.0.0.0 port EPH len 16", umrun: "refused v4 getsockname: 0.0.0.0 port 0 len 16", reason: stackPort},
}

func init() {
	for _, what := range []string{"unreachable v4", "prohibited v4", "own address v4", "loopback v4", "any v4", "port 0"} {
		differences = append(differences, difference{where: "connect outcomes",
			native: what + " getsockname: 0.0.0.0 port EPH len 16", umrun: what + " getsockname: 0.0.0.0 port 0 len 16", reason: stackPort})
	}
	for _, what := range []string{"refused v6", "unreachable v6", "own address v6", "loopback v6", "any v6"} {
		differences = append(differences, difference{where: "connect outcomes",
			native: what + " getsockname: :: port EPH len 28", umrun: what + " getsockname: :: port 0 len 28", reason: stackPort})
	}
}
