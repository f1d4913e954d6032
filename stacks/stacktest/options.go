// SPDX-License-Identifier: Apache-2.0

// Cases of socket options.

package stacktest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

var optionCases = []testCase{
	{"options_round_trip", optionRoundTrip},
	{"options_errors", optionErrors},
	{"options_identity", optionIdentity},
	{"options_accepted_child", optionChild},
	{"options_survive_refusal", optionSurvive},
	{"options_tcp_info", optionTCPInfo},
	{"options_congestion", optionCongestion},
	{"options_short_buffers", optionShort},
}

func i32(v int) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(int32(v))) }

func setInt(t *testing.T, s stacks.Socket, level, name, v int) {
	t.Helper()
	if err := s.SetOption(level, name, i32(v)); err != nil {
		t.Fatalf("setsockopt(%d, %d, %d): %v", level, name, v, err)
	}
}

func getInt(t *testing.T, s stacks.Socket, level, name int) int {
	t.Helper()
	b := make([]byte, 4)
	n, err := s.Option(level, name, b)
	if err != nil || n != 4 {
		t.Fatalf("getsockopt(%d, %d): %d bytes, %v", level, name, n, err)
	}
	return int(int32(binary.NativeEndian.Uint32(b)))
}

// Kinds of sockets that a row is tried on.
const (
	onTCP4 = 1 << iota
	onUDP4
	onTCP6
	onUDP6
	onTCP = onTCP4 | onTCP6
	onUDP = onUDP4 | onUDP6
	on4   = onTCP4 | onUDP4
	on6   = onTCP6 | onUDP6
	onAll = onTCP | onUDP
)

func eachKind(t *testing.T, st stacks.Stack, kinds int, f func(kind string, s stacks.Socket)) {
	t.Helper()
	for _, k := range []struct {
		bit, family, typ int
		name             string
	}{
		{onTCP4, unix.AF_INET, unix.SOCK_STREAM, "tcp4"},
		{onUDP4, unix.AF_INET, unix.SOCK_DGRAM, "udp4"},
		{onTCP6, unix.AF_INET6, unix.SOCK_STREAM, "tcp6"},
		{onUDP6, unix.AF_INET6, unix.SOCK_DGRAM, "udp6"},
	} {
		if kinds&k.bit != 0 {
			f(k.name, newSocket(t, st, k.family, k.typ, 0))
		}
	}
}

