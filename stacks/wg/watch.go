// SPDX-License-Identifier: Apache-2.0

// Waiting for the first handshake, and for endpoints whose name moved.

package wg

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.zx2c4.com/wireguard/device"
)

// How often things are looked at.
const (
	lookSoon  = 500 * time.Microsecond // after a message that may begin a session
	lookLate  = 50 * time.Millisecond  // while nothing came
	lookNames = 5 * time.Second        // RekeyTimeout: when an initiation is repeated

	// resolveAfter is how many initiations in a row go unanswered before a name
	// is resolved again; the first repetition may be plain loss.
	resolveAfter = 2

	// How far lookups are apart: of a link that was up before, and of one that
	// somebody is waiting for.
	resolveEvery   = 2 * time.Minute
	resolveSoon    = 10 * time.Second
	resolveTimeout = 10 * time.Second
)

// poke wakes watch. It never blocks.
func (l *Link) poke() {
	if l.isUp.Load() {
		return
	}
	select {
	case l.poked <- struct{}{}:
	default:
	}
}

// setUp closes up, once.
func (l *Link) setUp() {
	if !l.isUp.Swap(true) {
		close(l.up)
	}
}

// watch closes up at the first handshake. The device has no call for that; a
// message that may complete one shortens the wait between looks.
func (l *Link) watch(ctx context.Context) {
	wait := lookLate
	hurry := hurries
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for !l.isUp.Load() {
		select {
		case <-ctx.Done():
			return
		case <-l.poked:
			wait = lookSoon
		case <-timer.C:
			wait = min(2*wait, lookLate)
		}
		for _, p := range l.Stats().Peers {
			if !p.LastHandshake.IsZero() {
				l.log.Info("WireGuard is up", "peer", p.PublicKey.String(), "addr", p.Addr.String(),
					"after", time.Since(l.opened).Round(time.Millisecond))
				l.setUp()
			}
		}
		if len(hurry) > 0 && time.Since(l.opened) >= hurry[0] && !l.isUp.Load() {
			hurry = hurry[1:]
			l.initiate()
		}
		timer.Reset(wait)
	}
}

// hurries is when, after the start, peers that have not answered are asked again.
// The device itself repeats an initiation after 5 s only; but a peer drops those of
// one key that come within 20 ms of another (replay and flood protection of
// wireguard-go and of Linux), as two views with one key that start together send
// them. A repetition makes a late answer to the one before useless, so there are
// two, far apart.
var hurries = []time.Duration{500 * time.Millisecond, 2 * time.Second}

// initiate asks every peer that has an endpoint and no session for one, at once.
func (l *Link) initiate() {
	stats := l.Stats()
	for _, p := range l.cfg.Peers {
		if !stats.addr(p.PublicKey).IsValid() {
			continue
		}
		if peer := l.dev.LookupPeer(device.NoisePublicKey(p.PublicKey)); peer != nil {
			peer.ExpireCurrentKeypairs() // or the device would wait
			if err := peer.SendHandshakeInitiation(false); err != nil {
				l.log.Debug("no handshake initiation", "peer", p.PublicKey.String(), "error", err)
			}
		}
	}
}

// hasNames reports whether any endpoint is a name.
func (l *Link) hasNames() bool {
	return slices.ContainsFunc(l.cfg.Peers, func(p Peer) bool {
		_, isAddr := p.Endpoint.addr()
		return !p.Endpoint.IsZero() && !isAddr
	})
}

// endpoints resolves the endpoint of each peer; the zero AddrPort is none. It
// fails with the last error if there are endpoints and none could be resolved.
func (l *Link) endpoints(ctx context.Context) ([]netip.AddrPort, error) {
	eps := make([]netip.AddrPort, len(l.cfg.Peers))
	var last error
	some := false
	for i, p := range l.cfg.Peers {
		if p.Endpoint.IsZero() {
			continue
		}
		as, err := l.lookup(ctx, p.Endpoint)
		if err != nil {
			last = err
			l.log.Warn("endpoint is not resolved", "peer", p.PublicKey.String(), "addr", p.Endpoint.String(), "error", err)
			continue
		}
		eps[i], some = as[0], true
	}
	if last != nil && !some {
		return nil, last
	}
	return eps, nil
}

// lookup returns the addresses of an endpoint, at least one.
func (l *Link) lookup(ctx context.Context, e Endpoint) ([]netip.AddrPort, error) {
	if at, ok := e.addr(); ok {
		return []netip.AddrPort{at}, nil
	}
	as, err := l.resolve(ctx, e.Host)
	if err == nil && len(as) == 0 {
		err = fmt.Errorf("no address")
	}
	if err != nil {
		return nil, fmt.Errorf("resolve endpoint %s: %w", e, err)
	}
	var eps []netip.AddrPort
	for _, a := range as {
		eps = append(eps, netip.AddrPortFrom(a.Unmap(), e.Port))
	}
	return eps, nil
}

// follow resolves names again while their peers do not answer: an address may
// have changed (dynamic DNS), or only another of several can be reached. A peer
// that is silent because nobody talks to it is left alone.
func (l *Link) follow(ctx context.Context) {
	type state struct {
		asked time.Time // last lookup
		sent  int       // initiations at that time, to the endpoint of that time
		at    netip.AddrPort
	}
	states := make([]state, len(l.cfg.Peers))
	tick := time.NewTicker(lookNames)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		stats := l.Stats()
		for i, p := range l.cfg.Peers {
			if _, isAddr := p.Endpoint.addr(); p.Endpoint.IsZero() || isAddr {
				continue
			}
			at, s := stats.addr(p.PublicKey), &states[i]
			c := l.bind.count(at)
			silent := c.since >= resolveAfter && (at != s.at || c.sent > s.sent)
			every := resolveSoon
			if l.isUp.Load() {
				every = resolveEvery
			}
			if at.IsValid() && !silent || time.Since(s.asked) < every {
				continue
			}
			next := l.again(ctx, p, at)
			*s = state{asked: time.Now(), sent: l.bind.count(next).sent, at: next}
		}
	}
}

// again looks p's name up and moves p to the address after the one that does not
// answer. It returns where p is then.
func (l *Link) again(ctx context.Context, p Peer, at netip.AddrPort) netip.AddrPort {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	as, err := l.lookup(ctx, p.Endpoint)
	if err != nil {
		l.log.Debug("endpoint is not resolved", "peer", p.PublicKey.String(), "error", err)
		return at
	}
	next := as[(slices.Index(as, at)+1)%len(as)]
	if next == at {
		return at
	}
	l.log.Info("endpoint moved", "peer", p.PublicKey.String(), "from", at.String(), "addr", next.String())
	// The device repeats its handshake every 5 s, and the next one goes there.
	err = l.dev.IpcSet(fmt.Sprintf("public_key=%s\nupdate_only=true\nendpoint=%s\n",
		hex.EncodeToString(p.PublicKey[:]), next))
	if err != nil {
		l.log.Warn("endpoint cannot be moved", "peer", p.PublicKey.String(), "error", err)
		return at
	}
	return next
}
