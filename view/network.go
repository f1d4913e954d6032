// SPDX-License-Identifier: Apache-2.0

// Networks: from what a SPEC names to an open stack.

package view

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"

	"umrun/netmod"
	"umrun/netmod/dns"
	"umrun/stacks"
	"umrun/stacks/netstack"
	"umrun/stacks/stacknet"
)

// A network is read and not open yet. There is a file for each kind: network_wg.go
// and the like.
type network interface {
	// describe returns what the plan says, and sentences of warning.
	describe() (PlanNetwork, []string)
	// dns returns the name servers that the network itself brings.
	dns() stacks.DNS
	// reaches reports whether a route leads to a, other than to loopback.
	reaches(a netip.Addr) bool
	// open opens what the network is made of. It belongs to the caller.
	open(ctx context.Context, log *slog.Logger) (opened, error)
}

// A namer is a network at whose other end names are resolved.
type namer interface {
	network
	// names returns the addresses that stand for names.
	names() dns.Names
}

// opened is an open network: links, over which a stack is made as the key stack=
// says, or a stack of its own.
type opened struct {
	links []stacks.LinkConfig
	stack stacks.Stack // nil: one is made over links

	// resolver answers names on this network; nil: a stub that asks the servers of
	// the plan through the stack.
	resolver netmod.Resolver

	// publisher publishes ports of the view on the host; nil: connections are relayed to
	// the stack.
	publisher publisher

	// wait waits until the network carries traffic and says why it does not; nil: it
	// does at once.
	wait func(context.Context) error

	// check finds out what umrun check tells of networks of this kind; nil: nothing.
	check   func(context.Context) []Finding
	learner *learner // nil: the network is not told its configuration

	provider *provider // nil: nobody but umrun brings the network
}

// close closes what was opened.
func (o *opened) close() {
	for _, l := range o.links {
		l.Link.Close()
	}
	if o.stack != nil {
		o.stack.Close()
	}
}

const minMTU6 = 1280 // RFC 8200 §5

// newNetwork reads what n names.
func newNetwork(n Network) (network, error) {
	switch n.Kind {
	case WireGuard:
		return newWG(n)
	case NAT:
		return newNAT(n)
	case TAP, TUN:
		return newTAP(n)
	case SOCKS5, HTTP, SSH:
		return newProxy(n)
	case None:
		return noneNetwork{n}, nil
	case NetNS:
		return newNetNS(n)
	case Host:
		return hostNetwork{n}, nil
	case VDE:
		return newVDE(n)
	case TunProvider:
		return newProvider(n)
	}
	return nil, NotBuilt(fmt.Sprintf("-n %s: the network %s", n.Spec, n.Kind))
}

// ifName returns the name of a network's interface: NAME where one was given and
// can be one (IFNAMSIZ), else the kind with a number.
func (n Network) ifName() string {
	if n.Name != string(n.Kind) && n.Name != "lo" && len(n.Name) <= 15 && !strings.Contains(n.Name, "/") {
		return n.Name
	}
	return string(n.Kind) + "0"
}

// openStack opens a planned network with a stack on it and a resolver.
func (p *Plan) openStack(ctx context.Context, i int) (opened, error) {
	n := p.conf.Networks[i]
	o, err := p.nets[i].open(ctx, p.conf.Log)
	if err != nil {
		return opened{}, err
	}
	var l *learner
	if o.stack == nil {
		n.impair(o.links)
		if l, err = p.learn(i, o.links); err != nil {
			o.close()
			return opened{}, fmt.Errorf("-n %s: %w", n.Spec, err)
		}
		if p.Networks[i].Stack == "kernel" {
			o.stack, err = p.newKernelStack(i, o.links)
		} else {
			o.stack, err = p.newStack(i, o.links)
		}
		if err != nil {
			o.close()
			return opened{}, kernelProblem(n, err)
		}
		o.links = nil // the stack's now
		o.wait = awaitUnique(o.stack, o.wait)
	}
	if o.resolver == nil {
		o.resolver = p.newStub(i, o.stack)
	}
	stub, _ := o.resolver.(*dns.Stub) // whoever listens to it
	if p.conf.Flows != "" {
		o.resolver = p.asked.over(o.resolver)
	}
	if k, ok := o.stack.(*kernelStack); ok && len(p.conf.Networks) == 1 {
		if err := k.serveNames(p.listen, o.resolver); err != nil {
			o.close()
			return opened{}, fmt.Errorf("-n %s: %w", n.Spec, err)
		}
	}
	if l != nil {
		if err := l.start(&o, stub); err != nil {
			o.close()
			return opened{}, err
		}
	}
	if t, ok := p.nets[i].(*providerNetwork); ok {
		if err := t.start(ctx, p, i, &o, stub); err != nil {
			o.close()
			return opened{}, err
		}
	}
	return o, nil
}

// newStub makes a resolver that asks the servers of the plan through st.
func (p *Plan) newStub(i int, st stacks.Stack) netmod.Resolver {
	c := p.stubs[i]
	c.Log = p.conf.Log
	c.Dial = func(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error) {
		return stacknet.Dial(ctx, st, network, addr)
	}
	return dns.New(c)
}

// newStack makes the stack that the key stack= asks for, over links.
func (p *Plan) newStack(i int, links []stacks.LinkConfig) (stacks.Stack, error) {
	n := p.conf.Networks[i]
	cc, _ := n.value("cc")
	return netstack.New(netstack.Config{
		Links:             links,
		DNS:               stacks.DNS{Servers: p.stubs[i].Servers, Search: p.stubs[i].Search},
		CongestionControl: cc,
		RcvBufMax:         n.bytes("rcvbuf"),
		SndBufMax:         n.bytes("sndbuf"),
		Log:               p.conf.Log,
	})
}

// noneNetwork has its own loopback and nothing else.
type noneNetwork struct{ Network }

func (noneNetwork) describe() (PlanNetwork, []string) { return PlanNetwork{}, nil }
func (noneNetwork) dns() stacks.DNS                   { return stacks.DNS{} }
func (noneNetwork) reaches(netip.Addr) bool           { return false }
func (noneNetwork) open(context.Context, *slog.Logger) (opened, error) {
	return opened{}, nil
}

func planRoutes(rs []stacks.Route) []PlanRoute {
	out := make([]PlanRoute, 0, len(rs))
	for _, r := range rs {
		pr := PlanRoute{Dst: r.Dst.String()}
		if r.Gateway.IsValid() {
			pr.Via = r.Gateway.String()
		}
		out = append(out, pr)
	}
	return out
}
