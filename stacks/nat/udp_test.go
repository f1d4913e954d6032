// SPDX-License-Identifier: Apache-2.0

// Datagrams through the link: UDP, ICMP echo, and the name server.

package nat_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/waiter"

	"umrun/stacks"
	"umrun/stacks/nat"
)

// serveUDP answers datagrams on addr of the host.
func serveUDP(t testing.TB, addr string, answer func(b []byte, from netip.AddrPort) []byte) string {
	t.Helper()
	pc, err := net.ListenPacket("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c := pc.(*net.UDPConn)
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 65536)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if b := answer(buf[:n], from); b != nil {
				c.WriteToUDPAddrPort(b, from)
			}
		}
	}()
	t.Cleanup(func() { c.Close(); <-done })
	return c.LocalAddr().String()
}

func same(b []byte, _ netip.AddrPort) []byte { return b }

func TestUDPEcho(t *testing.T) {
	v := open(t, nat.Options{HostLoopback: true})
	for _, at := range []string{"198.51.100.2:0", "[2001:db8::2]:0", "127.0.0.1:0", "[::1]:0"} {
		for _, size := range []int{0, 1, 1400, 9000, 65000, 65507} {
			if size > 65487 && at[0] == '[' {
				continue // an IPv6 packet of more than 65535 bytes
			}
			t.Run(fmt.Sprintf("%s %d", at, size), func(t *testing.T) {
				c := v.dialUDP(viaGateway(serveUDP(t, at, same)), 0)
				msg := bytes.Repeat([]byte{byte(size), 7}, size/2+1)[:size]
				if _, err := c.Write(msg); err != nil {
					t.Fatal(err)
				}
				buf := make([]byte, 65536)
				n, err := c.Read(buf)
				if err != nil || !bytes.Equal(buf[:n], msg) {
					t.Errorf("got %d bytes, %v", n, err)
				}
			})
		}
	}
}

// TestUDPMapping: one port of the view is one port of the host, whoever is
// spoken to, and whoever answers is heard under its own address.
func TestUDPMapping(t *testing.T) {
	v := open(t, nat.Options{})
	who := func(_ []byte, from netip.AddrPort) []byte { return []byte(from.String()) }
	a, b := serveUDP(t, "198.51.100.2:0", who), serveUDP(t, "198.51.100.2:0", who)
	c := v.dialUDP("", ipv4.ProtocolNumber)
	got := map[string]string{}
	buf := make([]byte, 100)
	for _, to := range []string{a, b} {
		if _, err := c.WriteTo(nil, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to))); err != nil {
			t.Fatal(err)
		}
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		got[from.String()] = string(buf[:n])
	}
	if got[a] == "" || got[a] != got[b] {
		t.Errorf("mapped to %v", got)
	}
	// A third party writes to the mapping.
	third, err := net.Dial("udp", got[a])
	if err != nil {
		t.Fatal(err)
	}
	defer third.Close()
	third.Write([]byte("third"))
	n, from, err := c.ReadFrom(buf)
	if err != nil || string(buf[:n]) != "third" || from.String() != third.LocalAddr().String() {
		t.Errorf("got %q from %v, %v", buf[:n], from, err)
	}
	if n := v.link.Stats().Mappings; n != 1 {
		t.Errorf("%d mappings", n)
	}
}

