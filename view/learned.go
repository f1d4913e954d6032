// SPDX-License-Identifier: Apache-2.0

// What a network tells of itself while it runs: package netconf asks below the stack,
// and what it learns goes to the stack, the program and the DNS stub.

package view

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"umrun/netmod"
	"umrun/netmod/dns"
	"umrun/netmod/rtnetlink"
	"umrun/stacks"
	"umrun/stacks/netconf"
)

// A learner is a network that is told its configuration.
type learner struct {
	plan   *Plan
	number int // of the network in the plan
	client *netconf.Client
	name   string // of the interface, as it begins
	stack  stacks.Stack
	stub   *dns.Stub // nil: names are resolved elsewhere
	index  int       // of the interface

	mu    sync.Mutex // held during a change; before the module's locks and the stack's
	mod   *netmod.Module
	asked stacks.DNS // what the stub asks
}

// asks returns a for networks that embed it.
func (a *addressing) asks() *addressing { return a }

// learns tells whether network i is told its configuration.
func (p *Plan) learns(i int) bool {
	x, ok := p.nets[i].(interface{ asks() *addressing })
	return ok && x.asks().words.Any()
}

// learn puts a client below the stack that is to get links, if network i is told its
// configuration, and returns nil if not.
func (p *Plan) learn(i int, links []stacks.LinkConfig) (*learner, error) {
	if !p.learns(i) {
		return nil, nil
	}
	a, l := p.nets[i].(interface{ asks() *addressing }).asks(), &links[0]
	if l.MAC == nil {
		l.MAC = randomMAC()
	}
	client, err := netconf.New(l.Link, netconf.Config{
		Words: a.words, Name: l.Name, MAC: l.MAC, FQDN: a.fqdn,
		Gateways: a.gateways, Routed4: a.routed(netip.Addr.Is4), Routed6: a.routed(netip.Addr.Is6),
		MTU: a.mtu, Log: p.conf.Log,
	})
	if err != nil {
		return nil, err
	}
	l.Link = client.Link()
	return &learner{plan: p, number: i, client: client, name: l.Name}, nil
}

// start begins to ask, for a stack that runs. stub, which may be nil, asks the servers.
func (l *learner) start(o *opened, stub *dns.Stub) error {
	spec := l.plan.conf.Networks[l.number].Spec
	if _, ok := o.stack.(stacks.Configurer); !ok {
		return fmt.Errorf("-n %s: the stack cannot be configured while it runs", spec)
	}
	l.stack, l.stub = o.stack, stub
	for _, ifc := range l.stack.State().Interfaces {
		if ifc.Name == l.name {
			l.index = ifc.Index
		}
	}
	if l.index == 0 {
		return fmt.Errorf("-n %s: the stack has no interface %s", spec, l.name)
	}
	planned := l.plan.stubs[l.number]
	l.asked = stacks.DNS{Servers: planned.Servers, Search: planned.Search}
	l.client.Start(l.index, l.apply, l.isUp)
	if n, ok := l.stack.(stacks.Notifier); ok {
		n.Notify(l.client.Changed) // until the stack ends
	}
	before := o.wait
	o.wait = func(ctx context.Context) error {
		if before != nil {
			if err := before(ctx); err != nil {
				return err
			}
		}
		return l.client.Wait(ctx)
	}
	o.learner, o.check = l, l.findings
	return nil
}

// isUp tells whether the interface is up.
func (l *learner) isUp() bool {
	return slices.ContainsFunc(l.stack.State().Interfaces, func(ifc stacks.Interface) bool { return ifc.Index == l.index && ifc.Up })
}

// tell has the module know of all later changes, which program and network now make in
// turn. l may be nil.
func (l *learner) tell(mod *netmod.Module) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mod = mod
	if len(l.plan.nets) > 1 { // what came while the networks were joined
		if err := mod.Change(l.stack, func(s stacks.State) stacks.State { return s }); err != nil {
			l.plan.conf.Log.Error("join a network", "link", l.name, "err", err)
		}
	}
}

