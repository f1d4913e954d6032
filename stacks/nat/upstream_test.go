// SPDX-License-Identifier: Apache-2.0

// An upstream in the host's place.

package nat_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"

	"umrun/stacks"
	"umrun/stacks/nat"
)

// A wire is an upstream that leads each address to a server of this host.
type wire struct {
	streams map[netip.AddrPort]string
	packets string // where every datagram goes; empty: none
	fail    error  // what everything else fails with

	aborted atomic.Bool
	closed  atomic.Bool
	opened  atomic.Int32 // UDP ports
}

type wireConn struct {
	*net.TCPConn
	w *wire
}

func (c wireConn) Aborted() bool { return c.w.aborted.Load() }

func (w *wire) DialStream(ctx context.Context, dst netip.AddrPort) (stacks.UpstreamConn, error) {
	to, ok := w.streams[dst]
	if !ok {
		return nil, w.fail
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", to)
	if err != nil {
		return nil, err
	}
	return wireConn{c.(*net.TCPConn), w}, nil
}

// A wirePort remembers to whom its socket last wrote, as the one who answers.
type wirePort struct {
	*net.UDPConn
	mu  sync.Mutex
	dst netip.AddrPort
}

func (p *wirePort) WriteTo(b []byte, dst netip.AddrPort) error {
	p.mu.Lock()
	p.dst = dst
	p.mu.Unlock()
	_, err := p.Write(b)
	return err
}

func (p *wirePort) ReadFrom(b []byte) (int, netip.AddrPort, error) {
	n, err := p.Read(b)
	p.mu.Lock()
	defer p.mu.Unlock()
	return n, p.dst, err
}

func (w *wire) Apart(dst netip.AddrPort) bool { return dst == apart }

func (w *wire) ListenPacket(ctx context.Context, dst netip.AddrPort) (stacks.UpstreamPackets, error) {
	w.opened.Add(1)
	if w.packets == "" {
		return nil, w.fail
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "udp", w.packets)
	if err != nil {
		return nil, err
	}
	return &wirePort{UDPConn: c.(*net.UDPConn)}, nil
}

func (w *wire) Close() error {
	w.closed.Store(true)
	return nil
}

var (
	far   = netip.MustParseAddrPort("192.0.2.77:7")
	apart = netip.MustParseAddrPort("192.0.2.78:7") // wants a port of its own
)

// TestUpstreamStream: bytes and the ends of both directions pass an upstream, whose
// errors are those of connect, and nothing is asked of the host.
func TestUpstreamStream(t *testing.T) {
	w := &wire{streams: map[netip.AddrPort]string{far: serve(t, "127.0.0.1:0", echo)}}
	v := open(t, nat.Options{Upstream: w})
	c := v.mustDial(far.String())
	msg := bytes.Repeat([]byte("umrun"), 100_000)
	go func() {
		c.Write(msg)
		c.CloseWrite()
	}()
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, msg) {
		t.Errorf("%d bytes of %d came back, %v", len(got), len(msg), err)
	}
	for fail, want := range map[unix.Errno]string{unix.ECONNREFUSED: "refused", unix.ENETUNREACH: "network is unreachable", unix.EHOSTUNREACH: "no route to host"} {
		w.fail = fail
		if _, err := v.dial("192.0.2.78:7"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("connect gives %v, the upstream said %v", err, fail)
		}
	}
	if err := v.link.Close(); err != nil || !w.closed.Load() {
		t.Errorf("Close: %v, the upstream was closed: %v", err, w.closed.Load())
	}
}

// TestUpstreamAbort: an end that the descriptor shows as an orderly one is a reset
// if the connection says so.
func TestUpstreamAbort(t *testing.T) {
	w := &wire{streams: map[netip.AddrPort]string{far: serve(t, "127.0.0.1:0", func(c *net.TCPConn) {
		io.ReadFull(c, make([]byte, 1))
	})}}
	w.aborted.Store(true)
	v := open(t, nat.Options{Upstream: w})
	c := v.mustDial(far.String())
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("read gives %d bytes, %v: want a reset", n, err)
	}
}

// TestUpstreamPackets: datagrams pass, those that are sent before the port is open
// too; where there are none, ICMP says so each time.
func TestUpstreamPackets(t *testing.T) {
	w := &wire{packets: serveUDP(t, "127.0.0.1:0", same)}
	v := open(t, nat.Options{Upstream: w})
	for _, size := range []int{0, 1, 1400, 65000} {
		c := v.dialUDP(far.String(), 0)
		msg := bytes.Repeat([]byte{byte(size)}, size)
		if _, err := c.Write(msg); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 65536)
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if n, err := c.Read(buf); err != nil || !bytes.Equal(buf[:n], msg) {
			t.Errorf("%d bytes: got %d, %v", size, n, err)
		}
	}
	p := v.dialUDP("", ipv4.ProtocolNumber)
	before := w.opened.Load()
	for _, to := range []netip.AddrPort{far, apart, apart, netip.MustParseAddrPort("192.0.2.79:7")} {
		if _, err := p.WriteTo([]byte("x"), net.UDPAddrFromAddrPort(to)); err != nil {
			t.Fatal(err)
		}
		if _, from, err := p.ReadFrom(make([]byte, 9)); err != nil || from.String() != to.String() {
			t.Errorf("sent to %v, heard from %v, %v", to, from, err)
		}
	}
	if n := w.opened.Load() - before; n != 2 {
		t.Errorf("%d ports were opened, want one for %v and one for the others", n, apart)
	}
	none := open(t, nat.Options{Upstream: &wire{fail: unix.ENETUNREACH}})
	c := none.dialUDP(far.String(), 0)
	for sent := uint64(1); sent <= 3; sent++ {
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		eventually(t, "an ICMP error for each datagram", func() bool { return none.link.Stats().ICMPErrors >= sent })
	}
}
