// SPDX-License-Identifier: Apache-2.0

// What the tests share: proxies that say what they are told to, on loopback.

package proxy

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"umrun/stacks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve runs handle for every connection to a port of loopback.
func serve(t testing.TB, handle func(*net.TCPConn)) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(20 * time.Second))
				handle(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

// open makes an upstream of the proxy at a port.
func open(t testing.TB, at netip.AddrPort, c Config) *Upstream {
	t.Helper()
	c.Host, c.Port = at.Addr().String(), at.Port()
	u, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := u.Close(); err != nil {
			t.Error(err)
		}
	})
	return u
}

// deadline is for tests that wait for nothing else.
func deadline(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// read reads n bytes.
func read(c io.Reader, n int) string {
	b := make([]byte, n)
	n, _ = io.ReadFull(c, b)
	return string(b[:n])
}

// talk ends a connection on which the other end says "first words" and then echoes.
func talk(t *testing.T, c stacks.UpstreamConn) {
	t.Helper()
	defer c.Close()
	io.WriteString(c, "!")
	c.CloseWrite()
	if b, err := io.ReadAll(c); string(b) != "first words!" || err != nil {
		t.Errorf("read %q, %v", b, err)
	}
}

var literal = netip.MustParseAddrPort("192.0.2.7:443")
