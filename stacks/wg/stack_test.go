// SPDX-License-Identifier: Apache-2.0

// The whole path: gVisor's TCP over a link against the kernel's TCP behind
// wireguard-go, in the namespace of kernel_test.go.

package wg_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"umrun/stacks"
	"umrun/stacks/netstack"
	"umrun/stacks/wg/wgtest"
)

// TestIntegrationStack sends bulk data both ways, and says how fast it went.
func TestIntegrationStack(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	ca, cb := wgtest.Pair()
	cb.ListenPort = 51820 // nobody else is in this namespace
	startWireGuardGo(t, cb)
	ca.Peers[0].Endpoint = wgtest.Endpoint(cb.ListenPort)
	l := open(t, ca)
	waitUp(t, l)
	lc := stacks.LinkConfig{Name: "wg0", Link: l, Addrs: ca.Addresses}
	for _, r := range ca.Routes(2) {
		lc.Routes = append(lc.Routes, stacks.Route{Dst: r.Dst})
	}
	s, err := netstack.New(netstack.Config{Links: []stacks.LinkConfig{lc}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ln, err := net.Listen("tcp4", addrB.String()+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	const size = 16 << 20
	data := bytes.Repeat([]byte("what goes up must come down, all of it and in order"), size/51+1)[:size]
	type result struct {
		err error
		d   time.Duration
	}
	done := make(chan result, 1)
	go func() { // ends with the connection, which has a deadline
		began := time.Now()
		err := func() error {
			conn, err := ln.Accept()
			if err != nil {
				return err
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(deadline))
			began = time.Now()
			got := make([]byte, size)
			if _, err := io.ReadFull(conn, got); err != nil {
				return err
			}
			if !bytes.Equal(got, data) {
				return errors.New("the kernel got something else")
			}
			if _, err := conn.Write([]byte{1}); err != nil {
				return err
			}
			_, err = conn.Write(data)
			return err
		}()
		done <- result{err, time.Since(began)}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	conn, err := s.DialContext(ctx, "tcp", ln.Addr().(*net.TCPAddr).AddrPort())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(deadline))
	began := time.Now()
	if _, err := conn.Write(data); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	up := time.Since(began)
	began = time.Now()
	got := make([]byte, size)
	if _, err := io.ReadFull(conn, got); err != nil {
		t.Fatal(err)
	}
	down := time.Since(began)
	if !bytes.Equal(got, data) {
		t.Error("we got something else")
	}
	if r := <-done; r.err != nil {
		t.Error(r.err)
	}
	if st := l.Stats(); st.BadIn+st.BadOut != 0 {
		t.Errorf("bad packets: %+v", st)
	}
	rate := func(d time.Duration) int { return int(size * 8 / d.Seconds() / 1e6) }
	t.Logf("up %d Mb/s, down %d Mb/s", rate(up), rate(down))
}