// optionRoundTrip sets a value and reads back what Linux makes of it.
func optionRoundTrip(t *testing.T, p Pair) {
	const sol = unix.SOL_SOCKET
	for _, tt := range []struct {
		name              string
		kinds             int
		level, opt        int
		initial, set, get int // initial -99: not compared
	}{
		{"SO_REUSEADDR", onAll, sol, unix.SO_REUSEADDR, 0, 1, 1},
		{"SO_REUSEADDR", onAll, sol, unix.SO_REUSEADDR, 0, 5, 1},
		{"SO_REUSEPORT", onAll, sol, unix.SO_REUSEPORT, 0, 1, 1},
		{"SO_KEEPALIVE", onTCP, sol, unix.SO_KEEPALIVE, 0, 1, 1},
		{"SO_BROADCAST", onUDP, sol, unix.SO_BROADCAST, 0, 1, 1},
		{"SO_OOBINLINE", onTCP, sol, unix.SO_OOBINLINE, 0, 1, 1},
		{"SO_SNDBUF", onAll, sol, unix.SO_SNDBUF, -99, 65536, 131072},
		{"SO_RCVBUF", onAll, sol, unix.SO_RCVBUF, -99, 65536, 131072},
		{"SO_SNDBUF", onAll, sol, unix.SO_SNDBUF, -99, 1, 4608},
		{"SO_RCVBUF", onAll, sol, unix.SO_RCVBUF, -99, 1, 2304},
		{"SO_PRIORITY", onAll, sol, unix.SO_PRIORITY, 0, 6, 6},
		{"SO_RCVLOWAT", onAll, sol, unix.SO_RCVLOWAT, 1, 10, 10},
		{"SO_TIMESTAMP", onUDP, sol, unix.SO_TIMESTAMP, 0, 1, 1},
		{"SO_TIMESTAMPNS", onUDP, sol, unix.SO_TIMESTAMPNS, 0, 1, 1},
		{"SO_DONTROUTE", onUDP, sol, unix.SO_DONTROUTE, 0, 1, 1},
		{"SO_NO_CHECK", onUDP4, sol, unix.SO_NO_CHECK, 0, 1, 1},

		{"TCP_NODELAY", onTCP, unix.IPPROTO_TCP, unix.TCP_NODELAY, 0, 1, 1},
		{"TCP_CORK", onTCP, unix.IPPROTO_TCP, unix.TCP_CORK, 0, 1, 1},
		{"TCP_KEEPIDLE", onTCP, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 7200, 30, 30},
		{"TCP_KEEPINTVL", onTCP, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 75, 15, 15},
		{"TCP_KEEPCNT", onTCP, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 9, 4, 4},
		{"TCP_USER_TIMEOUT", onTCP, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 0, 1234, 1234},
		{"TCP_SYNCNT", onTCP, unix.IPPROTO_TCP, unix.TCP_SYNCNT, 6, 3, 3},
		{"TCP_LINGER2", onTCP, unix.IPPROTO_TCP, unix.TCP_LINGER2, 60, 30, 30},
		{"TCP_DEFER_ACCEPT", onTCP, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 0, 5, 7},
		{"TCP_QUICKACK", onTCP, unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1, 0, 0},
		{"TCP_MAXSEG", onTCP, unix.IPPROTO_TCP, unix.TCP_MAXSEG, 536, 1000, 1000},
		{"TCP_NOTSENT_LOWAT", onTCP, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, 0, 16384, 16384},

		{"IP_TOS", on4, unix.IPPROTO_IP, unix.IP_TOS, 0, 0x10, 0x10},
		{"IP_TOS ECN", onTCP4, unix.IPPROTO_IP, unix.IP_TOS, 0, 0xbb, 0xb8},
		{"IP_TOS ECN", onUDP4, unix.IPPROTO_IP, unix.IP_TOS, 0, 0xbb, 0xbb},
		{"IP_TTL", onAll, unix.IPPROTO_IP, unix.IP_TTL, 64, 5, 5},
		{"IP_TTL default", on4, unix.IPPROTO_IP, unix.IP_TTL, 64, -1, 64},
		{"IP_MTU_DISCOVER", on4, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, 1, 2, 2},
		{"IP_MTU_DISCOVER", on4, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, 1, 5, 5},
		{"IP_RECVTTL", onTCP4, unix.IPPROTO_IP, unix.IP_RECVTTL, 0, 1, 1},
		{"IP_RECVTOS", onTCP4, unix.IPPROTO_IP, unix.IP_RECVTOS, 0, 1, 1},
		{"IP_PKTINFO", onTCP4, unix.IPPROTO_IP, unix.IP_PKTINFO, 0, 1, 1},
		{"IP_RECVERR", on4, unix.IPPROTO_IP, unix.IP_RECVERR, 0, 1, 1},
		{"IP_BIND_ADDRESS_NO_PORT", on4, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 0, 1, 1},
		{"IP_FREEBIND", on4, unix.IPPROTO_IP, unix.IP_FREEBIND, 0, 1, 1},
		{"UDP_CORK", onUDP, unix.IPPROTO_UDP, unix.UDP_CORK, 0, 0, 0},
		{"IP_MULTICAST_TTL", onUDP4, unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, 1, 4, 4},
		{"IP_MULTICAST_LOOP", onUDP4, unix.IPPROTO_IP, unix.IP_MULTICAST_LOOP, 1, 0, 0},
		{"IP_MULTICAST_ALL", onUDP4, unix.IPPROTO_IP, unix.IP_MULTICAST_ALL, 1, 0, 0},

		{"IPV6_V6ONLY", on6, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0, 1, 1},
		{"IPV6_TCLASS", on6, unix.IPPROTO_IPV6, unix.IPV6_TCLASS, 0, 0x20, 0x20},
		{"IPV6_UNICAST_HOPS", on6, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, 64, 3, 3},
		{"IPV6_UNICAST_HOPS default", on6, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, 64, -1, 64},
		{"IPV6_MTU_DISCOVER", on6, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, 1, 2, 2},
		{"IPV6_RECVERR", on6, unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 0, 1, 1},
		{"IPV6_RECVPKTINFO", onTCP6, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 0, 1, 1},
		{"IPV6_RECVHOPLIMIT", onTCP6, unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 0, 1, 1},
		{"IPV6_RECVTCLASS", onTCP6, unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, 0, 1, 1},
		{"IPV6_MULTICAST_HOPS", onUDP6, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 1, 4, 4},
		{"IPV6_MULTICAST_LOOP", onUDP6, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_LOOP, 1, 0, 0},
		{"IPV6_DONTFRAG", onUDP6, unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG, 0, 1, 1},
	} {
		eachKind(t, p.A, tt.kinds, func(kind string, s stacks.Socket) {
			t.Run(fmt.Sprintf("%s_%s_%d", tt.name, kind, tt.set), func(t *testing.T) {
				if got := getInt(t, s, tt.level, tt.opt); tt.initial != -99 && got != tt.initial {
					t.Errorf("initially %d, want %d", got, tt.initial)
				}
				setInt(t, s, tt.level, tt.opt, tt.set)
				if got := getInt(t, s, tt.level, tt.opt); got != tt.get {
					t.Errorf("set to %d, reads as %d, want %d", tt.set, got, tt.get)
				}
			})
		})
	}
}

