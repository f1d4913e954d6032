// SPDX-License-Identifier: Apache-2.0

// Package nat is a link behind which lies the host's network: whatever the
// view's stack opens is opened again with the host's own sockets, without
// privileges, namespaces or devices.
//
//	view's stack --Write--> input --TCP--> private stack --> relay --> host's TCP
//	             <--Read--- queue <-------------------------------------- sockets
//	                          ^----UDP, ICMP echo, ICMP errors--> mappings --> host's UDP, ping
//
// # The network
//
// The view is 10.0.2.15 and fd00:2::15. Its gateway, 10.0.2.2 and fd00:2::2,
// answers pings; it also stands for the host's loopback where Options open that,
// and refuses connections where not. At 10.0.2.3 and fd00:2::3, port 53, a relay
// hands queries to the host's name servers, wherever those listen. There are no
// groups: multicast and broadcast are dropped. The ways in are to answer, to write
// to the port of a UDP mapping, and what was published.
//
// With its loopback closed, no address leads there, nor to what else is assigned
// to the host's loopback interfaces: see Link.toHost. The host's other addresses
// are the host's network: what listens at them is reached, as it is by the host's
// neighbours.
//
// # TCP
//
// A private gVisor stack owns every address there is and ends the view's
// connections. The handshake with the view is completed after the host's connect
// has succeeded; if it fails, an RST or an ICMP error gives the program the errno
// that it would have had on the host. From then on a flow is two goroutines, see
// the type. FIN becomes FIN, a reset becomes a reset; windows make
// back-pressure. What a relay does not carry: the urgency of data, which comes in its
// place, and the program's own keep-alives, in place of which the host's connection
// has some. A reset of the
// host is not seen past data that the view does not read.
//
// # Datagrams
//
// UDP and echo do not pass through the private stack, but for fragments to be
// put together. A mapping is a socket of the host for a port of the view, see
// the type; errors that come back for it (IP_RECVERR) are made into ICMP errors
// about the view's own packet, "time exceeded" included, and a short TTL is
// handed on: traceroute works. The host's sockets choose whether to fragment; a
// view's "don't fragment" ends here, with the link's MTU.
//
// # Upstreams
//
// With Options.Upstream the same relay stands before a proxy: connections and
// datagrams go to it in place of the host's sockets, whatever their address but
// for those at which the NAT itself answers. A flow reads and writes the descriptor
// of its stream as it does the host's. A UDP port is opened on a goroutine of its
// own, see port; where there is none the view is told by ICMP, as of all that is
// neither TCP nor UDP.
//
// # Published ports
//
// Nothing listens on the host but what [Link.Publish] opens: a TCP listener, whose
// connections the private stack makes again from the client's address, or a UDP socket
// that is the mapping of one of the view's ports for good. See [Publication].
//
// # Shortcuts
//
// The view's stack may ask for the host's socket of a flow ([stacks.Shortcut]) and move
// the bytes itself, past both stacks, while these keep all else: names, FIN, resets,
// time-outs. See the type shortcut.
//
// # Guests
//
// [Serve] puts the same NAT at the end of an Ethernet link, as the router of whoever
// is on it: it answers ARP and neighbour solicitations for its addresses, leases
// addresses by DHCPv4, advertises a prefix for SLAAC, and says who answers names in
// both. See [Server].
//
// # Packets
//
// The link carries a virtio_net_hdr and TCP segments of 64 KiB in both
// directions. Checksums are left to be completed towards the view; of what comes
// from it those are verified that are not marked as partial or valid.
//
// # Goroutines and locks
//
// Everything that a view's packet sets off runs on the goroutine that is in
// Link.Write and does not block there. Goroutines are: one per TCP connection
// being opened, two per open one, one per mapping (two on an upstream) and per published port, one per
// name query, one that ends idle mappings, and those of the private stack. Link.wg
// counts them, and Close waits for it. New ones are started between Link.enter and Link.leave, or
// by a goroutine that is counted already.
//
// Lock order: Link.life, then mapTable.mu; port.mu before queue.mu; all others are
// leaves. gVisor's locks
// may be held when queue.mu is taken and when flow.NotifyEvent runs; neither
// calls back. A host socket is never closed under a lock that a goroutine needs
// which may be waiting for the queue.
package nat
