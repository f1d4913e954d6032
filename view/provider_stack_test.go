// SPDX-License-Identifier: Apache-2.0

// What a provider configures, and whose that is.

package view

import (
	"log/slog"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"umrun/stacks"
	"umrun/stacks/netstack"
	"umrun/stacks/pipe"
)

// TestProviderStack changes both stacks by the one that a provider sees.
func TestProviderStack(t *testing.T) {
	near, far := pipe.New(pipe.Config{})
	defer far.Close()
	own, err := netstack.New(netstack.Config{Links: []stacks.LinkConfig{{
		Name: "nat0", Link: near, Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.2.15/24")},
		Routes: []stacks.Route{{Dst: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("10.0.2.2")}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	network, err := netstack.New(netstack.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer network.Close()
	n, err := ParseNetwork("vpn=tun-provider:true")
	if err != nil {
		t.Fatal(err)
	}
	p, err := planNetworks(Config{Networks: []Network{n}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	f := &farStack{stack: network, dns: &learner{plan: p, stack: network}}
	s := newProviderStack(own, f)
	if f.usable() {
		t.Error("a network without an interface counts as usable")
	}

	tunNear, tunFar := pipe.New(pipe.Config{})
	defer tunFar.Close()
	index, err := s.Attach(stacks.LinkConfig{Name: "tun0", Link: tunNear})
	if err != nil {
		t.Fatal(err)
	}
	names := func(st stacks.State) (all []string) {
		for _, i := range st.Interfaces {
			all = append(all, i.Name)
		}
		return all
	}
	if d := cmp.Diff([]string{"lo", "nat0", "tun0"}, names(s.State())); d != "" {
		t.Errorf("the provider sees (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{"lo", "tun0"}, names(network.State())); d != "" {
		t.Errorf("the network has (-want +got):\n%s", d)
	}

	next := s.State()
	at := slices.IndexFunc(next.Interfaces, func(i stacks.Interface) bool { return i.Index == index })
	next.Interfaces[at].Up = true
	next.Interfaces[at].Addrs = []netip.Prefix{netip.MustParsePrefix("10.8.0.2/24")}
	server := stacks.Route{Dst: netip.MustParsePrefix("192.0.2.1/32"), Gateway: netip.MustParseAddr("10.0.2.2"), IfIndex: 2}
	connected := stacks.Route{Dst: netip.MustParsePrefix("10.8.0.0/24"), IfIndex: index}
	half := stacks.Route{Dst: netip.MustParsePrefix("0.0.0.0/1"), Gateway: netip.MustParseAddr("10.8.0.1"), IfIndex: index}
	next.Routes = append(next.Routes, server, connected, half)
	if err := s.SetState(next); err != nil {
		t.Fatal(err)
	}
	if !f.usable() {
		t.Error("the network does not count as usable")
	}
	routes := func(st stacks.State) (all []string) {
		for _, r := range st.Routes {
			all = append(all, r.Dst.String())
		}
		slices.Sort(all)
		return all
	}
	if d := cmp.Diff([]string{"0.0.0.0/0", "10.0.2.0/24", "192.0.2.1/32"}, routes(own.State())); d != "" {
		t.Errorf("routes of the provider's own (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{"0.0.0.0/1", "10.8.0.0/24"}, routes(network.State())); d != "" {
		t.Errorf("routes of the network (-want +got):\n%s", d)
	}
	if got := network.State().Interfaces[1].Addrs; len(got) != 1 || got[0].String() != "10.8.0.2/24" {
		t.Errorf("addresses of the network's interface: %v", got)
	}
	if d := cmp.Diff(5, len(s.State().Routes)); d != "" {
		t.Errorf("routes that the provider sees: %v", s.State().Routes)
	}

	if err := s.Detach(2); err == nil {
		t.Error("the provider took its own interface away")
	}
	if err := s.Detach(index); err != nil {
		t.Fatal(err)
	}
	if st := network.State(); len(st.Interfaces) != 1 || len(st.Routes) != 0 {
		t.Errorf("the network has kept %v %v", names(st), routes(st))
	}
	if d := cmp.Diff([]string{"0.0.0.0/0", "10.0.2.0/24", "192.0.2.1/32"}, routes(s.State())); d != "" {
		t.Errorf("routes that are left (-want +got):\n%s", d)
	}
}