func optionErrors(t *testing.T, p Pair) {
	const sol = unix.SOL_SOCKET
	for _, tt := range []struct {
		name       string
		kinds      int
		level, opt int
		value      []byte
		want       error
	}{
		{"unknown of SOL_SOCKET", onAll, sol, 9999, i32(1), unix.ENOPROTOOPT},
		{"unknown of TCP", onTCP, unix.IPPROTO_TCP, 9999, i32(1), unix.ENOPROTOOPT},
		{"unknown of IP", onAll, unix.IPPROTO_IP, 9999, i32(1), unix.ENOPROTOOPT},
		{"unknown of IPv6", on6, unix.IPPROTO_IPV6, 9999, i32(1), unix.ENOPROTOOPT},
		{"TCP level on UDP", onUDP, unix.IPPROTO_TCP, unix.TCP_NODELAY, i32(1), unix.ENOPROTOOPT},
		{"IPv6 level on IPv4", on4, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, i32(1), unix.ENOPROTOOPT},
		{"unknown level", onAll, 12345, 1, i32(1), unix.ENOPROTOOPT},
		{"short int", onAll, sol, unix.SO_REUSEADDR, []byte{1}, unix.EINVAL},
		{"short TCP int", onTCP, unix.IPPROTO_TCP, unix.TCP_NODELAY, []byte{1, 0, 0}, unix.EINVAL},
		{"byte for an IP option", on4, unix.IPPROTO_IP, unix.IP_TOS, []byte{8}, nil},
		{"byte for an IPv6 option", on6, unix.IPPROTO_IPV6, unix.IPV6_TCLASS, []byte{8}, unix.EINVAL},
		{"TTL 0", on4, unix.IPPROTO_IP, unix.IP_TTL, i32(0), unix.EINVAL},
		{"TTL 256", on4, unix.IPPROTO_IP, unix.IP_TTL, i32(256), unix.EINVAL},
		{"hop limit 256", on6, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, i32(256), unix.EINVAL},
		{"MTU_DISCOVER 6", on4, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, i32(6), unix.EINVAL},
		{"KEEPIDLE 0", onTCP, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, i32(0), unix.EINVAL},
		{"KEEPCNT 128", onTCP, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, i32(128), unix.EINVAL},
		{"SYNCNT 0", onTCP, unix.IPPROTO_TCP, unix.TCP_SYNCNT, i32(0), unix.EINVAL},
		{"USER_TIMEOUT -1", onTCP, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, i32(-1), unix.EINVAL},
		{"MAXSEG 10", onTCP, unix.IPPROTO_TCP, unix.TCP_MAXSEG, i32(10), unix.EINVAL},
		{"short linger", onTCP, sol, unix.SO_LINGER, i32(1), unix.EINVAL},
		{"SO_ERROR is read only", onAll, sol, unix.SO_ERROR, i32(0), unix.ENOPROTOOPT},
		{"SO_TYPE is read only", onAll, sol, unix.SO_TYPE, i32(0), unix.ENOPROTOOPT},
		{"no such device", onAll, sol, unix.SO_BINDTODEVICE, []byte("nosuch0\x00"), unix.ENODEV},
		{"no such congestion control", onTCP, unix.IPPROTO_TCP, unix.TCP_CONGESTION, []byte("nosuch"), unix.ENOENT},
		{"IP_MULTICAST_TTL on TCP", onTCP4, unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, i32(5), unix.EINVAL},
		{"IP_MULTICAST_IF on TCP", onTCP4, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, i32(0), unix.EINVAL},
		{"IP_ADD_MEMBERSHIP on TCP", onTCP4, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, []byte{224, 0, 0, 251, 127, 0, 0, 1}, unix.EPROTO},
		{"IPV6_MULTICAST_HOPS on TCP", onTCP6, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, i32(5), unix.ENOPROTOOPT},
		{"IPV6_MULTICAST_IF on TCP", onTCP6, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, i32(0), unix.ENOPROTOOPT},
		{"IPV6_JOIN_GROUP on TCP", onTCP6, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, append([]byte{0xff, 5, 15: 1}, i32(0)...), unix.EPROTO},
		{"no such ULP", onTCP, unix.IPPROTO_TCP, unix.TCP_ULP, []byte("nosuch"), unix.ENOENT},
	} {
		eachKind(t, p.A, tt.kinds, func(kind string, s stacks.Socket) {
			wantErr(t, tt.name+" "+kind, s.SetOption(tt.level, tt.opt, tt.value), tt.want)
		})
	}
	for _, tt := range []struct {
		name       string
		kinds      int
		level, opt int
		want       error
	}{
		{"unknown of SOL_SOCKET", onAll, sol, 9999, unix.ENOPROTOOPT},
		{"unknown of TCP", onTCP, unix.IPPROTO_TCP, 9999, unix.ENOPROTOOPT},
		{"unknown of IP", onAll, unix.IPPROTO_IP, 9999, unix.ENOPROTOOPT},
		{"unknown of IPv6", on6, unix.IPPROTO_IPV6, 9999, unix.ENOPROTOOPT},
		{"unknown level", on4, 12345, 1, unix.EOPNOTSUPP},
		{"TCP level on UDP", onUDP4, unix.IPPROTO_TCP, unix.TCP_NODELAY, unix.EOPNOTSUPP},
		{"unknown level", on6, 12345, 1, unix.ENOPROTOOPT},
		{"TCP level on UDP", onUDP6, unix.IPPROTO_TCP, unix.TCP_NODELAY, unix.ENOPROTOOPT},
		{"IP_MTU unconnected", on4, unix.IPPROTO_IP, unix.IP_MTU, unix.ENOTCONN},
	} {
		eachKind(t, p.A, tt.kinds, func(kind string, s stacks.Socket) {
			_, err := s.Option(tt.level, tt.opt, make([]byte, 4))
			wantErr(t, "get "+tt.name+" "+kind, err, tt.want)
		})
	}
}

