// SPDX-License-Identifier: Apache-2.0

// Who makes a socket, for stacks that serve tasks differently.

package stacks

// A Caller is the task that makes a socket, as it is while socket(2) runs. What it
// becomes later, by execve(2) or setuid(2), changes nothing for its sockets, as for
// the kernel's (struct sock, sk_uid).
type Caller struct {
	UID uint32

	// Exe returns the path of its executable, as far as it is known.
	Exe func() (string, error)
}

// A Chooser is implemented by stacks for which it matters who makes a socket.
type Chooser interface {
	// Identify tells what of a Caller the stack wants to know; what it does not is
	// left zero.
	Identify() (uid, exe bool)

	// SocketFor is Socket for a task. EACCES if the stack cannot tell how it is to be
	// served.
	SocketFor(by Caller, family, typ, proto int) (Socket, error)
}

// A Guide is implemented by stacks whose routes depend on more than the destination's
// prefix.
type Guide interface {
	// StateTo returns State with no other routes than those that count for a flow, for
	// `ip route get`.
	StateTo(f Flow) State
}
