// SPDX-License-Identifier: Apache-2.0

// Waiting for addresses that are being looked for on the link.

package view

import (
	"context"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

// awaitUnique returns a wait that follows wait, which may be nil: until no address of
// st's is tentative any more (duplicate address detection, RFC 4862 §5.4). Before that
// the program could not use them. Link-local ones are for the stack itself; a program
// that wants to use them can wait. The error names an address that somebody else has.
func awaitUnique(st stacks.Stack, wait func(context.Context) error) func(context.Context) error {
	n, ok := st.(stacks.Notifier)
	if !ok {
		return wait
	}
	return func(ctx context.Context) error {
		if wait != nil {
			if err := wait(ctx); err != nil {
				return err
			}
		}
		changed := make(chan struct{}, 1)
		stop := n.Notify(func() {
			select {
			case changed <- struct{}{}:
			default:
			}
		})
		defer stop()
		for {
			again, err := tentative(st.State())
			if !again {
				return err
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return fmt.Errorf("addresses are not known to be unique: %w", ctx.Err())
			}
		}
	}
}

// tentative tells whether an address is still looked for. The error is a [Problem].
func tentative(st stacks.State) (bool, error) {
	some := false
	var taken netip.Addr
	for _, ifc := range st.Interfaces {
		for p, info := range ifc.Info {
			switch {
			case p.Addr().IsLinkLocalUnicast():
			case info.Flags&unix.IFA_F_DADFAILED != 0:
				taken = p.Addr()
			case info.Flags&unix.IFA_F_TENTATIVE != 0:
				some = true
			}
		}
	}
	if taken.IsValid() {
		return false, &Problem{
			Code: ExitNetwork,
			What: fmt.Sprintf("somebody else on the link has the address %s", taken),
			Try:  []string{"another ip=PREFIX", "--no-wait (it stays unused)"},
		}
	}
	return some, nil
}