func optionIdentity(t *testing.T, p Pair) {
	for _, tt := range []struct{ family, typ, proto int }{
		{unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_TCP},
		{unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_TCP},
		{unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDP},
		{unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_UDP},
	} {
		s := newSocket(t, p.A, tt.family, tt.typ, 0)
		got := [3]int{
			getInt(t, s, unix.SOL_SOCKET, unix.SO_DOMAIN),
			getInt(t, s, unix.SOL_SOCKET, unix.SO_TYPE),
			getInt(t, s, unix.SOL_SOCKET, unix.SO_PROTOCOL),
		}
		if want := [3]int{tt.family, tt.typ, tt.proto}; got != want {
			t.Errorf("domain, type, protocol %v, want %v", got, want)
		}
	}
	l, _ := listen(t, p.B, p.B4, 1)
	if got := getInt(t, l, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); got != 1 {
		t.Errorf("SO_ACCEPTCONN of a listener %d", got)
	}
	if got := getInt(t, newTCP(t, p.A, unix.AF_INET), unix.SOL_SOCKET, unix.SO_ACCEPTCONN); got != 0 {
		t.Errorf("SO_ACCEPTCONN %d", got)
	}
	linger := make([]byte, 8)
	if n, err := l.Option(unix.SOL_SOCKET, unix.SO_LINGER, linger); n != 8 || err != nil || !bytes.Equal(linger, make([]byte, 8)) {
		t.Errorf("SO_LINGER % x, %d, %v", linger, n, err)
	}
	want := append(i32(1), i32(5)...)
	if err := l.SetOption(unix.SOL_SOCKET, unix.SO_LINGER, want); err != nil {
		t.Fatal(err)
	}
	if n, err := l.Option(unix.SOL_SOCKET, unix.SO_LINGER, linger); n != 8 || err != nil || !bytes.Equal(linger, want) {
		t.Errorf("SO_LINGER % x, %d, %v", linger, n, err)
	}
	cred := make([]byte, 12)
	if n, err := l.Option(unix.SOL_SOCKET, unix.SO_PEERCRED, cred); n != 12 || err != nil ||
		!bytes.Equal(cred, append(append(i32(0), i32(-1)...), i32(-1)...)) {
		t.Errorf("SO_PEERCRED % x, %v", cred[:n], err)
	}
	dev := make([]byte, 16)
	if n, err := l.Option(unix.SOL_SOCKET, unix.SO_BINDTODEVICE, dev); n != 0 || err != nil {
		t.Errorf("SO_BINDTODEVICE %q, %v", dev[:n], err)
	}
	if err := l.SetOption(unix.SOL_SOCKET, unix.SO_BINDTODEVICE, []byte("lo")); err != nil {
		t.Fatal(err)
	}
	if n, err := l.Option(unix.SOL_SOCKET, unix.SO_BINDTODEVICE, dev); string(dev[:n]) != "lo\x00" || err != nil {
		t.Errorf("SO_BINDTODEVICE %q, %v", dev[:n], err)
	}
}

