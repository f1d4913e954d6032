// SPDX-License-Identifier: Apache-2.0

// The way to the proxy itself: the host's resolver and the host's TCP.

package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// hostFresh is for how long the addresses of the proxy's name are not asked for
	// again, even where none of them answers.
	hostFresh = 10 * time.Second

	// hostTime bounds the attempt at one of several addresses.
	hostTime = 15 * time.Second

	// keepIdle and keepCount are those of the kernel's keep-alive on connections to
	// the proxy; the program's own probes do not pass it.
	keepIdle  = 75 * time.Second
	keepCount = 9 // tcp(7) tcp_keepalive_probes
)

// A host is where the proxy listens. A name is resolved by the host's resolver,
// outside of the view: the proxy has to be reached before it can resolve names.
// Its addresses are kept, and asked for again when none of them answers.
type host struct {
	name string
	port uint16

	mu    sync.Mutex
	addrs []netip.Addr // +checklocks:mu
	asked time.Time    // +checklocks:mu
}

func (h *host) String() string { return net.JoinHostPort(h.name, strconv.Itoa(int(h.port))) }

// dialHost connects to the proxy. Errors are an [UnusableError] or the context's.
func (u *Upstream) dialHost(ctx context.Context) (*net.TCPConn, error) {
	addrs, asked, err := u.host.resolve(ctx, time.Time{})
	if err == nil {
		var c *net.TCPConn
		if c, err = u.host.connect(ctx, addrs); err == nil {
			return c, nil
		}
		// It may have moved.
		if addrs, again, rerr := u.host.resolve(ctx, asked); rerr == nil && !again.Equal(asked) {
			if c, err = u.host.connect(ctx, addrs); err == nil {
				return c, nil
			}
		}
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	cause := Silent
	var unresolved *net.DNSError
	var op *net.OpError
	var errno syscall.Errno
	switch {
	case errors.As(err, &unresolved):
		cause = Unresolved
	case errors.As(err, &errno):
		err = errno // the address stands in the error already
	case errors.As(err, &op):
		err = op.Err
	}
	return nil, &UnusableError{Proxy: u.String(), Cause: cause, Err: err}
}

// connect tries addrs in turn.
func (h *host) connect(ctx context.Context, addrs []netip.Addr) (c *net.TCPConn, err error) {
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: keepIdle, Interval: keepIdle, Count: keepCount,
	}, Control: func(_, _ string, c syscall.RawConn) error {
		// A byte that the proxy marks as urgent would not be read otherwise.
		var err error
		e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_OOBINLINE, 1) })
		return errors.Join(e, err)
	}}
	if len(addrs) > 1 {
		d.Timeout = hostTime
	}
	for _, a := range addrs {
		if c, err = d.DialTCP(ctx, "tcp", netip.AddrPort{}, netip.AddrPortFrom(a, h.port)); err == nil {
			return c, nil
		}
	}
	return nil, err
}

// resolve returns the proxy's addresses, of which there is one at least, and when
// they were asked for. Those that were asked for at stale, or never, are asked for
// again, unless that is not long ago.
func (h *host) resolve(ctx context.Context, stale time.Time) ([]netip.Addr, time.Time, error) {
	if a, err := netip.ParseAddr(h.name); err == nil {
		return []netip.Addr{a.Unmap()}, time.Time{}, nil
	}
	h.mu.Lock()
	addrs, asked := h.addrs, h.asked
	h.mu.Unlock()
	if len(addrs) > 0 && (!asked.Equal(stale) || time.Since(asked) < hostFresh) {
		return addrs, asked, nil
	}
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", h.name)
	if err != nil {
		return nil, time.Time{}, err
	}
	for i, a := range found {
		found[i] = a.Unmap()
	}
	if len(found) == 0 {
		return nil, time.Time{}, &net.DNSError{Err: "no addresses", Name: h.name, IsNotFound: true}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.addrs, h.asked = found, time.Now()
	return found, h.asked, nil
}
