// SPDX-License-Identifier: Apache-2.0

// Package observe writes down what passes the interfaces of a network: packets into
// pcapng files, flows as lines of JSON.
//
// # How it works
//
//	stack --tap--> Recorder.take --buffer--> goroutine --> Capture (pcapng)
//	                                                  \--> Flows   (JSON lines)
//
// A tap ([stacks.Tapper]) runs with locks of the stack held, so that a [Recorder]
// only copies the packet there, into a buffer of bounded size, and a goroutine of its
// own does the rest. What finds the buffer full is not recorded, is counted, and said
// at the end: in the file (the statistics of the interface) and in the log. The
// program never waits for a disk.
//
// Recorded is what the stack hands to a link and gets from it: inside of a tunnel, not
// the tunnel's own packets. A super-segment is one packet, as tcpdump shows it on a
// device that cuts segments itself; checksums that such a device would sum are summed,
// so that no reader takes them for wrong. The loopback interface is left out. A kernel
// stack of a private namespace is seen by a packet socket there, and whose a socket is
// by sock_diag(7), which does not know those of ping.
//
// # Who
//
// Whose a packet is, [Config.Owner] says, asked at the first packets of a flow until it
// knows, five times at most. It is told in the comment of the first packet of a flow in each file, and
// in every line of a flow. A process is named as it was when it made the socket.
//
// # Flows
//
// A flow is what has the same protocol, addresses and ports; of ICMP echo the
// identifier is a port. TCP ends with its FINs or a reset, everything else when it was
// silent for a minute; what is open at the end of the view is said to be.
//
// # Locks
//
// Recorder.mu guards the buffer and is a leaf; it is taken with the stack's locks held.
// Capture and Flows have one each, held while they write, and taken by the goroutines
// of recorders alone. Close ends the goroutine after it has written what was taken.
package observe
