// SPDX-License-Identifier: Apache-2.0

// Benchmarks: bulk between two stacks on one switch, somebody else's and our own.

package vde_test

import (
	"context"
	"io"
	"net/netip"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"umrun/stacks"
	"umrun/stacks/netstack"
	"umrun/stacks/stacknet"
	"umrun/stacks/vde"
)

// host makes a stack on a plug.
func host(b *testing.B, url, addr string) stacks.Stack {
	l, err := vde.Open(context.Background(), parse(b, url), vde.Options{})
	if err != nil {
		b.Fatal(err)
	}
	s, err := netstack.New(netstack.Config{Links: []stacks.LinkConfig{{Name: "vde0", Link: l, Addrs: []netip.Prefix{netip.MustParsePrefix(addr)}}}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	return s
}

func bulk(b *testing.B, one, other string) {
	const chunk = 64 << 10
	server, client := host(b, one, "10.0.0.1/24"), host(b, other, "10.0.0.2/24")
	s, err := server.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		b.Fatal(err)
	}
	at := netip.MustParseAddrPort("10.0.0.1:80")
	ls := s.(stacks.StreamSocket)
	if err := ls.Bind(at); err != nil {
		b.Fatal(err)
	}
	if err := ls.Listen(1); err != nil {
		b.Fatal(err)
	}
	ready := make(chan struct{}, 1)
	defer ls.Watch(unix.POLLIN, func(stacks.Events) {
		select {
		case ready <- struct{}{}:
		default:
		}
	})()
	c, err := stacknet.Dial(context.Background(), client, "tcp", at)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	<-ready
	as, err := ls.Accept()
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(chunk)
	b.ResetTimer()
	go func() {
		p := make([]byte, chunk)
		for range b.N {
			if _, err := c.Write(p); err != nil {
				b.Error(err)
				return
			}
		}
	}()
	wake := make(chan struct{}, 1)
	defer as.Watch(unix.POLLIN|unix.POLLRDHUP, func(stacks.Events) {
		select {
		case wake <- struct{}{}:
		default:
		}
	})()
	for left := b.N * chunk; left > 0; {
		n, err := as.Recv(io.Discard, left)
		if err == unix.EAGAIN {
			<-wake
		} else if err != nil {
			b.Fatal(err)
		}
		left -= n
	}
	b.StopTimer()
	as.Close()
	ls.Close()
}

func BenchmarkVdeSwitch(b *testing.B) {
	dir, _ := startSwitch(b)
	bulk(b, dir, dir)
}

func BenchmarkOwnSwitch(b *testing.B) {
	dir := filepath.Join(b.TempDir(), "sw")
	bulk(b, "switch://"+dir, dir)
}
