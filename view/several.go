// SPDX-License-Identifier: Apache-2.0

// Several networks in one view: who serves what, and one stack made of all.

package view

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"umrun/netmod"
	"umrun/netmod/dns"
	"umrun/stacks"
	"umrun/stacks/multihome"
	"umrun/stacks/route"
)

// A PlanRule sends destinations, names or tasks to a network.
type PlanRule struct {
	Pattern string `json:"pattern"`
	Network string `json:"network"`
}

// planRules reads --route and makes the table of networks. Rules are checked also where
// there is one network, which gets everything anyway.
func (p *Plan) planRules() error {
	names := make(map[string]bool)
	for _, n := range p.conf.Networks {
		if names[n.Name] {
			return badConfig("-n %s: there is a network %s already; give it a name: -n NAME=%s", n.Spec, n.Name, strings.TrimPrefix(n.Spec, n.Name+"="))
		}
		names[n.Name] = true
	}
	var rules []route.Rule
	for _, arg := range p.conf.Routes {
		rs, err := route.Parse(arg)
		if err != nil {
			return badConfig("%w", err)
		}
		rules = append(rules, rs...)
	}
	var networks []route.Network
	for i, d := range p.Networks {
		n := route.Network{Name: d.Name, Prefixes: d.prefixes()}
		if proxy, ok := p.nets[i].(*proxyNetwork); ok {
			n.Alone = proxy.conf.Names.Ranges()
		}
		for _, a := range d.Addresses {
			if p, err := netip.ParsePrefix(a); err == nil {
				n.Addrs = append(n.Addrs, p.Addr())
			}
		}
		networks = append(networks, n)
	}
	table, err := route.New(rules, networks)
	if err != nil {
		return badConfig("%w", err)
	}
	for _, r := range rules {
		p.Rules = append(p.Rules, PlanRule{Pattern: r.Pattern.String(), Network: r.Network})
	}
	if len(networks) > 1 {
		p.table = table
		p.Warnings = append(p.Warnings, p.unrouted(rules, networks)...)
	}
	return nil
}

// prefixes are those that the network is configured with.
func (d *PlanNetwork) prefixes() (all []netip.Prefix) {
	add := func(s string) {
		if p, err := netip.ParsePrefix(s); err == nil {
			all = append(all, p.Masked())
		}
	}
	for _, a := range d.Addresses {
		add(a)
	}
	for _, r := range d.Routes {
		add(r.Dst)
	}
	return all
}

// unrouted warns of what people may expect to go somewhere else: a family for which the
// first network has no default route and another one has, and a network that nothing
// leads to.
func (p *Plan) unrouted(rules []route.Rule, networks []route.Network) (warnings []string) {
	ruled := make(map[string]bool)
	for _, r := range rules {
		ruled[r.Network] = true
	}
	defaults := func(n route.Network) []string {
		var all []string
		for _, x := range n.Prefixes {
			if x.Bits() == 0 {
				all = append(all, x.String())
			}
		}
		return all
	}
	first := p.conf.Networks[0]
	known := first.Kind == WireGuard || first.Kind == None || first.Kind == NAT // its routes are in the plan
	for _, all := range []string{"0.0.0.0/0", "::/0"} {
		hasRule := slices.ContainsFunc(rules, func(r route.Rule) bool { return r.Pattern.String() == all })
		if !known || hasRule || slices.Contains(defaults(networks[0]), all) {
			continue
		}
		for _, n := range networks[1:] {
			if slices.Contains(defaults(n), all) {
				warnings = append(warnings, fmt.Sprintf("what no rule or prefix is about goes to the first network, %s, which has no route %s; for %s to take it: --route %s=%s", first.Name, all, n.Name, all, n.Name))
				break
			}
		}
	}
	for _, n := range networks[1:] {
		if !ruled[n.Name] && !slices.ContainsFunc(n.Prefixes, func(x netip.Prefix) bool { return x.Bits() > 0 }) {
			warnings = append(warnings, fmt.Sprintf("only programs that bind to its interface or address use the network %s; --route PATTERN=%s sends more there", n.Name, n.Name))
		}
	}
	return warnings
}

// domains are the names that networks have of their own, by the number of the network:
// those that the plan knows, not what a network says later.
func (p *Plan) domains() map[string]int {
	all := make(map[string]int)
	for i, s := range slices.Backward(p.stubs) {
		for _, d := range s.Search {
			all[strings.ToLower(strings.Trim(d, "."))] = i
		}
	}
	return all
}

// join makes one stack and one resolver of open networks.
func (p *Plan) join(all []opened) (stacks.Stack, netmod.Resolver) {
	if len(all) == 1 {
		return all[0].stack, all[0].resolver
	}
	var members []stacks.Stack
	split := &dns.Split{}
	for i, o := range all {
		members = append(members, o.stack)
		r := o.resolver
		if r == nil {
			r = dns.New(dns.Config{Reason: fmt.Sprintf("the network %s has no name servers", p.conf.Networks[i].Name), Log: p.conf.Log})
		}
		split.Networks = append(split.Networks, r)
		if i > 0 && len(p.stubs[i].Search) > 0 {
			split.Searchers = append(split.Searchers, i)
		}
	}
	domains := p.domains()
	split.Name = func(name string) (int, bool) {
		if n, ok := p.table.Name(name); ok {
			return n, true
		}
		for rest := name; rest != ""; _, rest, _ = strings.Cut(rest, ".") {
			if n, ok := domains[rest]; ok {
				return n, true
			}
		}
		return 0, false
	}
	split.Addr = func(a netip.Addr) int {
		n, _ := p.table.Dest(netip.AddrPortFrom(a, 0))
		return n
	}
	if p.table.AsksNames() {
		split.Learn = p.table.Learn
	}
	return multihome.New(p.table, members...), split
}
