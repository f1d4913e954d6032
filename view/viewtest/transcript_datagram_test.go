// SPDX-License-Identifier: Apache-2.0

// Datagrams in breadth: multicast, broadcast, binding, flags and control messages.

package viewtest_test

func init() {
	transcripts = append(transcripts,
		"groups 4", "groups 6", "mcast ip4", "mcast ip6", "broadcast", "bind udp", "bind tcp", "msg 4", "msg 6", "mmsg 4", "mmsg 6", "tcpmsg 4", "tcpmsg 6", "pingsock 4", "pingsock 6", "cmsg 4", "cmsg 6", "cmsg mapped", "mapped udp", "mapped tcp", "mapped scopes", "scope tcp", "scope udp", "scope ping",
		"state tcp4", "state tcp6", "state udp4", "state udp6", "state files",
	)
	const (
		low = "the view is the program's own network: low ports are its own"
	)
	for _, kind := range []string{"udp", "tcp"} {
		differences = append(differences,
			difference{where: "bind/" + kind + "-low-port", native: "1023: EACCES", umrun: "1023: ok", reason: low},
		)
	}
	const (
		backlog   = "as many connections again wait in the stack as in the placeholder's queue"
		pings     = "the endpoint keeps the identifier of a connection that was dissolved"
		dissolved = "a dissolved socket has a new placeholder, without an error"
	)
	const dual = "of two sockets that both take IPv4, the last one bound gets it, not the one of AF_INET"
	differences = append(differences,
		difference{where: "mcast/bind-address-is-source", native: "from: 3 \"own\" from SELF port EPH len 16", umrun: "from: EAGAIN",
			reason: "a packet leaves by an interface that has its source address, not by another that IP_MULTICAST_IF names"},
		difference{where: "msg/splice-in-?", native: "came: 3 \"ghi\" from *", umrun: "came: 2 \"gh\" from *", reason: "splice does not trap, and its MSG_MORE is none to AF_UNIX"},
		difference{where: "cmsg/send-ttl-6", native: "came: 3 flags 0, PKTINFO6 ::1 by lo, 41/52 int 0, 41/67 int 0, ORIGDST ::1 port EPH len 28",
			umrun: "came: 3 flags 0, PKTINFO6 ::1 by lo, 41/52 int 64, 41/67 int 0, ORIGDST ::1 port EPH len 28", reason: "a hop limit of 0 goes nowhere, and is taken for the socket's"},
		difference{where: "mapped/udp-failed-send-binds", native: "a port getsockname: :: port EPH len 28", umrun: "a port getsockname: :: port 0 len 28", reason: "a datagram that is not sent needs no port"},
		difference{where: "state/tcp?-backlog", native: "backlog 0: 1 connected", umrun: "backlog 0: * connected", reason: backlog},
		difference{where: "state/tcp?-backlog", native: "backlog 1: 2 connected", umrun: "backlog 1: * connected", reason: backlog},
		difference{where: "state/tcp?-backlog", native: "backlog 3: 4 connected", umrun: "backlog 3: * connected", reason: backlog},
		difference{where: "state/tcp?-shutdown-peer-*", native: "again: ENOTCONN", umrun: "again: ok", reason: "the placeholder is connected until it is closed"},
		difference{where: "state/tcp?-bind-reset", native: "bind: ok", umrun: "bind: EBADF", reason: "a connection that was reset ends the endpoint; AF_UNSPEC makes a new one"},
		difference{where: "state/tcp?-poll-dissolved", native: "OUT|ERR|HUP", umrun: "OUT|HUP", reason: dissolved},
		difference{where: "state/tcp?-poll-dissolved", native: "it SO_ERROR: ECONNRESET", umrun: "it SO_ERROR: 0", reason: dissolved},
		difference{where: "state/udp4-dissolve-chosen-port", native: "*port 0 len 16", umrun: "*port EPH len 16", reason: "the port stays until the socket is closed"},
		difference{where: "state/udp6-dissolve-chosen-port", native: "*port 0 len 28", umrun: "*port EPH len 28", reason: "the port stays until the socket is closed"},
		difference{where: "state/file-tcp", native: "mmap: ok", umrun: "mmap: ENODEV", reason: "TCP_ZEROCOPY_RECEIVE is refused, and nothing else maps a socket"},
		difference{where: "state/tcp?-*", native: "* getsockname: * port EPH len *", umrun: "* getsockname: * port 0 len *", sometimes: true,
			reason: "the endpoint that failed may still hold the port when the next one wants it"},
		difference{where: "pingsock/bind-?", native: "in use: ok", umrun: "in use: EADDRINUSE", reason: "an identifier is given once"},
		difference{where: "pingsock/connected-?", native: "dissolve: ok", umrun: "dissolve: EADDRINUSE", reason: pings},
		difference{where: "pingsock/connected-?", native: "dissolved getsockname: * port 777 len *", umrun: "dissolved getsockname: * port 0 len *", reason: pings},
		difference{where: "pingsock/calls-?", native: "FIONREAD: ENOTTY", umrun: "FIONREAD: ok", reason: "the placeholder has it"},
		difference{where: "pingsock/calls-?", native: "-1", umrun: "0", reason: "the placeholder has it"},
		difference{where: "bind/v4-and-dual", native: "the dual one: EAGAIN", umrun: "the dual one: 4 \"nine\" from ::ffff:127.0.0.1 port EPH len 28", reason: dual},
		difference{where: "bind/v4-and-dual", native: "the v4 one: 4 \"nine\" from 127.0.0.1 port EPH len 16", umrun: "the v4 one: EAGAIN", reason: dual},
		difference{where: "bind/tcp-addresses", native: "239.1.2.3: ok", umrun: "239.1.2.3: EADDRNOTAVAIL", reason: "no stream can be there"},
		difference{where: "bind/no-port", native: "port 0", umrun: "port *", reason: "IP_BIND_ADDRESS_NO_PORT has no effect"},
	)
}
