// SPDX-License-Identifier: Apache-2.0

// The stub: its configuration, and one query from arrival to answer.

package dns

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	defaultTimeout = 4500 * time.Millisecond // below glibc's 5 s
	maxInFlight    = 256                     // queries being forwarded at once
)

// Config is what a [Stub] works with. Nothing in it is changed by the stub.
type Config struct {
	// Servers are asked in this order. Empty: every forwarded query gets
	// SERVFAIL.
	Servers []netip.AddrPort

	// Search are the domains in which dotless names are tried, without leading
	// and trailing dots.
	Search []string

	// Hosts are static names, in lower case without a trailing dot, and their
	// addresses. Types other than A and AAAA have no data; the addresses also
	// have reverse names.
	Hosts map[string][]netip.Addr

	// Names, if set, gives the names that are not local their addresses; Servers
	// are then asked for other types of records only.
	Names Names

	// Stream says that Servers are asked over TCP alone.
	Stream bool

	// HTTPS, if set, is the URL of a server that is asked by DNS over HTTPS instead.
	// Servers are then asked for the address of its host alone, if that is a name, or
	// Bootstrap if it is set.
	HTTPS     string
	Bootstrap Names
	Roots     *x509.CertPool // whom HTTPS trusts; nil: as this machine does

	// Dial connects to a server through the view's stack; network is "udp" or
	// "tcp". Each call must use a fresh socket, and so a fresh source port.
	Dial func(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error)

	// Timeout bounds a query as a whole; 0 is 4.5 s.
	Timeout time.Duration

	// Log gets one warning when names cannot be asked. Nil: silence.
	Log *slog.Logger

	// Reason says why Servers is empty, in a sentence that names the remedy. It
	// is the text of the one warning, given when the first name is asked for,
	// and of the extended error (RFC 8914) in each answer. Empty: no warning.
	Reason string
}

// A Stub answers DNS queries. It is safe for concurrent use.
type Stub struct {
	conf    Config
	up      atomic.Pointer[upstream]
	web     *web // of Config.HTTPS, else nil
	hosts   map[string][]netip.Addr
	reverse map[string]string // in-addr.arpa or ip6.arpa name -> host name
	room    chan struct{}     // one token for each forwarded query; see maxInFlight
}

// New returns a stub. Search domains and host names that are no domain names
// are left out with a warning.
func New(c Config) *Stub {
	if c.Timeout <= 0 {
		c.Timeout = defaultTimeout
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &Stub{
		conf:    c,
		hosts:   make(map[string][]netip.Addr),
		reverse: make(map[string]string),
		room:    make(chan struct{}, maxInFlight),
	}
	s.SetUpstream(c.Servers, c.Search, c.Reason)
	if c.HTTPS != "" {
		var err error
		if s.web, err = newWeb(s); err != nil {
			c.Log.Warn("DNS over HTTPS is not asked", "url", c.HTTPS, "err", err)
			s.SetUpstream(nil, c.Search, err.Error())
		}
	}
	for name, addrs := range c.Hosts {
		wire, ok := encodeName(name)
		if !ok || len(wire) == 1 {
			c.Log.Warn("host name is no domain name", "name", name)
			continue
		}
		s.hosts[nameText(wire)] = addrs
		for _, a := range addrs {
			// Of several names for an address the first in alphabetical order,
			// so that the order of the map does not show.
			r := reverseName(a)
			if old, ok := s.reverse[r]; !ok || name < old {
				s.reverse[r] = strings.ToLower(strings.TrimSuffix(name, "."))
			}
		}
	}
	return s
}

// An upstream is who is asked. What it says does not change once it is in use.
type upstream struct {
	servers []netip.AddrPort
	search  [][]byte // wire form
	reason  string
	warned  sync.Once // that names cannot be asked
}

// SetUpstream replaces what [Config.Servers], [Config.Search] and [Config.Reason] say,
// as a network does whose servers are learned and may change. Queries under way go on
// as they began.
func (s *Stub) SetUpstream(servers []netip.AddrPort, search []string, reason string) {
	u := &upstream{servers: slices.Clone(servers), reason: reason}
	for _, d := range search {
		wire, ok := encodeName(d)
		if !ok || len(wire) == 1 {
			s.conf.Log.Warn("search domain is no domain name", "domain", d)
			continue
		}
		u.search = append(u.search, wire)
	}
	s.up.Store(u)
}

// Answer returns the message that answers query, or nil if there is nothing to
// send. tcp says that the client came by TCP: then the answer has no limit but
// 64 KiB. query is only read, and not kept.
//
// Answer blocks for up to [Config.Timeout], or until ctx is done.
func (s *Stub) Answer(ctx context.Context, query []byte, tcp bool) []byte {
	q, rcode, ok := parseQuery(query)
	if !ok {
		return nil
	}
	if rcode != rcodeSuccess {
		return q.failure(rcode, "")
	}
	ctx, cancel := context.WithTimeout(ctx, s.conf.Timeout)
	defer cancel()

	up := s.up.Load()
	reply, answered := s.lookup(ctx, up, q, tcp)
	if !answered {
		return reply
	}
	if len(up.search) > 0 && s.searchable(q) && !exists(reply) {
		reply = s.searchFor(ctx, up, q, tcp, reply)
	}
	return q.fit(reply, tcp)
}

// lookup answers q from here or by the servers. answered tells a reply that
// somebody gave from a SERVFAIL that was made here for want of one.
func (s *Stub) lookup(ctx context.Context, up *upstream, q query, tcp bool) (reply []byte, answered bool) {
	if reply := s.local(q); reply != nil {
		return reply, true
	}
	if len(up.servers) == 0 && (s.web == nil || !s.web.host.IsValid() && s.conf.Bootstrap == nil) {
		if up.reason != "" {
			up.warned.Do(func() { s.conf.Log.Warn(up.reason) })
		}
		// A search can still find a static name.
		return q.failure(rcodeServerFailure, up.reason), true
	}
	// The bound keeps a program that floods the stub from exhausting the
	// stack's ports; who finds no room waits as for a slow server.
	select {
	case s.room <- struct{}{}:
		defer func() { <-s.room }()
	case <-ctx.Done():
		return q.failure(rcodeServerFailure, "too many queries at once"), false
	}
	var err error
	if s.web != nil {
		reply, err = s.web.ask(ctx, q)
	} else {
		reply, err = s.forward(ctx, up.servers, q, tcp)
	}
	if err != nil {
		if !errors.Is(ctx.Err(), context.Canceled) { // else the view is ending
			up.warned.Do(func() {
				asked := any(up.servers)
				if s.web != nil {
					asked = s.web.url
				}
				s.conf.Log.Warn("no answer from the name servers", "servers", asked, "err", err)
			})
		}
		return q.failure(rcodeServerFailure, "no answer from the name servers"), false
	}
	return reply, true
}
