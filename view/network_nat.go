// SPDX-License-Identifier: Apache-2.0

// NAT as a network: the host's, behind address translation.

package view

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"

	"umrun/stacks"
	"umrun/stacks/nat"
)

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
		MTU:          nat.DefaultMTU,
		Addresses:    natAddresses(),
		Routes:       natRoutes(),
		HostLoopback: t.opts.HostLoopback,
	}
	if t.opts.MTU != 0 {
		d.MTU = t.opts.MTU
	}
	return d, nil
}

// natAddresses and natRoutes are those of every view behind a [nat.Link].
func natAddresses() []string {
	return []string{
		netip.PrefixFrom(nat.Addr4, nat.Net4.Bits()).String(),
		netip.PrefixFrom(nat.Addr6, nat.Net6.Bits()).String(),
	}
}

func natRoutes() []PlanRoute {
	return []PlanRoute{
		{Dst: "0.0.0.0/0", Via: nat.Gateway4.String()},
		{Dst: "::/0", Via: nat.Gateway6.String()},
	}
}

func (t *natNetwork) dns() stacks.DNS {
	d := stacks.DNS{Search: t.opts.DNS.Search}
	if len(t.opts.DNS.Servers) > 0 {
		d.Servers = []netip.AddrPort{netip.AddrPortFrom(nat.DNS4, 53)}
	}
	return d
}

func (t *natNetwork) reaches(a netip.Addr) bool { return !a.IsLoopback() }

func (t *natNetwork) open(ctx context.Context, log *slog.Logger) (opened, error) {
	o := t.opts
	o.Log = log
	link, err := nat.Open(ctx, o)
	if err != nil {
		return opened{}, err
	}
	c := link.Config()
	return opened{links: []stacks.LinkConfig{{
		Name:   t.ifName(),
		Link:   link,
		Addrs:  c.Addrs,
		Routes: c.Routes,
	}}, publisher: natPublisher{link}}, nil
}

// natPublisher publishes ports by a NAT: programs see who their clients are.
type natPublisher struct{ link *nat.Link }

func (n natPublisher) publish(proto string, host netip.AddrPort, port uint16) (io.Closer, error) {
	p, err := n.link.Publish(proto, host, netip.AddrPortFrom(netip.Addr{}, port))
	if err != nil {
		return nil, err
	}
	return p, nil
}
