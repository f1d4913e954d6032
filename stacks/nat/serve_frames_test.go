// SPDX-License-Identifier: Apache-2.0

// A Server over a link that takes plain frames, with a userspace stack as the guest.

package nat_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"umrun/stacks"
	"umrun/stacks/nat"
	"umrun/stacks/netstack"
	"umrun/stacks/pipe"
	"umrun/stacks/stacknet"
)

func TestServeFrames(t *testing.T) {
	for _, offload := range []bool{false, true} {
		t.Run(fmt.Sprint("offload-", offload), func(t *testing.T) {
			near, far := pipe.New(pipe.Config{MTU: 1500, Ethernet: true, Offload: offload})
			s, err := nat.Serve(context.Background(), far, nat.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			st, err := netstack.New(netstack.Config{Links: []stacks.LinkConfig{{
				Name: "eth0", Link: near,
				Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.2.15/24"), netip.MustParsePrefix("fd00:2::15/64")},
				Routes: []stacks.Route{
					{Dst: netip.MustParsePrefix("0.0.0.0/0"), Gateway: nat.Gateway4},
					{Dst: netip.MustParsePrefix("::/0"), Gateway: nat.Gateway6},
				},
			}}})
			if err != nil {
				t.Fatal(err)
			}
			defer st.Close()

			// The first packet of all is the server's: it has to find the guest.
			for _, family := range []struct{ host, guest string }{{"198.51.100.2:0", "10.0.2.15:80"}, {"[2001:db8::2]:0", "[fd00:2::15]:80"}} {
				var ln net.Listener
				eventually(t, "an address that nobody else has", func() bool {
					var err error
					ln, err = stacknet.Listen(st, netip.MustParseAddrPort(family.guest))
					return err == nil
				})
				defer ln.Close()
				p, err := s.Link().Publish("tcp", netip.MustParseAddrPort(family.host), netip.MustParseAddrPort(family.guest))
				if err != nil {
					t.Fatal(err)
				}
				defer p.Close()
				c, err := net.DialTimeout("tcp", p.Addr().String(), 10*time.Second)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				in, err := ln.Accept()
				if err != nil {
					t.Fatal(err)
				}
				defer in.Close()
				if got := in.RemoteAddr().String(); got != c.LocalAddr().String() {
					t.Errorf("the guest sees %s, the client is %s", got, c.LocalAddr())
				}
			}

			data := make([]byte, 3<<20)
			rand.Read(data)
			for _, addr := range []string{"198.51.100.2:0", "[2001:db8::2]:0"} {
				to := netip.MustParseAddrPort(serve(t, addr, echo))
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				defer cancel()
				c, err := stacknet.Dial(ctx, st, "tcp", to)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				c.SetDeadline(time.Now().Add(30 * time.Second))
				sent := make(chan error, 1)
				go func() {
					_, err := c.Write(data)
					sent <- errors.Join(err, c.(interface{ CloseWrite() error }).CloseWrite())
				}()
				got, err := io.ReadAll(c)
				if err := errors.Join(err, <-sent); err != nil || !bytes.Equal(got, data) {
					t.Errorf("%s: of %d bytes %d came back, %v", to, len(data), len(got), err)
				}
			}
			for _, addr := range []string{"198.51.100.2:0", "[2001:db8::2]:0"} {
				to := netip.MustParseAddrPort(serveUDP(t, addr, same))
				c, err := stacknet.Dial(context.Background(), st, "udp", to)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				c.SetDeadline(time.Now().Add(10 * time.Second))
				for _, size := range []int{1, 1400, 4000} { // the last in fragments
					if _, err := c.Write(data[:size]); err != nil {
						t.Fatal(err)
					}
					b := make([]byte, 5000)
					if n, err := c.Read(b); err != nil || !bytes.Equal(b[:n], data[:size]) {
						t.Errorf("%s: a datagram of %d bytes came back with %d, %v", to, size, n, err)
					}
				}
			}
		})
	}
}

// TestServeLinkEnds: the server ends with its link, and with its context.
func TestServeLinkEnds(t *testing.T) {
	_, far := pipe.New(pipe.Config{Ethernet: true})
	s, err := nat.Serve(context.Background(), far, nat.Options{})
	if err != nil {
		t.Fatal(err)
	}
	far.Close()
	select {
	case <-s.Done():
	case <-time.After(10 * time.Second):
		t.Error("the link is closed, and the server goes on")
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Error(err)
	}
	_, far = pipe.New(pipe.Config{Ethernet: true})
	ctx, cancel := context.WithCancel(context.Background())
	if s, err = nat.Serve(ctx, far, nat.Options{}); err != nil {
		t.Fatal(err)
	}
	cancel()
	select {
	case <-s.Done():
	case <-time.After(10 * time.Second):
		t.Error("the context has ended, and the server goes on")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	_, ip := pipe.New(pipe.Config{})
	if _, err := nat.Serve(context.Background(), ip, nat.Options{}); err == nil {
		t.Error("a link without link headers is served")
	}
	if _, err := nat.Serve(context.Background(), far, nat.Options{MTU: 9000}); err == nil {
		t.Error("an MTU above that of the link is taken")
	}
}
