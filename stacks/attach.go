// SPDX-License-Identifier: Apache-2.0

// Interfaces that come and go.

package stacks

// An Attacher is implemented by stacks that take and give back interfaces while they
// run. Without it a stack has those that it was made with.
type Attacher interface {
	// Attach adds an interface over l.Link, which the stack owns from then on. As on
	// Linux a new interface is down; l.Routes must be empty, since it has none until
	// it is up. Errors: EEXIST for a name that is in use, EINVAL for what no interface
	// can have, ENETDOWN.
	Attach(l LinkConfig) (index int, err error)

	// Detach removes an interface that Attach has added, with its addresses and
	// routes, and closes its link. Connections by it live on and find no way. An
	// index is not given twice. ENODEV if there is none.
	Detach(index int) error
}
