// SPDX-License-Identifier: Apache-2.0

// Package vde plugs into Virtual Distributed Ethernet: the switches of VirtualSquare's
// vde-2, and what else the URLs of vdeplug 4 name. It is written from the protocol and
// the manuals, in Go alone: neither libvdeplug nor a plugin of it is loaded.
//
//	stack --[Hdr|frame]--> offloading --frames--> plug --datagrams--> vde_switch, UDP...
//	                                              plug --bytes-----> a command's stdin
//	stack --[Hdr|frame]--> node --frames or [Hdr|frame]--> other people's plugs
//
// # Plugs
//
// [Parse] reads a URL and [Open] makes a [stacks.Link] of it. Each scheme is a link of
// its own without offload; vlan:// is a link over another. Open puts offload on top:
// super-segments are cut into frames (see cutter), runs of received frames are put
// together (see glue), with the checksums that a network card would have made and
// checked. tap:// and slirp:// are links of other packages, which the caller gives
// ([Options.Elsewhere]); seen through vlan:// their offload is taken off again (framed).
//
// Frames pass sockets in batches, sendmmsg(2) and recvmmsg(2), which never wait: the
// runtime's poller does. On a switch's socket the writer waits while the switch has not
// read what was sent before; so TCP slows down and nothing is lost on our side.
//
// # What the program sees when the other end goes away
//
// A pulled cable. Frames are lost, connections wait and are given up after the time
// that TCP allows; nothing goes another way. The client of a switch asks for its port
// again until the switch is back, then all goes on. A command that ends or closes its
// standard output is started again, after 1 s, 2 s and so on up to 30 s. A ptp:// or
// udp:// peer that comes back is simply there.
//
// # Serving
//
// switch://, hub:// and multi:// speak the other side of the protocol: a node has a
// directory with a control socket, and plugs of umrun, vde_plug, vdens or QEMU are
// equal in it. A plug that is umrun too is told from others by [offloadToken], and the
// two exchange super-segments of 64 KiB instead of frames. A plug says by which socket
// it can be reached; it must belong to the user at the other end of the control
// connection, so that nobody has a node write to sockets that are not his.
//
// # Who is trusted
//
// Whoever is on the network can send any frame. What comes in is checked like what a
// wire brings; a request, an answer and a header of super-segments can say anything
// without harm (FuzzRequest, FuzzCutter, FuzzDecoder, FuzzTags). Nothing is encrypted:
// VDE over other people's networks wants cmd://ssh, or WireGuard below.
// The command of cmd:// runs on the host's network, with the rights of who started
// umrun, as the sockets of udp://, vxvde:// and vxlan:// are the host's.
//
// # Goroutines and locks
//
// client: one that waits for the switch to hang up. command: one that watches the
// process, one per process for its standard error and its end. node: one that accepts,
// two per port. vx: one per socket. Close ends and waits for all of them. Every lock is
// a leaf but node.mu, under which the table of ports is replaced and goroutines are
// started.
package vde