// apply gives the interface next in the place of old.
func (l *learner) apply(old, next stacks.Settings) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	edit := func(s stacks.State) stacks.State {
		s = rtnetlink.Configure(s, l.index, old, next)
		s.DNS = l.takeOver(s)
		return s
	}
	if l.mod != nil {
		return l.mod.Change(l.stack, edit)
	}
	return l.stack.(stacks.Configurer).SetState(edit(l.stack.State()))
}

// mode is who answers names on the network: tunnel, an address, or the like.
func (l *learner) mode() string {
	if l.number == 0 {
		return l.plan.DNS.Mode
	}
	return l.plan.DNS.Networks[l.number-1].Mode
}

// takeOver has the stub ask those whom s names, and returns whom it asks: keys of the
// SPEC stand over what was learned, and --dns over both.
func (l *learner) takeOver(s stacks.State) stacks.DNS {
	reaches := func(a netip.Addr) bool {
		return !a.IsLoopback() && slices.ContainsFunc(s.Routes, func(r stacks.Route) bool {
			return r.Main() && r.Refuses() == 0 && r.Dst.Contains(a.Unmap())
		})
	}
	n := l.plan.conf.Networks[l.number]
	c, _, warnings, err := dns.Plan(l.plan.resolv, n.dnsKeys(s.DNS), reaches, l.mode())
	if err != nil {
		return l.asked // the mode was good when it was planned
	}
	next := stacks.DNS{Servers: c.Servers, Search: c.Search}
	if l.stub == nil || reflect.DeepEqual(next, l.asked) {
		return next
	}
	l.asked = next
	l.stub.SetUpstream(next.Servers, next.Search, c.Reason)
	l.plan.conf.Log.Info("name servers", "link", l.name, "servers", next.Servers, "search", next.Search)
	for _, w := range warnings {
		l.plan.conf.Log.Warn(w)
	}
	return next
}

// findings tells what was learned.
func (l *learner) findings(context.Context) (all []Finding) {
	s := l.client.Status()
	tell := func(f Finding) { all = append(all, f) }
	for _, x := range s.Leases {
		text := fmt.Sprintf("%s from %s by %s", x.Addr, x.Server, x.Protocol)
		if x.Life > 0 {
			text += fmt.Sprintf(", for %s, renewed in %s", x.Life.Round(time.Second), time.Until(x.Renew).Round(time.Second))
		}
		if x.Offers > 1 {
			text += fmt.Sprintf(", the first of %d offers", x.Offers)
		}
		tell(Finding{Name: "lease", Verdict: OK, Text: text})
	}
	for _, x := range s.Routers {
		text := x.Addr.String()
		switch {
		case !x.Default:
			text += ", not for default routes"
		case !x.Until.IsZero():
			text += fmt.Sprintf(", for %s", time.Until(x.Until).Round(time.Second))
		}
		if x.Managed {
			text += ", says that addresses come by DHCPv6"
		} else if x.Other {
			text += ", says that name servers come by DHCPv6"
		}
		tell(Finding{Name: "router", Verdict: OK, Text: text})
	}
	for _, x := range s.Addrs {
		tell(Finding{Name: "address", Verdict: OK, Text: x.String() + " by SLAAC"})
	}
	for _, x := range s.Trouble {
		tell(Finding{Name: "network", Verdict: Note, Text: x})
	}
	if search := l.stack.State().DNS.Search; len(search) > 0 {
		tell(Finding{Name: "dns", Verdict: OK, Text: "names without a dot are looked for in " + strings.Join(search, ", ")})
	}
	if len(l.stack.State().DNS.Servers) == 0 {
		tell(Finding{Name: "dns", Verdict: Note, Text: "the network names no name server that can be asked: dns=ADDRESS does"})
	}
	return all
}

// randomMAC makes up a locally administered address, so that nothing on the network
// tells one run from another machine's, or this machine by it.
func randomMAC() net.HardwareAddr {
	m := make(net.HardwareAddr, 6)
	rand.Read(m) // cannot fail
	m[0] = m[0]&^1 | 2
	return m
}
