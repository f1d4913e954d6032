// SPDX-License-Identifier: Apache-2.0

// What goes wrong: with a destination, and with the proxy itself.

package proxy

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// A refusal is what the proxy says of a destination, and the errno of connect(2)
// for that. errors.Is finds the errno.
type refusal struct {
	errno unix.Errno
	text  string
}

func (r *refusal) Error() string { return r.text }
func (r *refusal) Unwrap() error { return r.errno }

// A Cause says why a proxy cannot be used.
type Cause int

// The causes.
const (
	Unresolved Cause = iota // its name has no address
	Silent                  // nobody answers there
	Broken                  // who answers breaks off, or does not speak the protocol
	WantsAuth               // it takes nobody without credentials
	BadAuth                 // it does not take these credentials
	UnknownKey              // its host key is not known (SSH)
	WrongKey                // its host key is another one than is known (SSH)
	NoPackets               // it carries no datagrams
)

// lasting reports whether trying again cannot help.
func (c Cause) lasting() bool { return c >= Broken }

// An UnusableError says that, and why, the proxy cannot be used. To a program that
// connects the network is unreachable, whatever the reason: what an error that the
// proxy's own address gave might say of the destination would be wrong.
type UnusableError struct {
	Proxy string // kind and address, no credentials
	Cause Cause
	Err   error  // nil, or what is known beyond the cause; without credentials
	Hint  string // a sentence that says what to do; may be empty
}

func (e *UnusableError) Error() string {
	what := [...]string{
		Unresolved: "has a name without an address",
		Silent:     "does not answer",
		Broken:     "does not speak the protocol",
		WantsAuth:  "wants a user name and a password",
		BadAuth:    "refuses the user name or the password",
		UnknownKey: "has a host key that is not known",
		WrongKey:   "has another host key than the one that is known",
		NoPackets:  "carries no datagrams",
	}[e.Cause]
	if e.Err == nil {
		return fmt.Sprintf("the %s %s", e.Proxy, what)
	}
	return fmt.Sprintf("the %s %s: %v", e.Proxy, what, e.Err)
}

// Is makes the error ENETUNREACH, and nothing else: Err is not unwrapped.
func (e *UnusableError) Is(target error) bool { return target == error(unix.ENETUNREACH) }
