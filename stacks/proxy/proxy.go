// SPDX-License-Identifier: Apache-2.0

// Config, Open and Close: the life of an upstream proxy.

package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

// A Kind is a protocol that proxies speak.
type Kind int

// The kinds.
const (
	SOCKS5 Kind = iota // RFC 1928, with the user names and passwords of RFC 1929
	HTTP               // the method CONNECT, RFC 9110 §9.3.6
	SSH                // channels of the type direct-tcpip, RFC 4254 §7.2
)

func (k Kind) String() string {
	return [...]string{"SOCKS5", "HTTP", "SSH"}[k]
}

// A Secret is a password. It shows itself to nobody who prints or logs it.
type Secret string

// String returns stars.
func (Secret) String() string { return "***" }

// GoString returns stars.
func (Secret) GoString() string { return "***" }

// LogValue returns stars.
func (Secret) LogValue() slog.Value { return slog.StringValue("***") }

// dialTime bounds the opening of one connection: for as long Linux repeats a SYN
// (tcp(7), tcp_syn_retries), and so does the program's stack.
const dialTime = 130 * time.Second

// Config says which proxy, and who asks it. Kind, Host and Port are needed.
type Config struct {
	Kind     Kind
	Host     string // a name, which this machine resolves, or an address
	Port     uint16
	User     string
	Password Secret
	SSH      SSHConfig // of the kind SSH

	// Names are those whose stand-ins lead to the proxy by name. Nil: there are none.
	Names *Names

	// Log takes a warning when the proxy cannot be used any more. Nil: silence.
	Log *slog.Logger
}

// A carrier speaks one of the protocols.
type carrier interface {
	// dial opens a stream. Errors are an [UnusableError], an errno in a refusal, or
	// the context's.
	dial(ctx context.Context, to target) (stacks.UpstreamConn, error)
	// probe does all of dial that does not concern a target.
	probe(ctx context.Context) error
	close()
}

// An Upstream is a proxy that is in use; it implements [stacks.Upstream].
type Upstream struct {
	conf Config
	log  *slog.Logger
	host host
	carrier

	ctx    context.Context // alive until Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // the goroutines that start started

	mu     sync.Mutex // a leaf
	closed bool       // +checklocks:mu

	down atomic.Bool // the last attempt found the proxy unusable
}

// Open makes an upstream of c. It sends nothing; see [Upstream.Probe]. Errors are
// those of the files that SSH needs.
func Open(c Config) (*Upstream, error) {
	u := &Upstream{conf: c, log: c.Log, host: host{name: c.Host, port: c.Port}}
	if u.log == nil {
		u.log = slog.New(slog.DiscardHandler)
	}
	u.ctx, u.cancel = context.WithCancel(context.Background())
	switch c.Kind {
	case SOCKS5:
		if len(c.User) > 255 || len(c.Password) > 255 {
			return nil, errors.New("user names and passwords of SOCKS5 have 255 bytes at most (RFC 1929)")
		}
		u.carrier = &socks5{u}
	case HTTP:
		u.carrier = &httpConnect{u}
	case SSH:
		s, err := newSSH(u)
		if err != nil {
			return nil, err
		}
		u.carrier = s
	default:
		return nil, fmt.Errorf("proxy: there is no kind %d", int(c.Kind))
	}
	return u, nil
}

// Close ends what is being opened and, with SSH, every connection, and waits for
// the goroutines. Other connections, and UDP ports, belong to who opened them.
// Twice is fine.
func (u *Upstream) Close() error {
	u.mu.Lock()
	u.closed = true
	u.mu.Unlock()
	u.cancel()
	u.carrier.close()
	u.wg.Wait()
	return nil
}

// start runs f on a goroutine that Close waits for; false: there is no more Close
// to do so.
func (u *Upstream) start(f func()) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return false
	}
	u.wg.Go(f)
	return true
}

// Probe finds out whether the proxy can be used, as far as that can be known
// without a destination: it is there, speaks the protocol, and takes the
// credentials. Errors are an [UnusableError] or the context's.
func (u *Upstream) Probe(ctx context.Context) error {
	ctx, cancel := u.bound(ctx)
	defer cancel()
	return u.probe(ctx)
}

