// SPDX-License-Identifier: Apache-2.0

// Package viewtest is the laboratory in which umrun is tried with real things:
// a host whose every stray packet is counted, and independent WireGuard peers
// with real servers behind them.
//
//	 host namespace                              peer namespace (one or more)
//	+---------------------------------+         +-----------------------------------+
//	| umrun, programs                 |  veth   | link0 192.0.2.1/30   wireguard-go |
//	|   link0 192.0.2.2/30 -----------+---------+   wg0 10.77.0.1/24, fd77::1/64    |
//	|                                 |         | nginx dnsmasq iperf3 sshd echo... |
//	|   sink0 198.51.100.2/30         |         +-----------------+-----------------+
//	|     | default route, v4 and v6  |                           | veth
//	+-----|---------------------------+         +-----------------+-----------------+
//	      | veth                                | native namespace                  |
//	+-----+---------------------------+         |   wg0 10.77.0.4/24, fd77::4/64    |
//	| sink namespace                  |         | (a kernel TUN: the oracle of the  |
//	|   counts every frame, answers   |         |  transcripts)                     |
//	|   none                          |         +-----------------------------------+
//	+---------------------------------+
//
// [Peer.Routers] puts a path behind a peer: two routers, a narrow link between them,
// a host at the end.
//
// A packet of a program that leaves the host by anything but the tunnel ends in
// the sink, or on the peer's end of the link, and both are watched: [World.Strays]
// says what was seen. Nothing in the laboratory reaches a real network.
//
// # Namespaces
//
// An [NS] is a network and a mount namespace without a name, held by one locked
// OS thread. Commands are forked from that thread and listeners are made on it,
// so there is no ip-netns name to collide with or to leave behind: when the test
// process ends, however it ends, the thread goes, the kernel kills its children
// (PR_SET_PDEATHSIG) and the namespaces vanish with them.
//
// # Lifecycle
//
// [New] builds a world and registers its end with t.Cleanup. The end kills what
// still runs in the namespaces, waits for the servers' goroutines and closes the
// threads. Everything that waits has a deadline.
//
// # Programs
//
// TestMatrix runs the clients of the integration tests over every pair of stack and
// link; with LAB_MATRIX=FILE all of them, and writes the matrix (make matrix:
// docs/matrix.md). Who makes a new link or stack gives it a column, in uplinks.
//
// TestPrograms has a table of programs that people run on networks, each in a view
// against a native counterpart behind the peer. With UMRUN_PROGRAMS=FILE it does
// all of them and writes the table (make programs: docs/programs.md), else the
// quick ones; a run of some of them, as -run TestPrograms/Redis, leaves the lines
// of the others. With LAB_NATIVE=1 it does the same over the kernel's stack.
//
// # Who may use it
//
// Root. An ordinary user's run skips, visibly: see [Need].
package viewtest