func TestUDPErrors(t *testing.T) {
	shut := func(at string) string {
		c, err := net.ListenPacket("udp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.LocalAddr().String()
	}
	lo4, lo6 := serveUDP(t, "127.0.0.1:0", same), serveUDP(t, "[::1]:0", same)
	_, port, _ := net.SplitHostPort(lo4)
	for _, tt := range []struct {
		name, addr, want string
		open             bool
	}{
		{name: "refused", addr: shut("198.51.100.2:0"), want: "refused"},
		{name: "refused v6", addr: shut("[2001:db8::2]:0"), want: "refused"},
		{name: "refused by the open gateway", addr: viaGateway(shut("127.0.0.1:0")), want: "refused", open: true},
		{name: "gateway closed", addr: viaGateway(lo4), want: "refused"},
		{name: "gateway closed v6", addr: viaGateway(lo6), want: "refused"},
		// No hard errors: Linux reports them with IP_RECVERR alone.
		{name: "unreachable", addr: "203.0.113.1:80"},
		{name: "no network", addr: "100.64.0.1:80"},
		{name: "0.0.0.1", addr: "0.0.0.1:" + port},
		{name: "address of lo", addr: "10.255.0.1:" + port},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := open(t, nat.Options{HostLoopback: tt.open})
			c := v.dialUDP(tt.addr, 0)
			c.Write([]byte("x"))
			eventually(t, "an ICMP error", func() bool { return v.link.Stats().ICMPErrors == 1 })
			if tt.want == "" {
				return
			}
			err := c.asyncError()
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// asyncError returns the first error that is reported to c. gonet waits for data
// alone, so it has to be asked again and again.
func (c udpConn) asyncError() error {
	for range 500 {
		c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		_, err := c.Read(make([]byte, 10))
		if n, ok := errors.AsType[net.Error](err); !ok || !n.Timeout() {
			return err
		}
	}
	return os.ErrDeadlineExceeded
}

// TestUDPNoGroups: broadcasts and multicasts of the view reach nobody.
func TestUDPNoGroups(t *testing.T) {
	v := open(t, nat.Options{})
	c := v.dialUDP("", ipv4.ProtocolNumber)
	for i, to := range []string{"224.0.0.251:5353", "239.255.255.250:1900"} {
		c.WriteTo([]byte("x"), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to)))
		eventually(t, to+" is ignored", func() bool { return v.link.Stats().Ignored == uint64(i+1) })
	}
	if s := v.link.Stats(); s.Mappings != 0 || s.ICMPErrors != 0 {
		t.Errorf("%+v", s)
	}
}

func TestMappingsAreBounded(t *testing.T) {
	v := open(t, nat.Options{MaxMappings: 4, Idle: 200 * time.Millisecond})
	addr := serveUDP(t, "198.51.100.2:0", same)
	for range 10 {
		c := v.dialUDP(addr, 0)
		c.Write([]byte("x"))
		if _, err := c.Read(make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
	}
	s := v.link.Stats()
	if s.Mappings > 4 || s.Evicted != 6 {
		t.Errorf("%d mappings, %d evicted", s.Mappings, s.Evicted)
	}
	eventually(t, "idle mappings go", func() bool { return v.link.Stats().Mappings == 0 })
}

// ping sends one echo request of the view and returns the reply's payload.
func (v *view) ping(to string, ttl uint8) ([]byte, error) {
	fa, proto := full(netip.AddrPortFrom(netip.MustParseAddr(to), 0).String())
	trans, msg := header.ICMPv4ProtocolNumber, []byte{8, 0, 0, 0, 0, 0, 0, 9}
	if proto != ipv4.ProtocolNumber {
		trans, msg = header.ICMPv6ProtocolNumber, []byte{128, 0, 0, 0, 0, 0, 0, 9}
	}
	msg = append(msg, "payload"...)
	var wq waiter.Queue
	ep, terr := v.s.NewEndpoint(trans, proto, &wq)
	if terr != nil {
		return nil, errors.New(terr.String())
	}
	defer ep.Close()
	if ttl != 0 {
		ep.SetSockOptInt(tcpip.IPv4TTLOption, int(ttl))
	}
	e, ch := waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventErr)
	wq.EventRegister(&e)
	defer wq.EventUnregister(&e)
	if _, terr := ep.Write(bytes.NewReader(msg), tcpip.WriteOptions{To: &fa}); terr != nil {
		return nil, errors.New(terr.String())
	}
	timeout := time.After(5 * time.Second)
	for {
		var b bytes.Buffer
		res, terr := ep.Read(&b, tcpip.ReadOptions{NeedRemoteAddr: true})
		switch terr.(type) {
		case nil:
			if res.RemoteAddr.Addr != fa.Addr {
				return nil, fmt.Errorf("reply from %v", res.RemoteAddr.Addr)
			}
			return b.Bytes(), nil
		case *tcpip.ErrWouldBlock:
		default:
			return nil, errors.New(terr.String())
		}
		select {
		case <-ch:
		case <-timeout:
			return nil, os.ErrDeadlineExceeded
		}
	}
}

func TestPing(t *testing.T) {
	for _, groups := range []string{"0 2147483647", "1 0"} {
		t.Run("ping_group_range "+groups, func(t *testing.T) {
			if err := pingRange(groups); err != nil {
				t.Fatal(err)
			}
			defer pingRange("0 2147483647")
			v := open(t, nat.Options{})
			for _, to := range []string{"198.51.100.2", "2001:db8::2", "10.0.2.2", "fd00:2::2", "10.0.2.3"} {
				b, err := v.ping(to, 0)
				if err != nil {
					t.Errorf("%s: %v", to, err)
					continue
				}
				if len(b) < 8 || binary.BigEndian.Uint16(b[6:]) != 9 || string(b[8:]) != "payload" {
					t.Errorf("%s: got %q", to, b)
				}
			}
			if n := v.link.Stats().Mappings; n != 2 {
				t.Errorf("%d mappings, want those to ext0 alone", n)
			}
		})
	}
}

func TestHostDNS(t *testing.T) {
	ap := netip.MustParseAddrPort
	for _, tt := range []struct {
		name, in string
		want     stacks.DNS
	}{
		{"empty", "", stacks.DNS{Servers: []netip.AddrPort{ap("127.0.0.1:53")}}},
		{
			"usual", "# made by hand\nnameserver 127.0.0.53\n nameserver\tfe80::1%eth0\noptions edns0\nsearch a.example. b.example .\n",
			stacks.DNS{Servers: []netip.AddrPort{ap("127.0.0.53:53"), ap("[fe80::1%eth0]:53")}, Search: []string{"a.example", "b.example"}},
		},
		{
			"last search counts", "domain x.example\nsearch y.example\n;nameserver 1.1.1.1\nnameserver bogus\nnameserver 9.9.9.9\n",
			stacks.DNS{Servers: []netip.AddrPort{ap("9.9.9.9:53")}, Search: []string{"y.example"}},
		},
	} {
		got, err := nat.HostDNS(strings.NewReader(tt.in))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(tt.want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); d != "" {
			t.Errorf("%s: (-want +got)\n%s", tt.name, d)
		}
	}
}

// TestDNSRelay asks a resolver on the host's loopback, which is closed
// otherwise, behind one that is dead.
func TestDNSRelay(t *testing.T) {
	query := append([]byte{0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, "\x07example\x00\x00\x01\x00\x01"...)
	answer := bytes.Clone(query)
	answer[2] |= 0x80
	ln, err := net.Listen("tcp", "127.0.0.53:0")
	if err != nil {
		t.Fatal(err)
	}
	at := ln.Addr().String()
	ln.Close()
	serveUDP(t, at, func(b []byte, from netip.AddrPort) []byte {
		if !from.Addr().IsLoopback() || !bytes.Equal(b, query) {
			return nil
		}
		return answer
	})
	serve(t, at, func(c *net.TCPConn) {
		b := make([]byte, 2+len(query))
		if n, _ := c.Read(b); bytes.Equal(b[2:n], query) {
			c.Write(append([]byte{0, byte(len(answer))}, answer...))
		}
	})
	v := open(t, nat.Options{DNS: stacks.DNS{Servers: []netip.AddrPort{
		netip.MustParseAddrPort("127.0.0.54:53"), // refuses
		netip.MustParseAddrPort(at),
	}}})
	servers := v.link.Config().DNS.Servers
	if len(servers) != 1 || servers[0] != netip.MustParseAddrPort("10.0.2.3:53") {
		t.Errorf("servers %v", servers)
	}
	for _, relay := range []string{"10.0.2.3:53", "[fd00:2::3]:53"} {
		c := v.dialUDP(relay, 0)
		c.Write(query)
		b := make([]byte, 512)
		if n, err := c.Read(b); err != nil || !bytes.Equal(b[:n], answer) {
			t.Errorf("%s udp: got %x, %v", relay, b[:n], err)
		}
		tc := v.mustDial(relay)
		tc.Write(append([]byte{0, byte(len(query))}, query...))
		if n, err := tc.Read(b); err != nil || !bytes.Equal(b[2:n], answer) {
			t.Errorf("%s tcp: got %x, %v", relay, b[:n], err)
		}
		tc.Close()
	}
	if n := v.link.Stats().Mappings; n != 0 {
		t.Errorf("%d mappings", n)
	}
}

// TestUDPTogether: datagrams that the kernel hands out together (UDP_GRO) are
// several again for the view.
func TestUDPTogether(t *testing.T) {
	pc, err := net.ListenPacket("udp", "198.51.100.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	host := pc.(*net.UDPConn)
	host.SetDeadline(time.Now().Add(10 * time.Second))
	rc, err := host.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	rc.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, 1000) })
	if err != nil {
		t.Skip("the host's kernel has no UDP_SEGMENT:", err)
	}
	v := open(t, nat.Options{})
	c := v.dialUDP(host.LocalAddr().String(), 0)
	c.Write([]byte("x"))
	_, to, err := host.ReadFromUDPAddrPort(make([]byte, 10))
	if err != nil {
		t.Fatal(err)
	}
	msg := make([]byte, 5010)
	for i := range msg {
		msg[i] = byte(i / 1000)
	}
	if _, err := host.WriteToUDPAddrPort(msg, to); err != nil {
		t.Fatal(err)
	}
	for i := range 6 {
		want := msg[i*1000 : min((i+1)*1000, len(msg))]
		buf := make([]byte, 2000)
		if n, err := c.Read(buf); err != nil || !bytes.Equal(buf[:n], want) {
			t.Errorf("datagram %d: %d bytes, %v", i, n, err)
		}
	}
}
