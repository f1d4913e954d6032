// SPDX-License-Identifier: Apache-2.0

// SOCKS5: the dialogue that opens a connection, RFC 1928 and RFC 1929.

package proxy

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

const (
	socksVersion = 5
	authVersion  = 1 // RFC 1929

	methodNone     = 0
	methodPassword = 2
	methodRefused  = 0xff

	cmdConnect   = 1
	cmdAssociate = 3

	atypIPv4   = 1
	atypDomain = 3
	atypIPv6   = 4
)

// socks5 is the carrier. golang.org/x/net/proxy has the dialogue for streams, but
// neither UDP ASSOCIATE nor the reply's code in its errors.
type socks5 struct{ u *Upstream }

func (s *socks5) close() {}

func (s *socks5) probe(ctx context.Context) error {
	c, err := s.open(ctx)
	if err != nil {
		return err
	}
	return c.Close()
}

func (s *socks5) dial(ctx context.Context, to target) (stacks.UpstreamConn, error) {
	c, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := s.request(ctx, c, cmdConnect, to); err != nil {
		return nil, err
	}
	return c, nil
}

// open connects to the proxy and makes it take requests: the method is chosen and
// the credentials are given.
func (s *socks5) open(ctx context.Context) (*net.TCPConn, error) {
	c, err := s.u.dialHost(ctx)
	if err != nil {
		return nil, err
	}
	if err := handshake(ctx, c, func() error { return s.greet(c) }); err != nil {
		return nil, err
	}
	return c, nil
}

// greet is RFC 1928 §3, and RFC 1929. A proxy that can choose the method without
// a password gets none.
func (s *socks5) greet(c io.ReadWriter) error {
	conf := &s.u.conf
	methods := []byte{methodNone}
	if conf.User != "" || conf.Password != "" {
		methods = append(methods, methodPassword)
	}
	if _, err := c.Write(append([]byte{socksVersion, byte(len(methods))}, methods...)); err != nil {
		return s.u.cut(err)
	}
	var b [2]byte
	if _, err := io.ReadFull(c, b[:]); err != nil {
		return s.u.cut(err)
	}
	switch {
	case b[0] != socksVersion:
		return s.u.cut(fmt.Errorf("it answers with version %d in place of 5", b[0]))
	case b[1] == methodNone:
		return nil
	case b[1] == methodPassword && len(methods) > 1:
	case b[1] == methodRefused && len(methods) == 1:
		return &UnusableError{Proxy: s.u.String(), Cause: WantsAuth}
	case b[1] == methodRefused:
		return &UnusableError{Proxy: s.u.String(), Cause: BadAuth, Err: errors.New("it takes no passwords at all")}
	default:
		return s.u.cut(fmt.Errorf("it chose the method %d, which was not offered", b[1]))
	}
	msg := append([]byte{authVersion, byte(len(conf.User))}, conf.User...)
	msg = append(append(msg, byte(len(conf.Password))), conf.Password...)
	if _, err := c.Write(msg); err != nil {
		return s.u.cut(err)
	}
	// A proxy that refuses closes the connection, and may not even answer before.
	if _, err := io.ReadFull(c, b[:]); err != nil || b[1] != 0 {
		return &UnusableError{Proxy: s.u.String(), Cause: BadAuth}
	}
	return nil
}

// request sends a command and returns the bound address of the reply. On error c
// is closed.
func (s *socks5) request(ctx context.Context, c *net.TCPConn, cmd byte, to target) (netip.AddrPort, error) {
	var bound netip.AddrPort
	err := handshake(ctx, c, func() error {
		msg, err := appendTarget([]byte{socksVersion, cmd, 0}, to)
		if err != nil {
			return err
		}
		if _, err := c.Write(msg); err != nil {
			return s.u.cut(err)
		}
		var code byte
		code, bound, err = readReply(c)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET):
			// It has spoken the protocol until here: this is about the destination.
			return &refusal{unix.EHOSTUNREACH, "the proxy closed the connection in place of a reply, as ssh -D does when it cannot connect"}
		case err != nil:
			return s.u.cut(err)
		}
		return replyError(code)
	})
	return bound, err
}

// appendTarget appends ATYP, address and port, RFC 1928 §5.
func appendTarget(b []byte, to target) ([]byte, error) {
	switch {
	case len(to.name) > 255:
		return nil, &refusal{unix.EHOSTUNREACH, "the name is too long for SOCKS5"}
	case to.name != "":
		b = append(append(b, atypDomain, byte(len(to.name))), to.name...)
	case to.addr.Is4():
		b = append(append(b, atypIPv4), to.addr.AsSlice()...)
	default:
		b = append(append(b, atypIPv6), to.addr.AsSlice()...)
	}
	return binary.BigEndian.AppendUint16(b, to.port), nil
}

// readReply reads a reply, RFC 1928 §6, to its last byte and not beyond: what
// follows is the other end's.
func readReply(r io.Reader) (code byte, bound netip.AddrPort, err error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, bound, err // io.EOF: there is no reply
	}
	if head[0] != socksVersion {
		return 0, bound, fmt.Errorf("it replies with version %d in place of 5", head[0])
	}
	var size int
	switch head[3] {
	case atypIPv4:
		size = 4
	case atypIPv6:
		size = 16
	case atypDomain:
		var n [1]byte
		if _, err := io.ReadFull(r, n[:]); err != nil {
			return 0, bound, io.ErrUnexpectedEOF
		}
		size = int(n[0])
	default:
		// Some proxies leave the address out of a refusal.
		if head[1] != 0 {
			return head[1], bound, nil
		}
		return 0, bound, fmt.Errorf("it replies with an address of the type %d", head[3])
	}
	b := make([]byte, size+2)
	if _, err := io.ReadFull(r, b); err != nil {
		if head[1] != 0 {
			return head[1], bound, nil
		}
		return 0, bound, io.ErrUnexpectedEOF
	}
	port := binary.BigEndian.Uint16(b[size:])
	if head[3] == atypDomain {
		a, err := netip.ParseAddr(string(b[:size]))
		if err != nil {
			return head[1], netip.AddrPortFrom(netip.Addr{}, port), nil // of use with UDP only
		}
		return head[1], netip.AddrPortFrom(a.Unmap(), port), nil
	}
	a, _ := netip.AddrFromSlice(b[:size])
	return head[1], netip.AddrPortFrom(a.Unmap(), port), nil
}

// replies are the codes of RFC 1928 §6 and the errno of connect(2) for each: that
// of the same event on the way of a packet.
var replies = [...]refusal{
	1: {unix.EHOSTUNREACH, "general failure"},
	2: {unix.EACCES, "not allowed by the proxy's rules"},
	3: {unix.ENETUNREACH, "network unreachable"},
	4: {unix.EHOSTUNREACH, "host unreachable"},
	5: {unix.ECONNREFUSED, "connection refused"},
	6: {unix.EHOSTUNREACH, "timed out on the way (TTL expired)"},
	7: {unix.ENETUNREACH, "the proxy does not know the command"},
	8: {unix.ENETUNREACH, "the proxy does not know the type of address"},
}

// replyError is the error for a reply's code, nil for success.
func replyError(code byte) error {
	switch {
	case code == 0:
		return nil
	case int(code) < len(replies):
		return &replies[code]
	}
	return &refusal{unix.EHOSTUNREACH, fmt.Sprintf("the proxy replies with the code %d", code)}
}
