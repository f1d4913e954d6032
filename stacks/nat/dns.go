// SPDX-License-Identifier: Apache-2.0

// The name server of the view: a relay to the servers that the host uses.

package nat

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

const (
	dnsPort = 53
	dnsHdr  = 12 // bytes of a DNS message's header, RFC 1035 §4.1.1

	// dnsWait is how long a server has to answer by UDP before the next is asked.
	dnsWait = 3 * time.Second
	// dnsMax bounds queries under way; one beyond is dropped, and asked again.
	dnsMax = 512
)

// HostDNS reads how the host resolves names, from its resolv.conf(5). Without
// any server there is the one on the local machine, as that page says. Options
// are not kept, they are the business of whoever asks.
func HostDNS(resolvConf io.Reader) (stacks.DNS, error) {
	var d stacks.DNS
	sc := bufio.NewScanner(resolvConf)
	for sc.Scan() {
		f := strings.Fields(sc.Text())
		if len(f) < 2 || f[0][0] == '#' || f[0][0] == ';' {
			continue
		}
		switch f[0] {
		case "nameserver":
			if a, err := netip.ParseAddr(f[1]); err == nil {
				d.Servers = append(d.Servers, netip.AddrPortFrom(a, dnsPort))
			}
		case "domain", "search": // the last one counts
			d.Search = nil
			for _, s := range f[1:] {
				if s = strings.Trim(s, "."); s != "" {
					d.Search = append(d.Search, s)
				}
			}
		}
	}
	if err := sc.Err(); err != nil {
		return stacks.DNS{}, fmt.Errorf("read resolv.conf: %w", err)
	}
	if len(d.Servers) == 0 {
		d.Servers = []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), dnsPort)}
	}
	return d, nil
}

// dnsRelay is the relay's memory.
type dnsRelay struct {
	good   atomic.Uint32 // index of the server that answered last
	active atomic.Int32  // queries under way
}

// servers returns the host's servers, the one that answered last first.
func (l *Link) servers() []netip.AddrPort {
	all := l.opts.DNS.Servers
	if len(all) == 0 {
		return nil
	}
	good := int(l.relay.good.Load()) % len(all)
	return append(append([]netip.AddrPort(nil), all[good:]...), all[:good]...)
}

// answered remembers that server did.
func (l *Link) answered(server netip.AddrPort) {
	for i, s := range l.opts.DNS.Servers {
		if s == server {
			l.relay.good.Store(uint32(i))
			return
		}
	}
}

// queryDNS relays one query that came from the view's port from to the relay at
// to. Each has a socket of its own, connected: nobody but the server can answer.
func (l *Link) queryDNS(from, to addrPort, d datagram) {
	query := bytes.Clone(d.payload[udpHdr:])
	if len(query) < dnsHdr || query[2]&0x80 != 0 { // QR: a response
		l.stats.ignored.Add(1)
		return
	}
	servers := l.servers()
	if len(servers) == 0 {
		l.unreachable(d, unreachPort)
		return
	}
	if l.relay.active.Add(1) > dnsMax {
		l.relay.active.Add(-1)
		l.stats.lost.Add(1)
		return
	}
	l.stats.dns.Add(1)
	d.packet = bytes.Clone(d.packet[:min(len(d.packet), 128)])
	l.wg.Add(1)
	go func() {
		defer l.wg.Done()
		defer l.relay.active.Add(-1)
		buf := readBufs.Get().(*[maxIP]byte)
		defer readBufs.Put(buf)
		var err error
		for _, s := range servers {
			var n int
			if n, err = l.exchange(s, query, buf[:]); err == nil {
				l.answered(s)
				l.sendUDP(to, from, buf[:n], true)
				return
			}
			l.log.Debug("name server", "addr", s, "err", err)
		}
		if errors.Is(err, unix.ECONNREFUSED) {
			l.unreachable(d, unreachPort)
		}
	}()
}

// exchange asks one server by UDP and puts its answer into buf.
func (l *Link) exchange(server addrPort, query, buf []byte) (int, error) {
	ctx, cancel := context.WithTimeout(l.ctx, dnsWait)
	defer cancel()
	var dialer net.Dialer
	c, err := dialer.DialUDP(ctx, "udp", addrPort{}, withPort(server))
	if err != nil {
		return 0, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(longAgo) })
	defer stop()
	if _, err := c.Write(query); err != nil {
		return 0, err
	}
	for {
		n, err := c.Read(buf)
		if err != nil {
			return 0, err
		}
		if n >= dnsHdr && bytes.Equal(buf[:2], query[:2]) && buf[2]&0x80 != 0 {
			return n, nil
		}
	}
}

// dialDNS connects to the first of the host's servers that takes it.
func (l *Link) dialDNS() (*net.TCPConn, error) {
	err := error(unix.ECONNREFUSED)
	for _, s := range l.servers() {
		ctx, cancel := context.WithTimeout(l.ctx, dnsWait)
		var c *net.TCPConn
		c, err = dialHost(ctx, withPort(s))
		cancel()
		if err == nil {
			return c, nil
		}
	}
	return nil, err
}

func withPort(s addrPort) addrPort {
	if s.Port() == 0 {
		return netip.AddrPortFrom(s.Addr(), dnsPort)
	}
	return s
}