// optionChild: an accepted socket has the options of its listener.
func optionChild(t *testing.T, p Pair) {
	l := newTCP(t, p.B, unix.AF_INET)
	opts := []struct{ level, name, v int }{
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{unix.SOL_SOCKET, unix.SO_REUSEADDR, 1},
		{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 33},
		{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 4444},
		{unix.IPPROTO_IP, unix.IP_TOS, 0x10},
		{unix.IPPROTO_IP, unix.IP_TTL, 33},
	}
	for _, o := range opts {
		setInt(t, l, o.level, o.name, o.v)
	}
	if err := l.Listen(4); err != nil {
		t.Fatal(err)
	}
	c := newTCP(t, p.A, unix.AF_INET)
	connect(t, c, reach(l, p.B4))
	s := accept(t, l)
	for _, o := range opts {
		if got := getInt(t, s, o.level, o.name); got != o.v {
			t.Errorf("level %d option %d of the child is %d, want %d", o.level, o.name, got, o.v)
		}
	}
}

// optionSurvive: a socket keeps its options when a connection fails.
func optionSurvive(t *testing.T, p Pair) {
	c := newTCP(t, p.A, unix.AF_INET)
	setInt(t, c, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	setInt(t, c, unix.SOL_SOCKET, unix.SO_RCVBUF, 40000)
	dead := closedPort(t, p, p.B4)
	wantErr(t, "connect", c.Connect(dead), unix.EINPROGRESS)
	awaitEvent(t, c, unix.POLLERR)
	wantErr(t, "connect", c.Connect(dead), unix.ECONNREFUSED)
	if got := getInt(t, c, unix.IPPROTO_TCP, unix.TCP_NODELAY); got != 1 {
		t.Errorf("TCP_NODELAY %d", got)
	}
	if got := getInt(t, c, unix.SOL_SOCKET, unix.SO_RCVBUF); got != 80000 {
		t.Errorf("SO_RCVBUF %d", got)
	}
}

func optionTCPInfo(t *testing.T, p Pair) {
	const established, listening, closed = 1, 10, 7
	state := func(s stacks.Socket) byte {
		b := make([]byte, 104)
		n, err := s.Option(unix.IPPROTO_TCP, unix.TCP_INFO, b)
		if err != nil || n != 104 {
			t.Fatalf("TCP_INFO: %d bytes, %v", n, err)
		}
		return b[0]
	}
	l, _ := listen(t, p.B, p.B4, 1)
	c, s := connected(t, p, p.B4)
	got := [4]byte{state(newTCP(t, p.A, unix.AF_INET)), state(l), state(c), state(s)}
	if want := [4]byte{closed, listening, established, established}; got != want {
		t.Errorf("states %v, want %v", got, want)
	}
	if mss := getInt(t, c, unix.IPPROTO_TCP, unix.TCP_MAXSEG); mss < 1000 {
		t.Errorf("TCP_MAXSEG of a connection %d", mss)
	}
	if mtu := getInt(t, c, unix.IPPROTO_IP, unix.IP_MTU); mtu < 1280 {
		t.Errorf("IP_MTU of a connection %d", mtu)
	}
}

func optionCongestion(t *testing.T, p Pair) {
	c := newTCP(t, p.A, unix.AF_INET)
	for _, cc := range []string{"reno", "cubic"} {
		err := c.SetOption(unix.IPPROTO_TCP, unix.TCP_CONGESTION, []byte(cc))
		if err == unix.ENOENT {
			continue // not loaded in this kernel
		}
		b := make([]byte, 16)
		n, gerr := c.Option(unix.IPPROTO_TCP, unix.TCP_CONGESTION, b)
		if err != nil || gerr != nil || n != 16 || string(bytes.TrimRight(b, "\x00")) != cc {
			t.Errorf("%s: %q (%d bytes), %v, %v", cc, b, n, err, gerr)
		}
	}
}

// optionShort: a getter gives what fits.
func optionShort(t *testing.T, p Pair) {
	c := newTCP(t, p.A, unix.AF_INET)
	for _, size := range []int{0, 1, 2, 3, 4, 8} {
		n, err := c.Option(unix.SOL_SOCKET, unix.SO_TYPE, make([]byte, size))
		if err != nil || n != min(size, 4) {
			t.Errorf("room for %d: %d bytes, %v", size, n, err)
		}
	}
}
