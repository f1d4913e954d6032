// SPDX-License-Identifier: Apache-2.0

// WireGuard as a network: a wg-quick file.

package view

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"slices"

	"umrun/stacks"
	"umrun/stacks/wg"
)

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

func (w *wgNetwork) open(ctx context.Context, log *slog.Logger) (opened, error) {
	link, err := wg.Open(ctx, w.cfg, wg.Options{Log: log})
	if err != nil {
		return opened{}, fmt.Errorf("%s: %w", w.Target, err)
	}
	return opened{
		links: []stacks.LinkConfig{{
			Name:   w.ifName(),
			Link:   link,
			Addrs:  w.cfg.Addresses,
			Routes: w.cfg.Routes(0),
		}},
		wait: link.WaitUp,
	}, nil
}
