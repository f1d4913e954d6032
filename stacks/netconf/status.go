// SPDX-License-Identifier: Apache-2.0

// How far the client is: for those who wait, and for people.

package netconf

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"umrun/stacks"
)

// A progress is how far a protocol is.
type progress int

const (
	silent   progress = iota // it has asked, and nobody answers
	unasked                  // it has nothing to ask, or to wait for
	underWay                 // somebody answers
	settled                  // the interface has what it was to have
)

// How long auto waits for what has not said a word yet, once something else has brought
// an address. Servers of DHCP look for an address with a ping before they offer it, for
// up to three seconds; routers answer within half a second (RFC 4861 §10,
// MAX_RA_DELAY_TIME), to the second solicitation if the first is lost.
const (
	silenceDHCP    = 4 * time.Second
	silenceRouters = 2 * time.Second
	silenceInfo    = time.Second
	patience       = 5 * time.Second // with what is under way
)

// A Status is what the client knows.
type Status struct {
	Leases  []Lease
	Routers []Router
	Addrs   []netip.Prefix // of SLAAC
	DNS     stacks.DNS     // in all
	Trouble []string       // what goes wrong: sentences without a full stop
	Sent    []Count
	Heard   []Count

	Missing Words // that have not brought what they ask for
	Silent  bool  // nobody has answered to any of these
}

// A Lease is an address that a server has given.
type Lease struct {
	Protocol string // DHCP or DHCPv6
	Addr     netip.Prefix
	Server   string
	MAC      net.HardwareAddr // of the server, or of who stands between; nil: not known
	Life     time.Duration    // 0: for ever
	Renew    time.Time        // when it is asked for more time; zero: never
	Until    time.Time        // zero: for ever
	Offers   int              // of servers
}

// A Router is who advertises itself.
type Router struct {
	Addr           netip.Addr
	Default        bool
	Until          time.Time // as a default router
	Managed, Other bool
}

// A Count is how often a message was sent or heard.
type Count struct {
	Name string
	N    int
}

// Status returns what the client knows now.
func (c *Client) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status
}

// tell makes the status, and ends the waiting.
func (c *Client) tell(now time.Time) {
	s := Status{DNS: c.applied.DNS, Sent: c.sent.list(), Heard: c.heard.list()}
	trouble := func(t string) {
		if t != "" {
			s.Trouble = append(s.Trouble, t)
		}
	}
	if d := c.dhcp4; d != nil {
		if d.state() == settled {
			l := &d.lease
			s.Leases = append(s.Leases, Lease{
				Protocol: "DHCP", Addr: l.addr, Server: l.server.String(), MAC: l.mac, Life: l.life,
				Renew: d.after(l.t1), Until: d.expiry(), Offers: len(d.offers),
			})
		}
		trouble(d.trouble)
	}
	if d := c.dhcp6; d != nil {
		if d.has() {
			l := &d.lease
			x := Lease{Protocol: "DHCPv6", Addr: netip.PrefixFrom(l.addr, 128), Server: l.from.String(), Renew: l.t1, Until: l.until, Offers: len(d.offers)}
			if !l.until.IsZero() {
				x.Life = l.until.Sub(l.got)
			}
			s.Leases = append(s.Leases, x)
		}
		trouble(d.trouble)
	}
	if r := c.routers; r != nil {
		for _, x := range r.all {
			s.Routers = append(s.Routers, Router{Addr: x.addr, Default: x.isDefault, Until: x.until, Managed: x.managed, Other: x.other})
		}
		for _, p := range r.prefixes {
			if _, taken := r.dad.taken(p.addr); p.auto && !taken && !r.dad.busy(p.addr) {
				s.Addrs = append(s.Addrs, netip.PrefixFrom(p.addr, 64))
			}
		}
		trouble(r.trouble)
	}
	s.Missing, s.Silent = c.missing()
	c.mu.Lock()
	c.status = s
	c.mu.Unlock()
	if !c.isReady && c.pending(now).IsZero() {
		c.isReady = true
		c.log.Info("configured", "addrs", len(c.applied.Addrs), "after", now.Sub(c.began))
		close(c.ready)
	}
}

// readyAt is when the waiting may end without anything being heard; zero: it does not.
func (c *Client) readyAt(now time.Time) time.Time {
	if c.isReady {
		return time.Time{}
	}
	if at := c.pending(now); at != never {
		return at
	}
	return time.Time{}
}

// never is a moment that does not come.
var never = time.Unix(1<<40, 0)

