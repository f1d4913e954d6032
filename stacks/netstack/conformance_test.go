// SPDX-License-Identifier: Apache-2.0

// The cases of stacktest over pipes and over loopback.

package netstack_test

import (
	"net/netip"
	"testing"

	"go.uber.org/goleak"

	"umrun/stacks"
	"umrun/stacks/netstack"
	"umrun/stacks/pipe"
	"umrun/stacks/stacktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Addresses of the two ends.
var (
	a4 = netip.MustParsePrefix("10.1.0.1/24")
	b4 = netip.MustParsePrefix("10.1.0.2/24")
	a6 = netip.MustParsePrefix("fd00::1/64")
	b6 = netip.MustParsePrefix("fd00::2/64")
)

// newStack makes a stack on one link, closed at the end of the test.
func newStack(t testing.TB, l stacks.Link, addrs ...netip.Prefix) *netstack.Stack {
	t.Helper()
	s, err := netstack.New(netstack.Config{Links: []stacks.LinkConfig{{
		Name: "eth0", Link: l, Addrs: addrs,
		Routes: []stacks.Route{{Dst: netip.MustParsePrefix("198.51.100.0/24")}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// newPair makes two stacks that are joined by wrap of a pipe.
func newPair(t testing.TB, c pipe.Config, wrap func(a, b stacks.Link) (stacks.Link, stacks.Link)) stacktest.Pair {
	t.Helper()
	a, b := pipe.New(c)
	la, lb := stacks.Link(a), stacks.Link(b)
	if wrap != nil {
		la, lb = wrap(la, lb)
	}
	sa, sb := newStack(t, la, a4, a6), newStack(t, lb, b4, b6)
	awaitUnique(t, sa)
	awaitUnique(t, sb)
	return stacktest.Pair{
		A: sa, B: sb,
		A4: a4.Addr(), A6: a6.Addr(), B4: b4.Addr(), B6: b6.Addr(),
		Broadcast: netip.MustParseAddr("10.1.0.255"), Ping: true, Known: known,
	}
}

// known lists the cases in which gVisor differs from Linux, and why.
var known = map[string]string{}

func TestPipe(t *testing.T) {
	stacktest.Run(t, newPair(t, pipe.Config{}, nil))
}

func TestPipeOffload(t *testing.T) {
	stacktest.Run(t, newPair(t, pipe.Config{Offload: true}, nil))
}

func TestEthernet(t *testing.T) {
	stacktest.Run(t, newPair(t, pipe.Config{Ethernet: true}, nil))
}

func TestEthernetOffload(t *testing.T) {
	stacktest.Run(t, newPair(t, pipe.Config{Ethernet: true, Offload: true}, nil))
}

func TestLoopback(t *testing.T) {
	s, err := netstack.New(netstack.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	v4, v6 := netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()
	stacktest.Run(t, stacktest.Pair{A: s, B: s, A4: v4, B4: v4, A6: v6, B6: v6, Ping: true, Known: known})
}
