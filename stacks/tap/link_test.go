// SPDX-License-Identifier: Apache-2.0

// A stack on a device against the kernel at its other side.

package tap_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"umrun/stacks"
	"umrun/stacks/netstack"
	"umrun/stacks/offload"
	"umrun/stacks/stacknet"
	"umrun/stacks/stacktest"
	"umrun/stacks/tap"
)

// kinds are what the tests run over.
var kinds = map[string]stacks.LinkType{"tap": stacks.LinkEthernet, "tun": stacks.LinkIP}

var (
	count int
	mu    sync.Mutex
)

// newPair makes a device with a stack on it; the kernel is B.
func newPair(t testing.TB, typ stacks.LinkType, mtu int) stacktest.Pair {
	t.Helper()
	need(t)
	mu.Lock()
	count++
	n := count
	mu.Unlock()
	l, err := tap.Open(tap.Options{Name: fmt.Sprintf("t%d", n), Type: typ, MTU: mtu})
	if err != nil {
		t.Fatal(err)
	}
	ip(t, fmt.Sprintf("addr add 10.7.%d.1/24 dev t%d", n, n), fmt.Sprintf("addr add fd07:%d::1/64 dev t%d nodad", n, n), "link set lo up")
	p := stacktest.Pair{
		B4: netip.AddrFrom4([4]byte{10, 7, byte(n), 1}), A4: netip.AddrFrom4([4]byte{10, 7, byte(n), 2}),
		B6: netip.MustParseAddr(fmt.Sprintf("fd07:%d::1", n)), A6: netip.MustParseAddr(fmt.Sprintf("fd07:%d::2", n)),
		Broadcast: netip.AddrFrom4([4]byte{10, 7, byte(n), 255}), Ping: true, B: stacktest.Kernel{},
	}
	a6 := netip.PrefixFrom(p.A6, 64)
	s, err := netstack.New(netstack.Config{Links: []stacks.LinkConfig{{
		Name: "eth0", Link: l, Addrs: []netip.Prefix{netip.PrefixFrom(p.A4, 24)}, Routes: []stacks.Route{{Dst: netip.MustParsePrefix("198.51.100.0/24"), Gateway: p.B4}},
	}}})
	if err != nil {
		l.Close()
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	st := s.State().Clone()
	st.Interfaces[1].Addrs = append(st.Interfaces[1].Addrs, a6)
	st.Interfaces[1].Info = map[netip.Prefix]stacks.AddrInfo{a6: {Flags: unix.IFA_F_NODAD}}
	st.Routes = append(st.Routes, stacks.Route{Dst: a6.Masked(), IfIndex: 2})
	if err := s.SetState(st); err != nil {
		t.Fatal(err)
	}
	p.A = s
	return p
}

// TestStack: the cases of stacktest, in both directions.
func TestStack(t *testing.T) {
	for kind, typ := range kinds {
		p := newPair(t, typ, 0)
		t.Run(kind+" to kernel", func(t *testing.T) { stacktest.Run(t, p) })
		p.A, p.B, p.A4, p.B4, p.A6, p.B6 = p.B, p.A, p.B4, p.A4, p.B6, p.A6
		t.Run("kernel to "+kind, func(t *testing.T) { stacktest.Run(t, p) })
	}
}

// noise is a stream that both ends can make.
func noise(n int64) io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{7}), n) }

// TestBulk moves a stream each way, over both protocols and an odd MTU, and compares
// what arrives.
func TestBulk(t *testing.T) {
	const size = 64 << 20
	h := sha256.New()
	io.Copy(h, noise(size))
	want := h.Sum(nil)
	for kind, typ := range kinds {
		for _, mtu := range []int{1500, 1281, 9000} {
			p := newPair(t, typ, mtu)
			for _, to := range []netip.Addr{p.B4, p.B6} {
				t.Run(fmt.Sprint(kind, mtu, to.Is6()), func(t *testing.T) { bulk(t, p, to, size, want) })
			}
		}
	}
}

func bulk(t *testing.T, p stacktest.Pair, to netip.Addr, size int64, want []byte) {
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(to, 0)))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	c, err := stacknet.Dial(ctx, p.A, "tcp", l.Addr().(*net.TCPAddr).AddrPort())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	k, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	var wg sync.WaitGroup
	for name, way := range map[string][2]net.Conn{"up": {c, k}, "down": {k, c}} {
		wg.Go(func() {
			if _, err := io.Copy(way[0], noise(size)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
		wg.Go(func() {
			h := sha256.New()
			if _, err := io.CopyN(h, way[1], size); err != nil || !bytes.Equal(h.Sum(nil), want) {
				t.Errorf("%s: what arrived is something else (%v)", name, err)
			}
		})
	}
	wg.Wait()
}

// TestDatagrams: what the kernel hands over as one datagram of many (UDP_SEGMENT, with
// TUN_F_USO) arrives as what it is, in order, more than one Read takes.
func TestDatagrams(t *testing.T) {
	for kind, typ := range kinds {
		t.Run(kind, func(t *testing.T) {
			p := newPair(t, typ, 0)
			s, err := p.A.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if err := s.Bind(netip.AddrPortFrom(p.A4, 7)); err != nil {
				t.Fatal(err)
			}
			c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(p.A4, 7)))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			raw, err := c.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			const segment, segments = 500, 100
			if err := raw.Control(func(fd uintptr) {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT, segment)
			}); err != nil {
				t.Fatal(err)
			}
			if err != nil {
				t.Skip("the kernel does not cut datagrams: " + err.Error())
			}
			all := make([]byte, segment*segments-17)
			io.ReadFull(noise(int64(len(all))), all)
			if _, err := c.Write(all); err != nil {
				t.Fatal(err)
			}
			var got []byte
			buf := make([]byte, 2000)
			for deadline := time.Now().Add(10 * time.Second); len(got) < len(all); {
				n, _, _, err := s.(stacks.PacketSocket).RecvMsg(buf, false)
				if errors.Is(err, unix.EAGAIN) && time.Now().Before(deadline) {
					time.Sleep(time.Millisecond) // poll
					continue
				}
				if err != nil {
					t.Fatalf("%v after %d bytes of %d", err, len(got), len(all))
				}
				if n != segment && len(got)+n != len(all) {
					t.Fatalf("a datagram of %d bytes", n)
				}
				got = append(got, buf[:n]...)
			}
			if !bytes.Equal(got, all) {
				t.Error("what arrived is something else")
			}
		})
	}
}

// TestClose: Read and Write of a closed link say so, also those that wait.
func TestClose(t *testing.T) {
	need(t)
	l, err := tap.Open(tap.Options{Name: "closing", Type: stacks.LinkIP})
	if err != nil {
		t.Fatal(err)
	}
	bufs, sizes := [][]byte{make([]byte, stacks.MaxPacket)}, make([]int, 1)
	done := make(chan error)
	go func() {
		for {
			if _, err := l.Read(bufs, sizes); err != nil {
				done <- err
				return
			}
		}
	}()
	time.AfterFunc(20*time.Millisecond, func() { l.Close() })
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read: %v", err)
	}
	if _, err := l.Write([][]byte{make([]byte, offload.HdrLen+40)}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Errorf("Close again: %v", err)
	}
	if _, err := net.InterfaceByName("closing"); err == nil {
		t.Error("the device is still there")
	}
}
