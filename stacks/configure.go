// SPDX-License-Identifier: Apache-2.0

// What a program may change of its network.

package stacks

import (
	"maps"
	"net/netip"
	"slices"
)

// A Configurer is implemented by stacks whose interfaces, addresses and routes a
// program may change, as it could change those of a network namespace of its own.
// Without it every such change gives EPERM.
type Configurer interface {
	// SetState makes the stack what s says, which the caller derived from State
	// and nobody else changed since. Interfaces keep their indices, and none
	// comes or goes; routes are whole, connected ones included. On an error (EINVAL: an
	// MTU that the link cannot carry) nothing has changed. Connections live on, like
	// those of Linux, and fail when their address or route is gone for too long.
	SetState(s State) error
}

// A Notifier is implemented by stacks that tell of changes of their state.
type Notifier interface {
	// Notify has f called after State has become another one, by SetState or because
	// duplicate address detection has ended (IFA_F_TENTATIVE, IFA_F_DADFAILED). f may
	// run with locks of the stack held: it wakes somebody and returns. stop is
	// idempotent; f may still be running when it returns.
	Notify(f func()) (stop func())
}

// A Divided is a stack that is made of several, each of which has a State of its own.
type Divided interface {
	// Part returns what sets the State of one of them, such that the whole knows of it;
	// ok is false if it is none of them, or has a fixed State.
	Part(Stack) (c Configurer, ok bool)
}

// Clone returns a copy that shares nothing that a change of addresses, routes or
// interfaces would touch.
func (s State) Clone() State {
	s.Interfaces = slices.Clone(s.Interfaces)
	for i := range s.Interfaces {
		s.Interfaces[i].Addrs = slices.Clone(s.Interfaces[i].Addrs)
		s.Interfaces[i].Info = maps.Clone(s.Interfaces[i].Info)
	}
	s.Routes = slices.Clone(s.Routes)
	s.Tables = slices.Clone(s.Tables)
	s.Rules = slices.Clone(s.Rules)
	s.Neighbours = slices.Clone(s.Neighbours)
	return s
}

// Settings are what an interface is told by its network: a lease, what routers
// advertise. They come and go while the stack runs.
type Settings struct {
	Addrs  []Address
	Routes []Route // of the interface, whose IfIndex they need not have
	MTU    int     // bytes; 0: as it is
	DNS    DNS
}

// An Address is one of an interface, and what is known of it.
type Address struct {
	Prefix netip.Prefix // the address with the length of its on-link prefix
	Info   AddrInfo
}
