// SPDX-License-Identifier: Apache-2.0

// What sock_diag(7) tells.

package kernel_test

import (
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

// TestHeld: each socket is there, with its addresses in the order of the bytes.
func TestHeld(t *testing.T) {
	st := newStack(t)
	for _, at := range []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:4660"), netip.MustParseAddrPort("[::1]:4660")} {
		family := unix.AF_INET
		if at.Addr().Is6() {
			family = unix.AF_INET6
		}
		s, err := st.Socket(family, unix.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := s.Bind(at); err != nil {
			t.Fatal(err)
		}
		if err := s.(stacks.StreamSocket).Listen(1); err != nil {
			t.Fatal(err)
		}
		all := st.Held()
		if !slices.ContainsFunc(all, func(h stacks.Held) bool {
			return h.Proto == unix.IPPROTO_TCP && h.Local == at && h.Remote.Port() == 0 && h.Cookie != 0 && h.Inode != 0
		}) {
			t.Errorf("no %s among %+v", at, all)
		}
	}
}
