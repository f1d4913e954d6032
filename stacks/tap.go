// SPDX-License-Identifier: Apache-2.0

// What passes the interfaces of a stack, for packet sockets.

package stacks

// A Frame is a packet that passes an interface.
type Frame struct {
	IfIndex  int
	Loop     bool   // the interface is the loopback interface
	Proto    uint16 // EtherType, host byte order
	Outgoing bool   // else it comes in
	Header   []byte // the link header; empty where there is none, and on the loopback interface
	Data     []byte // from the network header on; a super-segment is one packet
	Type     uint8  // PACKET_HOST, BROADCAST, MULTICAST or OTHERHOST, of a frame that comes in

	Unsummed bool // the checksum of the transport header is still to be computed
	Summed   bool // it was verified
	GSOTCP   bool // a super-segment of TCP

	Stamp  int64 // ns since the epoch
	Origin any   // what Inject was given
}

// A Tapper is implemented by stacks that show what passes their interfaces and let
// packets be put onto them. Without it there are no packet sockets (packet(7)).
type Tapper interface {
	// Tap has f called for every packet, on the way out when it is handed to the link
	// and on the way in before the stack looks at it; a packet of the loopback
	// interface passes twice. f runs with locks of the stack held: it does not wait,
	// calls nothing of the stack's, and keeps neither the Frame nor its Data. stop
	// is idempotent; f may still be running when it returns.
	Tap(f func(*Frame)) (stop func())

	// Inject sends a packet by an interface, past routes and addresses. It begins with
	// its link header if the interface is an Ethernet one, which must be there whole
	// (EINVAL), else with its network header. Only the link judges it: what WireGuard's AllowedIPs
	// do not cover goes nowhere. It does not wait; what finds the queue of the
	// interface full is lost. origin is told to taps. ENXIO for an index that no
	// interface has, ENETDOWN if it is down.
	Inject(ifIndex int, proto uint16, p []byte, origin any) error
}

// A Shower is implemented by Tappers that do not show all of their interfaces.
type Shower interface {
	// Shows tells whether taps see an interface; with 0, whether they see any.
	Shows(ifIndex int) bool
}
