// SPDX-License-Identifier: Apache-2.0

// --publish-all: the ports that the program serves, on the host under the same number.

package view

import (
	"io"
	"log/slog"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"

	"umrun/netmod"
)

// A publicPort is a port of one family.
type publicPort struct {
	udp, v6 bool
	port    uint16
}

// A publishAll follows what the program opens and closes. One goroutine opens and closes
// the ports of the host, from start to close; who tells of them does not wait for it.
type publishAll struct {
	by  publisher
	log *slog.Logger

	mu     sync.Mutex
	cond   sync.Cond
	want   map[publicPort]int // +checklocks:mu, sockets of the program
	closed bool               // +checklocks:mu

	have map[publicPort]io.Closer // of the goroutine; nil: it cannot be had
	wg   sync.WaitGroup
}

func newPublishAll(log *slog.Logger) *publishAll {
	a := &publishAll{log: log, want: make(map[publicPort]int), have: make(map[publicPort]io.Closer)}
	a.cond.L = &a.mu
	return a
}

// start begins to publish by a network.
func (a *publishAll) start(by publisher) {
	a.by = by
	a.wg.Add(1)
	go a.run()
}

// ports are those of the host that an opening stands for. What is bound to loopback is
// for the view alone.
func ports(o netmod.Opening) (out []publicPort) {
	at := o.Local.Addr().Unmap()
	if at.IsLoopback() || at.IsMulticast() || at.Is6() && at.IsLinkLocalUnicast() {
		return nil
	}
	p := publicPort{udp: o.Proto == unix.IPPROTO_UDP, v6: at.Is6(), port: o.Local.Port()}
	out = append(out, p)
	if o.Both && p.v6 {
		p.v6 = false
		out = append(out, p)
	}
	return out
}

func (a *publishAll) opened(o netmod.Opening) { a.change(o, 1) }
func (a *publishAll) gone(o netmod.Opening)   { a.change(o, -1) }

func (a *publishAll) change(o netmod.Opening, by int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range ports(o) {
		if a.want[p] += by; a.want[p] == 0 {
			delete(a.want, p)
		}
	}
	a.cond.Signal()
}

// next waits for a port to open or to close; false means that there are none any more.
func (a *publishAll) next() (p publicPort, open, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for {
		for p := range a.have {
			if a.want[p] == 0 {
				return p, false, true
			}
		}
		for p := range a.want {
			if _, there := a.have[p]; !there {
				return p, true, true
			}
		}
		if a.closed {
			return publicPort{}, false, false
		}
		a.cond.Wait()
	}
}

func (a *publishAll) run() {
	defer a.wg.Done()
	for {
		p, open, ok := a.next()
		switch {
		case !ok:
			return
		case open:
			a.have[p] = a.open(p)
		default:
			if c := a.have[p]; c != nil {
				if err := c.Close(); err != nil {
					a.log.Debug("close a published port", "port", p.port, "err", err)
				}
			}
			delete(a.have, p)
		}
	}
}

// open publishes a port, and says once why that cannot be.
func (a *publishAll) open(p publicPort) io.Closer {
	at := Publish{Host: netip.IPv4Unspecified(), HostPort: p.port, Port: p.port, UDP: p.udp}
	if p.v6 {
		at.Host = netip.IPv6Unspecified()
	}
	c, err := at.open(a.by)
	if err != nil {
		a.log.Warn("a port of the program is not published", "port", p.port, "protocol", at.proto(), "err", err)
		return nil
	}
	return c
}

// close takes back what is left, and ends the goroutine.
func (a *publishAll) close() {
	if a == nil {
		return
	}
	a.mu.Lock()
	a.closed = true
	clear(a.want)
	a.mu.Unlock()
	a.cond.Signal()
	a.wg.Wait()
}
