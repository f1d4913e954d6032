// SPDX-License-Identifier: Apache-2.0

// The contract of the way past a stack, for the bytes of one connection.

package stacks

import "net/netip"

// A Conduit is the way past a stack for the bytes of a connection that its link ends
// in this very process (NAT): a descriptor of which they can be read, and to which they
// can be written, without packets in between. All else stays with the stack: names,
// options, the end of the connection and its errors.
//
// Who holds it counts what it has sent and received by the stack. Where [Conduit.Up]
// is what it has sent, nothing is on its way, and what is sent next may be written to
// the descriptor; likewise with [Conduit.Down] and what it has received, for reading.
// Before [Conduit.Release] it stops both; afterwards the bytes pass the stack again.
// Methods are safe for concurrent use, and do not wait.
type Conduit interface {
	// Up returns how many bytes that were sent by the stack have left it.
	Up() uint64

	// Down returns how many bytes for the program were handed to the stack; stopped
	// says that there will be no more until Release.
	Down() (n uint64, stopped bool)

	// Control calls f with the descriptor, a stream that does not block. It is valid
	// during the call. An error says that the connection is over: the stack knows how.
	Control(f func(fd uintptr)) error

	// Recalled reports that the stack wants the bytes to pass it again.
	Recalled() bool

	// Moved counts what was written and read.
	Moved(up, down int)

	// Release gives the descriptor back. err, if it is not nil, is what a call on it
	// failed with, other than EAGAIN: it ends the connection.
	Release(err error)
}

// A Bypass is what a StreamSocket may have whose bytes may take a way past the stack.
type Bypass interface {
	// Bypass returns the way past the stack that the connection has now, or nil.
	// changed is called, by any goroutine and with any lock of the stack held, when
	// what Up, Down or Recalled say has changed; it does not wait.
	Bypass(changed func()) Conduit
}

// A Shortcut is implemented by links that can give a stack [Conduit]s.
type Shortcut interface {
	// Shortcut returns the conduit of the connection that the stack at this link has
	// between two addresses of its own, or nil. There is one at a time.
	Shortcut(local, remote netip.AddrPort, changed func()) Conduit
}

// A Carrier is implemented by links that acknowledge a stack's bytes before these have
// gone on.
type Carrier interface {
	// Carried returns how many bytes that the stack at this link has sent, between two
	// addresses of its own, are acknowledged and have not gone on yet; the end of them
	// counts as one.
	Carried(local, remote netip.AddrPort) int
}
