// SPDX-License-Identifier: Apache-2.0

// HTTP: the method CONNECT, RFC 9110 §9.3.6 and RFC 9112 §3.2.3.

package proxy

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

// maxHeader bounds the header of an answer, bytes.
const maxHeader = 64 << 10

// probeTarget is what a probe asks for: a name that is no host's (RFC 6761 §6.4).
// The answer to that is a failure, which shows that the credentials are good.
var probeTarget = target{name: "proxy-check.invalid", port: 443}

// httpConnect is the carrier.
type httpConnect struct{ u *Upstream }

func (h *httpConnect) close() {}

func (h *httpConnect) probe(ctx context.Context) error {
	c, err := h.dial(ctx, probeTarget)
	var no *refusal
	switch {
	case errors.As(err, &no):
		return nil // it is a proxy, and refuses this
	case err != nil:
		return err
	}
	return c.Close()
}

func (h *httpConnect) dial(ctx context.Context, to target) (stacks.UpstreamConn, error) {
	c, err := h.u.dialHost(ctx)
	if err != nil {
		return nil, err
	}
	if err := handshake(ctx, c, func() error { return h.connect(c, to) }); err != nil {
		return nil, err
	}
	return c, nil
}

// connect asks for to and reads the answer to its last byte and not beyond.
func (h *httpConnect) connect(c *net.TCPConn, to target) error {
	conf := &h.u.conf
	msg := fmt.Appendf(nil, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n", to, to)
	if conf.User != "" || conf.Password != "" {
		cred := base64.StdEncoding.EncodeToString([]byte(conf.User + ":" + string(conf.Password)))
		msg = fmt.Appendf(msg, "Proxy-Authorization: Basic %s\r\n", cred)
	}
	if _, err := c.Write(append(msg, "\r\n"...)); err != nil {
		return h.u.cut(err)
	}
	rc, err := c.SyscallConn()
	if err != nil {
		return err
	}
	for {
		head, err := readHeader(rc)
		if err != nil {
			return h.u.cut(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(head)), &http.Request{Method: http.MethodConnect})
		if err != nil {
			return h.u.cut(err)
		}
		switch code := resp.StatusCode; {
		case code/100 == 1: // interim
		case code/100 == 2:
			return nil
		case (code == http.StatusProxyAuthRequired || code == http.StatusUnauthorized) && conf.User == "" && conf.Password == "":
			return &UnusableError{Proxy: h.u.String(), Cause: WantsAuth, Err: errors.New(status(resp))}
		case code == http.StatusProxyAuthRequired, code == http.StatusUnauthorized: // tinyproxy: 401
			return &UnusableError{Proxy: h.u.String(), Cause: BadAuth, Err: errors.New(status(resp))}
		default:
			return &refusal{statusErrno(code), status(resp)}
		}
	}
}

// status is what an answer says, without what a terminal might take amiss.
func status(r *http.Response) string {
	return fmt.Sprintf("%d %s", r.StatusCode, http.StatusText(r.StatusCode))
}

// statusErrno is the errno of connect(2) for a status. Proxies do not tell a
// destination that refuses from one that is not there; one that does not answer
// can be told, and so can the proxy's own rules.
func statusErrno(code int) unix.Errno {
	switch code {
	case http.StatusForbidden, http.StatusMethodNotAllowed, http.StatusUnavailableForLegalReasons:
		return unix.EACCES
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		return unix.ENETUNREACH
	}
	return unix.EHOSTUNREACH
}

// readHeader reads a header with its empty line. What follows stays in the socket:
// the bytes are looked at before they are taken.
func readHeader(rc syscall.RawConn) ([]byte, error) {
	var head []byte
	for len(head) < maxHeader {
		var n, end int
		var errno error
		err := rc.Read(func(fd uintptr) bool {
			var buf [4096]byte
			for n, _, errno = unix.Recvfrom(int(fd), buf[:], unix.MSG_PEEK); errno == unix.EINTR; {
				n, _, errno = unix.Recvfrom(int(fd), buf[:], unix.MSG_PEEK)
			}
			if errno == unix.EAGAIN {
				return false
			}
			if errno != nil || n == 0 {
				return true
			}
			had := len(head)
			head = append(head, buf[:n]...)
			if end = headerEnd(head, had); end > 0 {
				n = end - had
				head = head[:end]
			}
			_, errno = io.ReadFull(fdReader(fd), buf[:n]) // it is there
			return true
		})
		switch {
		case err != nil:
			return nil, err
		case errno != nil:
			return nil, errno
		case n == 0:
			return nil, io.ErrUnexpectedEOF
		case end > 0:
			return head, nil
		}
	}
	return nil, errors.New("the header of its answer has no end")
}

// headerEnd returns where the header ends in b, whose first had bytes do not hold
// the end; 0 if it is not there. Lines may end without CR (RFC 9112 §2.2).
func headerEnd(b []byte, had int) int {
	from := max(had-3, 0)
	at := 0
	for _, end := range []string{"\r\n\r\n", "\n\n", "\n\r\n"} {
		if i := bytes.Index(b[from:], []byte(end)); i >= 0 && (at == 0 || from+i+len(end) < at) {
			at = from + i + len(end)
		}
	}
	return at
}

// fdReader reads what a socket has.
type fdReader int

func (fd fdReader) Read(p []byte) (int, error) {
	for {
		if n, err := unix.Read(int(fd), p); err != unix.EINTR {
			return max(n, 0), err
		}
	}
}
