// SPDX-License-Identifier: Apache-2.0

// What a link knows of its peers, and why it is not up.

package wg

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Stats is a snapshot of a link's state and counters since Open.
type Stats struct {
	ListenPort uint16 // of the outer UDP sockets
	Peers      []PeerStats
	BadIn      uint64 // packets from peers with a wrong length or checksum, dropped
	BadOut     uint64 // packets from the stack that could not be cut, dropped
}

// PeerStats is the state of one peer.
type PeerStats struct {
	PublicKey     PublicKey
	Endpoint      Endpoint       // as the file has it; zero if it has none
	Addr          netip.AddrPort // where the peer is now; zero if it has not shown up
	LastHandshake time.Time      // zero: never
	RxBytes       uint64         // outer UDP payload, with handshakes
	TxBytes       uint64

	// What happened with Addr, as long as it was the peer's: handshake
	// initiations sent, responses received whether they fitted the keys or not,
	// and the error of the last initiation (the host has no route, a firewall).
	Sent, Replies int
	SendErr       error
}

// addr returns where a peer is now.
func (s *Stats) addr(k PublicKey) netip.AddrPort {
	for _, p := range s.Peers {
		if p.PublicKey == k {
			return p.Addr
		}
	}
	return netip.AddrPort{}
}

// Stats returns a snapshot, with the peers in the order of the file. After Close
// it has counters only.
func (l *Link) Stats() Stats {
	s := Stats{BadIn: l.tun.in.bad.Load(), BadOut: l.tun.out.bad.Load()}
	for _, p := range l.cfg.Peers {
		s.Peers = append(s.Peers, PeerStats{PublicKey: p.PublicKey, Endpoint: p.Endpoint})
	}
	text, err := l.dev.IpcGet()
	if err != nil {
		return s // cannot fail without a writer that fails
	}
	s.parse(text)
	for i := range s.Peers {
		p := &s.Peers[i]
		c := l.bind.count(p.Addr)
		p.Sent, p.Replies, p.SendErr = c.sent, c.replies, c.err
	}
	return s
}

// parse takes the answer to "get" of https://www.wireguard.com/xplatform/.
func (s *Stats) parse(text string) {
	p := new(PeerStats)
	var sec, nsec int64
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		n, _ := strconv.ParseUint(value, 10, 64)
		switch key {
		case "listen_port":
			s.ListenPort = uint16(n)
		case "public_key":
			p = new(PeerStats) // of nobody we know
			for i := range s.Peers {
				if hex.EncodeToString(s.Peers[i].PublicKey[:]) == value {
					p = &s.Peers[i]
				}
			}
		case "endpoint":
			at, _ := netip.ParseAddrPort(value)
			p.Addr = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
		case "last_handshake_time_sec":
			sec = int64(n)
		case "last_handshake_time_nsec":
			if nsec = int64(n); sec != 0 || nsec != 0 {
				p.LastHandshake = time.Unix(sec, nsec)
			}
		case "tx_bytes":
			p.TxBytes = n
		case "rx_bytes":
			p.RxBytes = n
		}
	}
}

// A NoAnswerError says that no handshake succeeded, and what was tried with the
// first peer that has an endpoint.
type NoAnswerError struct {
	Addr    netip.AddrPort
	Waited  time.Duration
	Sent    int   // handshakes sent to Addr
	Replies int   // responses from it; more than none means that the keys differ
	SendErr error // of the last handshake sent, if the host refused to send it
}

// Error returns what the command line shows.
func (e *NoAnswerError) Error() string {
	s := fmt.Sprintf("no answer from %s in %s (%s sent, %s)", e.Addr, seconds(e.Waited),
		plural(e.Sent, "handshake", "handshakes"), plural(e.Replies, "reply", "replies"))
	if e.SendErr != nil {
		s += ": " + e.SendErr.Error()
	}
	return s
}

// Unwrap returns why the host did not send, or nil.
func (e *NoAnswerError) Unwrap() error { return e.SendErr }

// Hint returns what is probably wrong, in a sentence.
func (e *NoAnswerError) Hint() string {
	switch {
	case e.SendErr != nil:
		return "This machine could not send: it has no route there, or a firewall forbids it."
	case e.Replies > 0:
		return "The peer answers, but not with our keys: the PresharedKey differs or is missing on one side."
	}
	return "UDP may be blocked here, or the key revoked."
}

// plural returns n with the word that fits it.
func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}

// seconds writes d as people read it: "10 s", "0.5 s".
func seconds(d time.Duration) string {
	return strconv.FormatFloat(d.Round(100*time.Millisecond).Seconds(), 'f', -1, 64) + " s"
}

// WaitUp waits until the link is up or ctx ends. The error is then a
// [*NoAnswerError], which wraps no error of ctx.
func (l *Link) WaitUp(ctx context.Context) error {
	began := time.Now()
	select {
	case <-l.up:
		return nil
	case <-ctx.Done():
	}
	select {
	case <-l.up: // both at once
		return nil
	default:
	}
	e := &NoAnswerError{Waited: time.Since(began)}
	for _, p := range l.Stats().Peers {
		if p.Addr.IsValid() && !p.Endpoint.IsZero() {
			e.Addr, e.Sent, e.Replies, e.SendErr = p.Addr, p.Sent, p.Replies, p.SendErr
			break
		}
	}
	return e
}
