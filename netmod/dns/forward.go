// SPDX-License-Identifier: Apache-2.0

// Asking the servers.

package dns

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// minTries is how often a query is sent at least if nobody answers: over UDP a
// lost packet is nothing special.
const minTries = 4

// An outcome is what one attempt at one server came to.
type outcome struct {
	server int // index in servers
	reply  []byte
	err    error
}

// forward asks servers and returns the first good reply; else the first
// refusal (SERVFAIL, NOTIMP, REFUSED), else the last error.
//
// Attempts overlap: that a server is slow starts an attempt at the next one but
// does not end its own.
func (s *Stub) forward(ctx context.Context, servers []netip.AddrPort, q query, tcp bool) ([]byte, error) {
	var (
		n       = len(servers)
		tries   = max(n, minTries)
		results = make(chan outcome, tries) // room for all: no attempt blocks on us
		settled = make([]bool, n)           // has refused or failed; not asked again
		open    = n                         // servers that are not settled
		next    = 0                         // attempts begun
		refusal []byte
		lastErr = context.DeadlineExceeded
		wg      sync.WaitGroup
	)
	ctx, cancel := context.WithCancel(ctx)
	defer wg.Wait()
	defer cancel()

	attempt := func() {
		for ; next < tries; next++ {
			i := next % n
			if settled[i] {
				continue
			}
			next++
			wg.Go(func() {
				reply, err := s.ask(ctx, servers[i], q, tcp)
				results <- outcome{i, reply, err}
			})
			return
		}
	}
	tick := time.NewTicker(s.conf.Timeout / time.Duration(tries))
	defer tick.Stop()
	attempt()
	for {
		select {
		case o := <-results:
			if o.err == nil && !refuses(o.reply) {
				return o.reply, nil
			}
			if o.err != nil {
				lastErr = o.err
			} else if refusal == nil {
				refusal = o.reply
			}
			if !settled[o.server] {
				settled[o.server] = true
				open--
			}
			if open > 0 && next < n {
				attempt()
				continue
			}
			if open > 0 {
				continue
			}
		case <-tick.C:
			attempt()
			continue
		case <-ctx.Done():
		}
		if refusal != nil {
			return refusal, nil
		}
		return nil, lastErr
	}
}

// refuses reports whether a reply says more about the server than about the
// name, so that another one is worth asking.
func refuses(reply []byte) bool {
	switch reply[3] & maskRcode {
	case rcodeServerFailure, rcodeNotImpl, rcodeRefused:
		return true
	}
	return false
}

// ask sends q to one server and waits for the reply until ctx is done.
func (s *Stub) ask(ctx context.Context, server netip.AddrPort, q query, tcp bool) ([]byte, error) {
	if tcp || s.conf.Stream {
		conn, err := s.conf.Dial(ctx, "tcp", server)
		if err == nil {
			return exchange(ctx, conn, q, true)
		}
		if s.conf.Stream {
			return nil, fmt.Errorf("dial %s: %w", server, err)
		}
		// A server that does not speak TCP (small home routers) still deserves
		// to be asked.
	}
	conn, err := s.conf.Dial(ctx, "udp", server)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", server, err)
	}
	return exchange(ctx, conn, q, false)
}

// exchange sends q over conn, reads messages until one is the reply, and closes
// conn.
func exchange(ctx context.Context, conn net.Conn, q query, stream bool) ([]byte, error) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	msg := make([]byte, 2+len(q.msg)) // the length goes before it on a stream, RFC 1035 §4.2.2
	binary.BigEndian.PutUint16(msg, uint16(len(q.msg)))
	copy(msg[2:], q.msg)
	id := msg[2:4]
	if _, err := rand.Read(id); err != nil {
		return nil, fmt.Errorf("make an id: %w", err)
	}
	out := msg
	if !stream {
		out = msg[2:]
	}
	if _, err := conn.Write(out); err != nil {
		return nil, fmt.Errorf("ask %s: %w", conn.RemoteAddr(), err)
	}
	buf := make([]byte, 65535)
	for {
		n, err := readMessage(conn, buf, stream)
		if err != nil {
			return nil, fmt.Errorf("hear from %s: %w", conn.RemoteAddr(), err)
		}
		if reply := buf[:n]; q.answeredBy(reply, id) {
			return q.restore(reply), nil
		}
		// Anything else is stray or forged; the true reply may follow.
	}
}

// readMessage reads one message into buf, which holds the largest there is.
func readMessage(r io.Reader, buf []byte, stream bool) (int, error) {
	if !stream {
		return r.Read(buf)
	}
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return 0, err
	}
	n := int(binary.BigEndian.Uint16(size[:]))
	_, err := io.ReadFull(r, buf[:n])
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// answeredBy reports whether m is a reply to q as it was sent with id
// (RFC 5452 §9.1: id, question, and, by the connected socket, the addresses).
func (q *query) answeredBy(m, id []byte) bool {
	if len(m) < headerLen || !bytes.Equal(m[:2], id) {
		return false
	}
	flags := binary.BigEndian.Uint16(m[2:])
	if flags&flagQR == 0 || flags&maskOpcode != 0 {
		return false
	}
	switch binary.BigEndian.Uint16(m[4:]) {
	case 0:
		// Servers that could not even read the question leave it out.
		return flags&maskRcode != rcodeSuccess && flags&maskRcode != rcodeNameError
	case 1:
		nameEnd := q.end - 4
		return len(m) >= q.end &&
			bytes.Equal(lower(m[headerLen:nameEnd]), lower(q.name)) &&
			bytes.Equal(m[nameEnd:q.end], q.msg[nameEnd:q.end])
	}
	return false
}

// restore gives a reply the client's own id and spelling of the name: a client
// that mixes case to be harder to deceive finds it as it was, also behind a
// server that folds it.
func (q *query) restore(m []byte) []byte {
	copy(m, q.msg[:2])
	if m[4] == 0 && m[5] == 1 {
		copy(m[headerLen:q.end], q.msg[headerLen:q.end])
	}
	return bytes.Clone(m)
}