// WaitUp probes until the proxy can be used, or is found to be one that never will
// be, or ctx is done. The error is the last [UnusableError].
func (u *Upstream) WaitUp(ctx context.Context) error {
	const pause = 250 * time.Millisecond
	for {
		err := u.Probe(ctx)
		var un *UnusableError
		switch {
		case err == nil:
			return nil
		case errors.As(err, &un) && un.Cause.lasting():
			return err
		}
		select {
		case <-ctx.Done():
			if un == nil {
				return &UnusableError{Proxy: u.String(), Cause: Silent}
			}
			return err
		case <-time.After(pause):
		}
	}
}

// String returns the kind and where the proxy is, without credentials.
func (u *Upstream) String() string { return u.conf.Kind.String() + " proxy " + u.host.String() }

// bound bounds ctx by the upstream's life and by dialTime.
func (u *Upstream) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	stop := context.AfterFunc(u.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

// DialStream connects to dst through the proxy, see [stacks.Upstream].
func (u *Upstream) DialStream(ctx context.Context, dst netip.AddrPort) (stacks.UpstreamConn, error) {
	to, err := u.target(dst)
	if err != nil {
		return nil, err
	}
	ctx, cancel := u.bound(ctx)
	defer cancel()
	c, err := u.dial(ctx, to)
	u.tell(to, err)
	if errors.Is(err, context.DeadlineExceeded) {
		err = &refusal{unix.ETIMEDOUT, "no answer from the proxy"}
	}
	return c, err
}

// tell logs how an attempt ended: what concerns the proxy once until that changes,
// what concerns a destination in detail only.
func (u *Upstream) tell(to target, err error) {
	var un *UnusableError
	switch {
	case u.ctx.Err() != nil:
	case errors.As(err, &un):
		if !u.down.Swap(true) {
			u.log.Warn("the proxy cannot be used: what the program connects to is unreachable", "err", err)
		}
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
	default:
		if u.down.Swap(false) {
			u.log.Warn("the proxy can be used again")
		}
		if err != nil {
			u.log.Debug("connect", "addr", to.String(), "err", err)
		}
	}
}

// A target is what the proxy is asked to connect to: a name or an address.
type target struct {
	name string // without a trailing dot; empty: addr
	addr netip.Addr
	port uint16
}

// target says what dst, an address in the view, stands for.
func (u *Upstream) target(dst netip.AddrPort) (target, error) {
	a := dst.Addr().Unmap().WithZone("")
	if u.conf.Names != nil {
		if name, ok := u.conf.Names.Name(a); ok {
			if name == "" {
				return target{}, &refusal{unix.EHOSTUNREACH, a.String() + " stands for no name"}
			}
			return target{name: name, port: dst.Port()}, nil
		}
	}
	if !a.IsGlobalUnicast() {
		// The proxy's own loopback and links are not the network behind it.
		return target{}, &refusal{unix.EHOSTUNREACH, a.String() + " has no meaning behind a proxy"}
	}
	return target{addr: a, port: dst.Port()}, nil
}

func (t target) host() string {
	if t.name != "" {
		return t.name
	}
	return t.addr.String()
}

// String returns host:port, an IPv6 address in brackets.
func (t target) String() string { return net.JoinHostPort(t.host(), strconv.Itoa(int(t.port))) }

// handshake runs f on c, which is closed if that fails or when ctx is done before.
func handshake(ctx context.Context, c net.Conn, f func() error) error {
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	err := f()
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err == nil {
		return nil
	}
	_ = c.Close()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// cut says that an answer of the proxy ended early, or is not what was expected.
func (u *Upstream) cut(err error) error {
	var un *UnusableError
	if errors.As(err, &un) {
		return err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("it closed the connection without an answer")
	}
	return &UnusableError{Proxy: u.String(), Cause: Broken, Err: err}
}

var _ stacks.Upstream = (*Upstream)(nil)