// missing tells which words have not brought what they ask for, and whether nobody has
// answered to them.
func (c *Client) missing() (m Words, quiet bool) {
	w := c.conf.Words
	quiet = true
	lacks := func(p progress) bool {
		quiet = quiet && (p == silent || p == settled)
		return p != settled
	}
	m.DHCP = w.DHCP && lacks(c.dhcp4.state())
	m.DHCP6 = w.DHCP6 && lacks(c.dhcp6.state())
	m.SLAAC = w.SLAAC && lacks(c.routers.state())
	m.RD = w.RD && c.routers.adverts == 0
	if w.Auto && len(c.applied.Addrs) == 0 {
		m.Auto = true
		quiet = quiet && c.dhcp4.state() == silent && c.routers.state() == silent
	}
	return m, quiet
}

// pending is until when there is something to wait for: zero if not at all, never if
// until it is there.
func (c *Client) pending(now time.Time) time.Time {
	w := c.conf.Words
	switch {
	case w.DHCP && c.dhcp4.state() != settled,
		w.DHCP6 && c.dhcp6.state() != settled,
		w.SLAAC && c.routers.state() != settled,
		w.RD && c.routers.adverts == 0:
		return never
	case !w.Auto:
		return time.Time{}
	}
	all := []struct {
		p       progress
		silence time.Time
	}{
		{c.dhcp4.state(), c.began.Add(silenceDHCP)},
		{c.routers.state(), c.began.Add(silenceRouters)},
		{c.dhcp6.state(), c.began.Add(silenceRouters + silenceInfo)},
	}
	if c.first.IsZero() {
		if len(c.applied.Addrs) == 0 {
			return never
		}
		c.first = now
	}
	var until time.Time
	for _, x := range all {
		end := time.Time{}
		switch x.p {
		case silent:
			end = x.silence
		case underWay:
			end = c.first.Add(patience)
		}
		if end.After(now) && end.After(until) {
			until = end
		}
	}
	return until
}

// Wait waits until the interface has what the words ask for: each of those that were
// named, and of auto at least one, with some time for the others. The error is a
// *NoAnswerError when ctx ends before, net.ErrClosed when the link was closed.
func (c *Client) Wait(ctx context.Context) error {
	begin := time.Now()
	select {
	case <-c.ready:
		return nil
	case <-c.quit:
		return net.ErrClosed
	case <-ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return &NoAnswerError{Name: c.conf.Name, After: time.Since(begin), Status: c.status}
}

// A NoAnswerError says that an interface was not configured in time.
type NoAnswerError struct {
	Name   string
	After  time.Duration
	Status Status
}

// Error says what was sent and what was heard.
func (e *NoAnswerError) Error() string {
	what := "no answer to " + e.Status.Missing.String()
	if !e.Status.Silent {
		what = e.Status.Missing.String() + " did not come to an end"
	}
	return fmt.Sprintf("%s on %s in %s (%s sent, %s heard)", what, e.Name, spent(e.After), counts(e.Status.Sent), counts(e.Status.Heard))
}

// spent writes how long somebody has waited; part of it went by before.
func spent(d time.Duration) string {
	if d < time.Second/2 {
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%d s", d.Round(time.Second)/time.Second)
}

// Hint says what may be the reason.
func (e *NoAnswerError) Hint() string {
	switch m := e.Status.Missing; {
	case len(e.Status.Trouble) > 0:
		return strings.Join(e.Status.Trouble, ".\n") + "."
	case !e.Status.Silent:
		return "Somebody answers, and does not give what was asked for."
	case (m.DHCP || m.DHCP6 || m.Auto) && (m.SLAAC || m.RD || m.Auto):
		return "There may be neither a DHCP server nor a router on this network, or it does not hear this port."
	case m.SLAAC || m.RD:
		return "There may be no router that advertises itself on this network, or it does not hear this port."
	}
	return "There may be no DHCP server on this network, or it does not hear this port."
}

// String lists the words as a SPEC has them.
func (w Words) String() string {
	var all []string
	for _, x := range []struct {
		set  bool
		name string
	}{{w.Auto, "auto"}, {w.DHCP, "dhcp"}, {w.DHCP6, "dhcp6"}, {w.SLAAC, "slaac"}, {w.RD, "rd"}} {
		if x.set {
			all = append(all, x.name)
		}
	}
	return strings.Join(all, ",")
}

func counts(all []Count) string {
	var words []string
	for _, x := range all {
		word := fmt.Sprintf("%d %s", x.N, x.Name)
		if last := word[len(word)-1]; x.N != 1 && last >= 'a' && last <= 'z' {
			word += "s" // the names of messages are in capitals
		}
		words = append(words, word)
	}
	if len(words) == 0 {
		return "nothing"
	}
	return strings.Join(words, ", ")
}

// list is what was counted.
func (t *tally) list() []Count {
	var all []Count
	for _, n := range slices.Clone(t.names) {
		all = append(all, Count{n, t.counts[n]})
	}
	return all
}
