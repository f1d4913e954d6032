// SPDX-License-Identifier: Apache-2.0

// Tests on the loopback interface of a netstack.

package stacknet_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/nettest"
	"golang.org/x/sys/unix"

	"umrun/stacks"
	"umrun/stacks/netstack"
	"umrun/stacks/stacknet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newStack(t *testing.T) stacks.Stack {
	t.Helper()
	st, err := netstack.New(netstack.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	return st
}

// TestConn holds TCP connections against what the standard library asks of every
// net.Conn: concurrent use, deadlines past, present and moved, closing.
func TestConn(t *testing.T) {
	st := newStack(t)
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		l, err := stacknet.Listen(st, netip.MustParseAddrPort("127.0.0.1:0"))
		if err != nil {
			return nil, nil, nil, err
		}
		defer l.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if c1, err = stacknet.Dial(ctx, st, "tcp", l.Addr().(*net.TCPAddr).AddrPort()); err != nil {
			return nil, nil, nil, err
		}
		if c2, err = l.Accept(); err != nil {
			return nil, nil, nil, err
		}
		return c1, c2, func() { c1.Close(); c2.Close() }, nil
	})
}

func TestPacketConn(t *testing.T) {
	st := newStack(t)
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		srv, err := stacknet.ListenPacket(st, netip.MustParseAddrPort(addr))
		if err != nil {
			t.Fatal(err)
		}
		c, err := stacknet.Dial(t.Context(), st, "udp", srv.LocalAddr().(*net.UDPAddr).AddrPort())
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range []net.Conn{c} {
			if err := d.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := c.Write([]byte("ask")); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 10)
		n, from, err := srv.ReadFrom(buf)
		if err != nil || string(buf[:n]) != "ask" || from.String() != c.LocalAddr().String() {
			t.Fatalf("ReadFrom: %q from %v, %v", buf[:n], from, err)
		}
		if _, err := srv.WriteTo([]byte("answer"), from); err != nil {
			t.Fatal(err)
		}
		if n, err = c.Read(buf); err != nil || string(buf[:n]) != "answer" {
			t.Fatalf("Read: %q, %v", buf[:n], err)
		}
		c.Close()
		srv.Close()
		if _, _, err := srv.ReadFrom(buf); !errors.Is(err, net.ErrClosed) {
			t.Errorf("ReadFrom after Close: %v", err)
		}
	}
}

func TestDialErrors(t *testing.T) {
	st := newStack(t)
	tests := []struct {
		addr string
		want error
	}{
		{"127.0.0.1:9", unix.ECONNREFUSED},
		{"192.0.2.1:9", unix.ENETUNREACH},
	}
	for _, tt := range tests {
		if _, err := stacknet.Dial(t.Context(), st, "tcp", netip.MustParseAddrPort(tt.addr)); !errors.Is(err, tt.want) {
			t.Errorf("Dial %s: %v, want %v", tt.addr, err, tt.want)
		}
	}
	var unknown net.UnknownNetworkError
	if _, err := stacknet.Dial(t.Context(), st, "sctp", netip.MustParseAddrPort("127.0.0.1:9")); !errors.As(err, &unknown) {
		t.Errorf("Dial sctp: %v", err)
	}
}
