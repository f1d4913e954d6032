// SPDX-License-Identifier: Apache-2.0

// DNS over HTTPS, RFC 8484.

package dns

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	dnsMessage = "application/dns-message"
	maxMessage = 65535

	// A connection that has died with the way to the server is given up after both.
	pingAfter = 2 * time.Second
	pingWait  = 2 * time.Second
)

// A web asks a server by HTTPS, over connections through the view's stack.
type web struct {
	s      *Stub
	url    string
	host   netip.Addr // the zero Addr if the URL has a name
	client *http.Client
}

// parseHTTPS checks the URL of a server, and returns it with its host: the zero Addr
// if that is a name.
func parseHTTPS(s string) (u *url.URL, host netip.Addr, err error) {
	s = strings.TrimSuffix(s, "{?dns}") // URI templates of RFC 8484 §3
	u, err = url.Parse(s)
	switch {
	case err != nil:
		return nil, host, errors.New("that is no URL")
	case u.Scheme != "https" || u.Hostname() == "":
		return nil, host, errors.New("write it as https://HOST/PATH")
	case u.User != nil:
		return nil, host, errors.New("names and passwords are not asked for")
	}
	if p := u.Port(); p != "" {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
			return nil, host, fmt.Errorf("%q is no port", p)
		}
	}
	host, _ = netip.ParseAddr(u.Hostname())
	return u, host.Unmap(), nil
}

// newWeb makes the client for [Config.HTTPS].
func newWeb(s *Stub) (*web, error) {
	u, host, err := parseHTTPS(s.conf.HTTPS)
	if err != nil {
		return nil, err
	}
	w := &web{s: s, url: u.String(), host: host}
	w.client = &http.Client{
		Transport: &http.Transport{
			DialContext:         w.dial,
			TLSClientConfig:     &tls.Config{RootCAs: s.conf.Roots, MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2:   true,
			MaxIdleConnsPerHost: 2,
			IdleConnTimeout:     90 * time.Second,
			HTTP2:               &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingWait},
		},
		// The server that was named is asked, and no other.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return w, nil
}

// dial connects to the server: by its address, or by those that the network's own
// servers have for its name.
func (w *web) dial(ctx context.Context, _, to string) (net.Conn, error) {
	_, portText, err := net.SplitHostPort(to)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, err
	}
	addrs := []netip.Addr{w.host}
	if !w.host.IsValid() {
		u, err := url.Parse(w.url)
		if err != nil {
			return nil, err
		}
		if addrs, err = w.s.addressesOf(ctx, u.Hostname()); err != nil {
			return nil, err
		}
	}
	for i, a := range addrs {
		var c net.Conn
		// One that does not answer leaves time for the others.
		each, cancel := ctx, func() {}
		if end, ok := ctx.Deadline(); ok {
			each, cancel = context.WithTimeout(ctx, time.Until(end)/time.Duration(len(addrs)-i))
		}
		c, err = w.s.conf.Dial(each, "tcp", netip.AddrPortFrom(a, uint16(port)))
		cancel()
		if err == nil {
			return c, nil
		}
	}
	return nil, err
}

// addressesOf asks the servers for the addresses of a name.
func (s *Stub) addressesOf(ctx context.Context, name string) ([]netip.Addr, error) {
	if b := s.conf.Bootstrap; b != nil {
		if all := b.Addrs(strings.ToLower(strings.TrimSuffix(name, "."))); len(all) > 0 {
			return all, nil
		}
		return nil, fmt.Errorf("%s cannot be a host's name", name)
	}
	servers := s.up.Load().servers
	if len(servers) == 0 {
		return nil, fmt.Errorf("nobody can be asked for the address of %s", name)
	}
	dnsName, err := dnsmessage.NewName(strings.TrimSuffix(name, ".") + ".")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	var all []netip.Addr
	var last error
	for _, typ := range []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA} {
		m := dnsmessage.Message{
			Header:    dnsmessage.Header{RecursionDesired: true},
			Questions: []dnsmessage.Question{{Name: dnsName, Type: typ, Class: dnsmessage.ClassINET}},
		}
		b, err := m.Pack()
		if err != nil {
			return nil, err
		}
		q, _, _ := parseQuery(b)
		reply, err := s.forward(ctx, servers, q, false)
		if err != nil {
			last = err
			continue
		}
		if err := m.Unpack(reply); err != nil {
			last = err
			continue
		}
		for _, r := range m.Answers {
			switch b := r.Body.(type) {
			case *dnsmessage.AResource:
				all = append(all, netip.AddrFrom4(b.A))
			case *dnsmessage.AAAAResource:
				all = append(all, netip.AddrFrom16(b.AAAA))
			}
		}
	}
	switch {
	case len(all) > 0:
		return all, nil
	case last != nil:
		return nil, fmt.Errorf("address of %s: %w", name, last)
	}
	return nil, fmt.Errorf("%s has no address", name)
}

// ask sends q to the server and returns its reply. A connection that was kept may turn
// out to have ended, so there are two attempts.
func (w *web) ask(ctx context.Context, q query) ([]byte, error) {
	reply, err := w.post(ctx, q)
	var broken *url.Error
	var nobody *tls.CertificateVerificationError
	if errors.As(err, &broken) && !errors.As(err, &nobody) && ctx.Err() == nil {
		return w.post(ctx, q)
	}
	return reply, err
}

func (w *web) post(ctx context.Context, q query) ([]byte, error) {
	msg := bytes.Clone(q.msg)
	id := msg[:2]
	clear(id) // RFC 8484 §4.1
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url, bytes.NewReader(msg))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", dnsMessage)
	r.Header.Set("Accept", dnsMessage)
	r.Header.Set("User-Agent", "") // it is nobody's business
	a, err := w.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer a.Body.Close()
	if a.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s says %s", w.url, a.Status)
	}
	if t := a.Header.Get("Content-Type"); t != dnsMessage {
		return nil, fmt.Errorf("%s answers with %q, which is no DNS message", w.url, t)
	}
	reply, err := io.ReadAll(io.LimitReader(a.Body, maxMessage+1))
	switch {
	case err != nil:
		return nil, err
	case len(reply) > maxMessage || !q.answeredBy(reply, id):
		return nil, fmt.Errorf("%s answers with something else than a reply to the question", w.url)
	}
	return q.restore(reply), nil
}

// Close ends connections that are kept for the next query. Answer is not called any
// more.
func (s *Stub) Close() error {
	if s.web != nil {
		s.web.client.CloseIdleConnections()
	}
	return nil
}
