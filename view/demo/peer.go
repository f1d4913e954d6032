// SPDX-License-Identifier: Apache-2.0

// The peer.

package demo

import (
	"context"
	"errors"
	"fmt"
	"html"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"umrun/stacks"
	"umrun/stacks/netstack"
	"umrun/stacks/stacknet"
	"umrun/stacks/wg"
)

// PageName is the name that the peer's name server knows, and nobody else: .test
// is reserved, RFC 6761 §6.2.
const PageName = "page.demo.test"

// The addresses in the tunnel.
var (
	Peer4   = netip.MustParseAddr("10.99.0.1")
	Peer6   = netip.MustParseAddr("fd99::1")
	Client4 = netip.MustParseAddr("10.99.0.2")
	Client6 = netip.MustParseAddr("fd99::2")
	Net4    = netip.MustParsePrefix("10.99.0.0/24")
	Net6    = netip.MustParsePrefix("fd99::/64")
)

// A Peer is a running peer.
type Peer struct {
	PublicKey wg.PublicKey
	Port      uint16 // of its outer UDP socket

	st   *netstack.Stack
	web  *http.Server
	name []net.PacketConn
	wg   sync.WaitGroup
}

// StartPeer starts a peer that lets client in and serves its page on webPort. The
// caller closes it.
func StartPeer(ctx context.Context, client wg.PublicKey, webPort uint16) (_ *Peer, err error) {
	key, err := wg.NewPrivateKey()
	if err != nil {
		return nil, err
	}
	cfg := &wg.Config{
		Name:       "demo peer",
		PrivateKey: key,
		Addresses:  []netip.Prefix{netip.PrefixFrom(Peer4, Net4.Bits()), netip.PrefixFrom(Peer6, Net6.Bits())},
		Peers: []wg.Peer{{
			PublicKey:  client,
			AllowedIPs: []netip.Prefix{netip.PrefixFrom(Client4, 32), netip.PrefixFrom(Client6, 128)},
		}},
	}
	link, err := wg.Open(ctx, cfg, wg.Options{})
	if err != nil {
		return nil, err
	}
	p := &Peer{PublicKey: key.Public(), Port: link.Stats().ListenPort}
	if p.st, err = netstack.New(netstack.Config{Links: []stacks.LinkConfig{{Name: "wg0", Link: link, Addrs: cfg.Addresses}}}); err != nil {
		return nil, errors.Join(err, link.Close())
	}
	defer func() {
		if err != nil {
			p.Close()
		}
	}()
	p.web = &http.Server{
		Handler:           http.HandlerFunc(page),
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	for _, a := range []netip.Addr{Peer4, Peer6} {
		l, err := stacknet.Listen(p.st, netip.AddrPortFrom(a, webPort))
		if err != nil {
			return nil, fmt.Errorf("web page: %w", err)
		}
		p.wg.Go(func() { _ = p.web.Serve(l) }) // ends with web.Close
		c, err := stacknet.ListenPacket(p.st, netip.AddrPortFrom(a, 53))
		if err != nil {
			return nil, fmt.Errorf("name server: %w", err)
		}
		p.name = append(p.name, c)
		p.wg.Go(func() { serveNames(c) }) // ends with c
	}
	return p, nil
}

// Close ends the peer.
func (p *Peer) Close() error {
	var err error
	if p.web != nil {
		err = p.web.Close()
	}
	for _, c := range p.name {
		c.Close()
	}
	p.wg.Wait()
	return errors.Join(err, p.st.Close())
}

// page greets the visitor by address.
func page(w http.ResponseWriter, r *http.Request) {
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	fmt.Fprintf(w, "<!DOCTYPE html>\n<title>umrun demo</title>\n<p>Hello %s, this page is behind the tunnel.</p>\n", html.EscapeString(host))
}
