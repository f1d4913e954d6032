// SPDX-License-Identifier: Apache-2.0

// Views of two networks for the tests, and the cases of every stack on them.

package multihome_test

import (
	"net/netip"
	"testing"

	"go.uber.org/goleak"

	"umrun/stacks"
	"umrun/stacks/multihome"
	"umrun/stacks/netstack"
	"umrun/stacks/pipe"
	"umrun/stacks/route"
	"umrun/stacks/stacktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }

// A side is a network as a test makes it: a stack, and the one at the other end of its
// link.
type side struct {
	near, far *netstack.Stack
	link      stacks.Link // of near
	addrs     []netip.Prefix
}

// newSide makes a link with addresses near.1 and near.2 on it; every address can be
// reached by it, and at the other end every address of dsts answers.
func newSide(t testing.TB, name string, near, far []string, dsts ...string) side {
	t.Helper()
	a, b := pipe.New(pipe.Config{})
	mk := func(name string, l stacks.Link, addrs []string, routes ...stacks.Route) *netstack.Stack {
		c := stacks.LinkConfig{Name: name, Link: l, Routes: routes}
		for _, s := range addrs {
			c.Addrs = append(c.Addrs, prefix(s))
		}
		s, err := netstack.New(netstack.Config{Links: []stacks.LinkConfig{c}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	s := side{link: a}
	everything := []stacks.Route{{Dst: prefix("0.0.0.0/0")}, {Dst: prefix("::/0")}}
	s.near = mk(name, a, near, everything...)
	s.far = mk("eth0", b, append(far, dsts...), everything...)
	for _, p := range near {
		s.addrs = append(s.addrs, prefix(p))
	}
	return s
}

// newTable makes a table of rules for networks called a, b and so on.
func newTable(t testing.TB, rules []string, nets ...[]netip.Prefix) *route.Table {
	t.Helper()
	var all []route.Rule
	for _, r := range rules {
		rs, err := route.Parse(r)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, rs...)
	}
	var networks []route.Network
	for i, p := range nets {
		networks = append(networks, route.Network{Name: string(rune('a' + i)), Prefixes: p})
	}
	table, err := route.New(all, networks)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// TestEveryStack runs the cases of every stack with the other network second and first.
func TestEveryStack(t *testing.T) {
	for _, second := range []bool{false, true} {
		name := "linked first"
		if second {
			name = "linked second"
		}
		t.Run(name, func(t *testing.T) {
			a, b := pipe.New(pipe.Config{})
			mk := func(l stacks.Link, addrs ...string) *netstack.Stack {
				c := stacks.LinkConfig{Name: "eth0", Link: l, Routes: []stacks.Route{{Dst: prefix("198.51.100.0/24")}}}
				for _, s := range addrs {
					c.Addrs = append(c.Addrs, prefix(s))
				}
				s, err := netstack.New(netstack.Config{Links: []stacks.LinkConfig{c}})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { s.Close() })
				return s
			}
			linked := mk(a, "10.1.0.1/24", "fd00::1/64")
			far := mk(b, "10.1.0.2/24", "fd00::2/64")
			x, y := pipe.New(pipe.Config{})
			other := mk(x, "10.2.0.1/24", "fd02::1/64")
			defer y.Close()
			on, off := []netip.Prefix{prefix("10.1.0.0/24"), prefix("fd00::/64"), prefix("198.51.100.0/24")}, []netip.Prefix{prefix("10.2.0.0/24"), prefix("fd02::/64")}
			var st *multihome.Stack
			if second {
				st = multihome.New(newTable(t, []string{"255.255.255.255=b", "224.0.0.0/4=b", "ff00::/8=b"}, off, on), other, linked)
			} else {
				st = multihome.New(newTable(t, nil, on, off), linked, other)
			}
			stacktest.Run(t, stacktest.Pair{
				A: st, B: far, A4: addr("10.1.0.1"), A6: addr("fd00::1"), B4: addr("10.1.0.2"), B6: addr("fd00::2"),
				Broadcast: addr("10.1.0.255"), Ping: true,
			})
		})
	}
}
