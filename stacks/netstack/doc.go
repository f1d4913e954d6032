// SPDX-License-Identifier: Apache-2.0

// Package netstack is the userspace TCP/IP stack: gVisor's protocols behind the
// contract of package stacks, with a packet path and the socket semantics of
// Linux of our own.
//
// # How it works
//
//	socket calls -> stream, packet -> gVisor endpoints -> routes -> lo
//	                                                         \-> endpoint -> Link
//
// A [Stack] has a loopback interface (index 1, all of 127/8 and ::1) and one
// interface for each link. Addresses of its own are reached without leaving it.
// It never forwards between links.
//
// An Ethernet link has ARP and neighbour discovery of gVisor's, with the timing of
// Linux; what Linux adds is in neighbour.go. Its interface has a link-local address,
// and addresses of IPv6 are looked for on the link before they are used (dad.go).
// Router advertisements and DHCP are no business of the stack's: who reads them sets
// the state. IGMP and MLD are spoken on Ethernet links only.
//
// An endpoint (link.go) moves packets between gVisor and a link: outgoing ones
// through a bounded queue that a goroutine empties in bursts, incoming ones by a
// goroutine that reads batches. Nothing is dropped where TCP can be made to wait.
// Over an offloading link TCP travels in super-segments of up to 56 KiB with
// unfinished checksums; without offload every packet leaves complete. Checksums
// of incoming packets are verified in software, unless the link says that it did
// so itself. Acknowledgements that go alone are held back for a moment (ack.go), as
// gVisor itself does not do it.
//
// A stream (stream.go) or packet socket (packet.go) wraps one gVisor endpoint
// and adds what Linux does and gVisor does not: the states of connect(2), errors
// that are reported once, poll(2) masks in every state, sockets that can be
// connected again after a failure, option values (options.go and the tables
// beside it). gVisor's error types end in errno.go.
//
// A raw socket (raw.go) has an endpoint for its options only. What it receives, a hub
// (rawhub.go) takes from gVisor's delivery to raw endpoints, for every protocol there
// is (rawproto.go); what it sends is made in rawsend.go and given to a route as a
// packet with its header.
//
// Where packets go is decided by the rules and routes of the State (policy.go) when a
// socket sends or connects, and gVisor, whose one table knows destinations only, is
// told the interface. While nobody has changed the rules and no route refuses packets
// there is nothing to decide.
//
// Over a link that ends TCP in this process the bytes of a connection may go past the
// stack (bypass.go), for as long as nobody looks at packets or changes their ways.
//
// # Goroutines
//
// gVisor runs GOMAXPROCS TCP workers for the stack and timers; each link has two
// goroutines. A socket has none. What a callback of gVisor's may not do itself, because
// of the locks it is called with, is a short goroutine (tasks.go). Stack.Close ends and waits for all of them.
//
// # Locks
//
// Stack.steering is held, for reading but when its table changes for one packet, while
// gVisor looks for a route on behalf of a socket; nothing that gVisor calls takes it.
//
// gVisor's locks come last: none of ours but leaves (endpoint.mu, those of taps,
// detections, notices, tasks, bypasses, reports and of a raw socket's inbox and their hub) is ever taken by what gVisor calls. A socket's mu may be held across calls into
// gVisor; callbacks of Watch therefore never call into the stack.
package netstack
