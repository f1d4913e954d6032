// SPDX-License-Identifier: Apache-2.0

// Check: try a network without a program.

package view

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"umrun/netmod"
	"umrun/stacks"
	"umrun/stacks/stacknet"
)

// checkTime bounds each attempt of Check but the first, which has Config.Wait.
const checkTime = 3 * time.Second

// Check parses the networks of conf and tries each: does the link come up, does a
// name server answer, do packets of full size arrive. What it finds it tells as it
// goes. The error is that of the first Fail, with its exit status.
func Check(ctx context.Context, conf Config, tell func(Finding)) error {
	p, err := planNetworks(conf)
	if err != nil {
		return err
	}
	var first error
	for i, n := range p.Networks {
		about := tell
		if len(p.Networks) > 1 {
			about = func(f Finding) {
				f.Text = n.Name + ": " + f.Text
				tell(f)
			}
		}
		text := string(n.Kind)
		if len(n.Addresses) > 0 {
			text += " " + strings.Join(n.Addresses, ", ")
		}
		if n.Proxy != "" {
			text += ", proxy " + n.Proxy
		}
		for _, peer := range n.Peers {
			text += ", peer " + cmp.Or(peer.Endpoint, "without endpoint")
		}
		about(Finding{Name: "config", Verdict: OK, Text: text})
		if i == 0 {
			for _, w := range p.Warnings {
				tell(Finding{Name: "config", Verdict: Note, Text: w})
			}
		}
		if err := p.check(ctx, i, about); err != nil && first == nil {
			first = err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return first
}

// check tries one network.
func (p *Plan) check(ctx context.Context, i int, tell func(Finding)) error {
	n, stub := p.Networks[i], &p.stubs[i]
	began := time.Now()
	alone := *p
	alone.conf.Networks, alone.Networks, alone.nets, alone.stubs = p.conf.Networks[i:i+1], p.Networks[i:i+1], p.nets[i:i+1], p.stubs[i:i+1]
	if i > 0 {
		alone.DNS.Mode = p.DNS.Networks[i-1].Mode
	}
	nets, err := alone.up(ctx, cmp.Or(p.conf.Wait, checkTime))
	if err != nil {
		var prob *Problem
		if errors.As(err, &prob) {
			prob.Try = slices.DeleteFunc(prob.Try, func(s string) bool { return s == "--no-wait" || strings.HasPrefix(s, "umrun check") })
		}
		f := Finding{Name: "handshake", Verdict: Fail, Text: err.Error()}
		if len(n.Configure) > 0 {
			f.Name = "lease"
		}
		tell(f)
		return err
	}
	o := nets[0]
	st := o.stack
	defer st.Close()
	if n.Kind == WireGuard {
		tell(Finding{Name: "handshake", Verdict: OK, Text: "up in " + millis(time.Since(began))})
	}
	var first error
	failed := func(f Finding) {
		tell(f)
		if f.Verdict == Fail && first == nil {
			first = &Problem{Code: ExitNetwork, What: f.Text}
		}
	}
	if o.check != nil {
		for _, f := range o.check(ctx) {
			failed(f)
		}
	}
	if stub.Names != nil {
		tell(Finding{Name: "dns", Verdict: OK, Text: "names are resolved by the proxy"})
	}
	if stub.HTTPS != "" {
		failed(checkHTTPS(ctx, o.resolver, stub.HTTPS))
	}
	if o.learner != nil {
		stub.Servers, stub.Reason = st.State().DNS.Servers, ""
	}
	if len(stub.Servers) == 0 {
		if stub.Reason != "" {
			tell(Finding{Name: "dns", Verdict: Note, Text: stub.Reason})
		}
		return cmp.Or(ctx.Err(), first)
	}
	for _, s := range stub.Servers {
		failed(checkServer(ctx, st, s, stub.Stream))
	}
	if n.Kind == WireGuard {
		tell(checkMTU(ctx, st, stub.Servers[0].Addr(), n.MTU))
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return first
}

// checkHTTPS has the server of a URL asked for the root's servers.
func checkHTTPS(ctx context.Context, r netmod.Resolver, url string) Finding {
	f := Finding{Name: "dns", Verdict: Fail}
	began := time.Now()
	q := rootQuery()
	b, err := q.Pack()
	if err != nil {
		f.Text = err.Error()
		return f
	}
	var p dnsmessage.Parser
	h, err := p.Start(r.Answer(ctx, b, true))
	switch {
	case err != nil:
		f.Text = fmt.Sprintf("%s: %v", url, err)
	case h.RCode == dnsmessage.RCodeServerFailure:
		f.Text = fmt.Sprintf("no answer from %s", url)
	default:
		f.Verdict, f.Text = OK, fmt.Sprintf("%s answered in %s", url, millis(time.Since(began)))
	}
	return f
}

// rootQuery asks for the root's servers.
func rootQuery() dnsmessage.Message {
	return dnsmessage.Message{
		Header:    dnsmessage.Header{ID: uint16(time.Now().UnixNano()), RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName("."), Type: dnsmessage.TypeNS, Class: dnsmessage.ClassINET}},
	}
}

// checkServer asks a name server for the root's servers. Any answer will do: a
// server that refuses this one may know its own zones. stream: over TCP.
func checkServer(ctx context.Context, st stacks.Stack, server netip.AddrPort, stream bool) Finding {
	f := Finding{Name: "dns", Verdict: Fail}
	began := time.Now()
	rcode, err := askRoot(ctx, st, server, stream)
	switch {
	case err != nil:
		f.Text = fmt.Sprintf("name server %s: %v", server, err)
	case rcode == dnsmessage.RCodeSuccess:
		f.Verdict, f.Text = OK, fmt.Sprintf("name server %s answered in %s", server, millis(time.Since(began)))
	default:
		f.Verdict = OK
		f.Text = fmt.Sprintf("name server %s answered in %s (%s for the root, as servers of private zones do)", server, millis(time.Since(began)), rcodeName(rcode))
	}
	return f
}

// rcodeName is what dig(1) calls an RCODE.
func rcodeName(c dnsmessage.RCode) string {
	names := map[dnsmessage.RCode]string{
		dnsmessage.RCodeFormatError: "FORMERR", dnsmessage.RCodeServerFailure: "SERVFAIL", dnsmessage.RCodeNameError: "NXDOMAIN",
		dnsmessage.RCodeNotImplemented: "NOTIMP", dnsmessage.RCodeRefused: "REFUSED",
	}
	return cmp.Or(names[c], fmt.Sprintf("RCODE %d", uint16(c)))
}

func askRoot(ctx context.Context, st stacks.Stack, server netip.AddrPort, stream bool) (dnsmessage.RCode, error) {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	network, tries := "udp", 3 // datagrams get lost
	if stream {
		network, tries = "tcp", 1
	}
	c, err := stacknet.Dial(ctx, st, network, server)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	q := rootQuery()
	b, err := q.Pack()
	if err != nil {
		return 0, err
	}
	if stream { // RFC 1035 §4.2.2
		b = append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)
	}
	buf := make([]byte, 2+65535)
	for range tries {
		if _, err := c.Write(b); err != nil {
			return 0, err
		}
		c.SetReadDeadline(time.Now().Add(checkTime / time.Duration(tries)))
		n, err := readAnswer(c, buf, stream)
		if errors.Is(err, unix.ECONNREFUSED) {
			return 0, err
		}
		if ctx.Err() != nil {
			break
		}
		var p dnsmessage.Parser
		if err != nil {
			continue
		}
		if h, err := p.Start(buf[:n]); err == nil && h.ID == q.ID && h.Response {
			return h.RCode, nil
		}
	}
	return 0, fmt.Errorf("no answer in %s", checkTime)
}

// readAnswer reads a DNS message into the front of buf.
func readAnswer(c net.Conn, buf []byte, stream bool) (int, error) {
	if !stream {
		return c.Read(buf)
	}
	if _, err := io.ReadFull(c, buf[:2]); err != nil {
		return 0, err
	}
	return io.ReadFull(c, buf[:binary.BigEndian.Uint16(buf)])
}

// checkMTU pings host with packets of the full and of the least size. A large one
// that does not come back where a small one does says that the MTU is too large
// for a path underneath.
func checkMTU(ctx context.Context, st stacks.Stack, host netip.Addr, mtu int) Finding {
	f := Finding{Name: "mtu", Verdict: OK}
	if err := ping(ctx, st, host, 64); err != nil {
		f.Verdict, f.Text = Note, fmt.Sprintf("not tried: %s does not answer pings", host)
		return f
	}
	if err := ping(ctx, st, host, mtu); err != nil {
		f.Verdict, f.Text = Note, fmt.Sprintf("packets of %d bytes do not come back from %s: the MTU may be too large for the way there", mtu, host)
		f.Mend = "a lower MTU in the file, or the key mtu=1280"
		return f
	}
	f.Text = fmt.Sprintf("packets of %d bytes come back", mtu)
	return f
}

// ping sends an echo request in an IP packet of size bytes and waits for the
// reply.
func ping(ctx context.Context, st stacks.Stack, host netip.Addr, size int) error {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	proto, header, typ := unix.IPPROTO_ICMP, 20, byte(8) // RFC 792
	if host.Is6() {
		proto, header, typ = unix.IPPROTO_ICMPV6, 40, 128 // RFC 4443 §4.1
	}
	c, err := stacknet.DialSocket(ctx, st, unix.SOCK_DGRAM, proto, netip.AddrPortFrom(host, 0))
	if err != nil {
		return err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	msg := make([]byte, max(size-header, 8))
	msg[0] = typ // the socket fills in identifier and checksum, icmp(7)
	buf := make([]byte, len(msg))
	for seq := range uint16(3) { // datagrams get lost
		binary.BigEndian.PutUint16(msg[6:], seq)
		if _, err := c.Write(msg); err != nil {
			return err
		}
		c.SetReadDeadline(time.Now().Add(checkTime / 3))
		if n, err := c.Read(buf); err == nil && n == len(msg) {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return unix.ETIMEDOUT
}

// millis writes a duration as people read it.
func millis(d time.Duration) string { return fmt.Sprintf("%d ms", max(d.Milliseconds(), 1)) }
