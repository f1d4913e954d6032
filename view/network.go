// SPDX-License-Identifier: Apache-2.0

// Networks: from what a SPEC names to an open stack.

package view

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"

	"umrun/stacks"
	"umrun/stacks/nat"
	"umrun/stacks/netstack"
	"umrun/stacks/wg"
)

// A network is read and not open yet.
type network interface {
	// describe returns what the plan says, and sentences of warning.
	describe() (PlanNetwork, []string)
	// dns returns the name servers that the network itself brings.
	dns() stacks.DNS
	// reaches reports whether a route leads to a, other than to loopback.
	reaches(a netip.Addr) bool
	// open opens the link, if there is one, and says what the stack must know of
	// it. The link belongs to the caller.
	open(ctx context.Context, log *slog.Logger) ([]netstack.LinkConfig, error)
}

const minMTU6 = 1280 // RFC 8200 §5

// A waiter is a link that can say why it is not up.
type waiter interface {
	WaitUp(context.Context) error
}

// newNetwork reads what n names.
func newNetwork(n Network) (network, error) {
	switch n.Kind {
	case WireGuard:
		return newWG(n)
	case NAT:
		return newNAT(n)
	case None:
		return noneNetwork{n}, nil
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

// openStack opens a planned network and a stack on it. wait is nil where nothing
// is to be waited for.
func (p *Plan) openStack(ctx context.Context, i int) (st stacks.Stack, wait func(context.Context) error, err error) {
	n := p.conf.Networks[i]
	links, err := p.nets[i].open(ctx, p.conf.Log)
	if err != nil {
		return nil, nil, err
	}
	cc, _ := n.value("cc")
	st, err = netstack.New(netstack.Config{
		Links:             links,
		DNS:               stacks.DNS{Servers: p.stub.Servers, Search: p.stub.Search},
		CongestionControl: cc,
		RcvBufMax:         n.bytes("rcvbuf"),
		SndBufMax:         n.bytes("sndbuf"),
		Log:               p.conf.Log,
	})
	if err != nil {
		for _, l := range links {
			l.Link.Close()
		}
		return nil, nil, fmt.Errorf("-n %s: %w", n.Spec, err)
	}
	for _, l := range links {
		if w, ok := l.Link.(waiter); ok {
			wait = w.WaitUp
		}
	}
	return st, wait, nil
}

// noneNetwork has its own loopback and nothing else.
type noneNetwork struct{ Network }

func (noneNetwork) describe() (PlanNetwork, []string) { return PlanNetwork{}, nil }
func (noneNetwork) dns() stacks.DNS                   { return stacks.DNS{} }
func (noneNetwork) reaches(netip.Addr) bool           { return false }
func (noneNetwork) open(context.Context, *slog.Logger) ([]netstack.LinkConfig, error) {
	return nil, nil
}

// wgNetwork is a wg-quick file.
type wgNetwork struct {
	Network
	cfg      *wg.Config
	warnings []string
}

func newWG(n Network) (*wgNetwork, error) {
	cfg, warnings, err := wg.ReadConfig(n.Target)
	if err != nil {
		var pe *fs.PathError
		if errors.As(err, &pe) {
			return nil, badConfig("%s: %w", n.Target, pe.Err)
		}
		return nil, badConfig("%w", err) // file and line are in it
	}
	if m := n.number("mtu"); m != 0 {
		if m < minMTU6 && slices.ContainsFunc(cfg.Addresses, func(p netip.Prefix) bool { return p.Addr().Is6() }) {
			return nil, badConfig("-n %s: mtu=%d: IPv6 needs %d at least", n.Spec, m, minMTU6)
		}
		cfg.MTU = m
	}
	w := &wgNetwork{Network: n, cfg: cfg}
	for _, x := range warnings {
		w.warnings = append(w.warnings, x.String())
	}
	return w, nil
}

func (w *wgNetwork) describe() (PlanNetwork, []string) {
	d := PlanNetwork{
		File:      w.Target,
		MTU:       w.cfg.Interface(0, "").MTU,
		Addresses: texts(w.cfg.Addresses),
		Routes:    planRoutes(w.cfg.Routes(0)),
	}
	for _, p := range w.cfg.Peers {
		pp := PlanPeer{
			PublicKey:    p.PublicKey.String(),
			PresharedKey: !p.PresharedKey.IsZero(),
			AllowedIPs:   texts(p.AllowedIPs),
			Keepalive:    p.Keepalive.Seconds(),
		}
		if !p.Endpoint.IsZero() {
			pp.Endpoint = p.Endpoint.String()
		}
		d.Peers = append(d.Peers, pp)
	}
	return d, w.warnings
}

func (w *wgNetwork) dns() stacks.DNS { return w.cfg.Resolvers() }

func (w *wgNetwork) reaches(a netip.Addr) bool {
	return !a.IsLoopback() && slices.ContainsFunc(w.cfg.Routes(0), func(r stacks.Route) bool { return r.Dst.Contains(a.Unmap()) })
}

func (w *wgNetwork) open(ctx context.Context, log *slog.Logger) ([]netstack.LinkConfig, error) {
	link, err := wg.Open(ctx, w.cfg, wg.Options{Log: log})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", w.Target, err)
	}
	return []netstack.LinkConfig{{
		Name:   w.ifName(),
		Link:   link,
		Addrs:  w.cfg.Addresses,
		Routes: stackRoutes(w.cfg.Routes(0)),
	}}, nil
}

// natNetwork is the host's network behind address translation.
type natNetwork struct {
	Network
	opts nat.Options
}

func newNAT(n Network) (*natNetwork, error) {
	if m := n.number("mtu"); m != 0 && m < minMTU6 {
		return nil, badConfig("-n %s: mtu=%d: IPv6 needs %d at least", n.Spec, m, minMTU6)
	}
	t := &natNetwork{Network: n, opts: nat.Options{MTU: n.number("mtu")}}
	_, t.opts.HostLoopback = n.value("host-loopback")
	f, err := os.Open(resolvConf)
	if err == nil {
		t.opts.DNS, err = nat.HostDNS(f)
		f.Close()
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("name servers of the host: %w", err)
	}
	return t, nil
}

// describe says what [nat.Link.Config] will once the link is open.
func (t *natNetwork) describe() (PlanNetwork, []string) {
	d := PlanNetwork{
		MTU: nat.DefaultMTU,
		Addresses: []string{
			netip.PrefixFrom(nat.Addr4, nat.Net4.Bits()).String(),
			netip.PrefixFrom(nat.Addr6, nat.Net6.Bits()).String(),
		},
		Routes: []PlanRoute{
			{Dst: "0.0.0.0/0", Via: nat.Gateway4.String()},
			{Dst: "::/0", Via: nat.Gateway6.String()},
		},
		HostLoopback: t.opts.HostLoopback,
	}
	if t.opts.MTU != 0 {
		d.MTU = t.opts.MTU
	}
	return d, nil
}

func (t *natNetwork) dns() stacks.DNS {
	d := stacks.DNS{Search: t.opts.DNS.Search}
	if len(t.opts.DNS.Servers) > 0 {
		d.Servers = []netip.AddrPort{netip.AddrPortFrom(nat.DNS4, 53)}
	}
	return d
}

func (t *natNetwork) reaches(a netip.Addr) bool { return !a.IsLoopback() }

func (t *natNetwork) open(ctx context.Context, log *slog.Logger) ([]netstack.LinkConfig, error) {
	o := t.opts
	o.Log = log
	link, err := nat.Open(ctx, o)
	if err != nil {
		return nil, err
	}
	c := link.Config()
	return []netstack.LinkConfig{{
		Name:   t.ifName(),
		Link:   link,
		Addrs:  c.Addrs,
		Routes: stackRoutes(c.Routes),
	}}, nil
}

// stackRoutes turns routes of a link into those of a stack's configuration.
func stackRoutes(rs []stacks.Route) []netstack.Route {
	out := make([]netstack.Route, 0, len(rs))
	for _, r := range rs {
		out = append(out, netstack.Route{Dst: r.Dst, Gateway: r.Gateway, Src: r.Src})
	}
	return out
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
