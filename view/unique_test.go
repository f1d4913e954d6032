// SPDX-License-Identifier: Apache-2.0

// Waiting for addresses to be unique.

package view

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"umrun/stacks"
	"umrun/stacks/netstack"
	"umrun/stacks/pipe"
)

// TestAwaitUnique: two stacks on one link, of which the second has an address of the
// first's.
func TestAwaitUnique(t *testing.T) {
	a, b := pipe.New(pipe.Config{Ethernet: true})
	newStack := func(l stacks.Link, addr string) stacks.Stack {
		t.Helper()
		s, err := netstack.New(netstack.Config{Links: []stacks.LinkConfig{{Name: "eth0", Link: l, Addrs: []netip.Prefix{netip.MustParsePrefix(addr)}}}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	first := newStack(a, "fd00::1/64")
	short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := awaitUnique(first, nil)(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("at once: %v", err)
	}
	if err := awaitUnique(first, nil)(t.Context()); err != nil {
		t.Errorf("alone: %v", err)
	}
	err := awaitUnique(newStack(b, "fd00::1/64"), nil)(t.Context())
	if ExitCode(err) != ExitNetwork || !strings.Contains(err.Error(), "fd00::1") {
		t.Errorf("the same address: %v, want a Problem that names it", err)
	}
	cause := errors.New("the link is down")
	if err := awaitUnique(first, func(context.Context) error { return cause })(t.Context()); err != cause {
		t.Errorf("another wait: %v", err)
	}
}
