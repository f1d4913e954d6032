// SPDX-License-Identifier: Apache-2.0

// The same questions to the kernel and to us; see oracle_test.go.

package rtnetlink

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"umrun/netmod/nlmsg"
)

// A kernelSocket is a NETLINK_ROUTE socket of the namespace.
type kernelSocket struct {
	fd   int
	port uint32
}

func newKernelSocket(t *testing.T, opts Options) kernelSocket {
	t.Helper()
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	for opt, on := range map[int]bool{unix.NETLINK_EXT_ACK: opts.ExtAck, unix.NETLINK_CAP_ACK: opts.CapAck, unix.NETLINK_GET_STRICT_CHK: opts.Strict} {
		if on {
			if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, opt, 1); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return kernelSocket{fd, sa.(*unix.SockaddrNetlink).Pid}
}

// answer sends a request and returns what the kernel answers at once.
func (k kernelSocket) answer(t *testing.T, req []byte) (out [][]byte) {
	t.Helper()
	if err := unix.Sendto(k.fd, req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		t.Fatal(err)
	}
	for {
		buf := make([]byte, 1<<16)
		n, _, err := unix.Recvfrom(k.fd, buf, unix.MSG_DONTWAIT)
		if err == unix.EAGAIN {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, buf[:n])
	}
}

// message builds a request.
func message(typ, flags uint16, seq uint32, body ...[]byte) []byte {
	b := make([]byte, unix.NLMSG_HDRLEN)
	b = append(b, bytes.Join(body, nil)...)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], typ)
	binary.NativeEndian.PutUint16(b[6:], flags)
	binary.NativeEndian.PutUint32(b[8:], seq)
	return append(b, make([]byte, nlmsg.Align(len(b))-len(b))...)
}

func attribute(typ uint16, data []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofRtAttr+len(data)))
	b = append(binary.NativeEndian.AppendUint16(b, typ), data...)
	return append(b, make([]byte, nlmsg.Align(len(b))-len(b))...)
}

func u32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

// A decoded message.
type decoded struct {
	Type, Flags uint16
	Seq, PID    uint32
	Fixed       string            // hexadecimal
	Attrs       map[uint16]string // hexadecimal
}

// fixedLen are the lengths of the fixed parts.
var fixedLen = map[uint16]int{
	unix.RTM_NEWLINK: unix.SizeofIfInfomsg, unix.RTM_NEWADDR: unix.SizeofIfAddrmsg,
	unix.RTM_NEWROUTE: unix.SizeofRtMsg, unix.RTM_NEWRULE: unix.SizeofRtMsg, unix.RTM_NEWNEIGH: ndmsgLen,
}

func decode(t *testing.T, datagrams [][]byte) (out []decoded) {
	t.Helper()
	for _, d := range datagrams {
		for len(d) >= unix.NLMSG_HDRLEN {
			size := int(binary.NativeEndian.Uint32(d))
			m := decoded{
				Type: binary.NativeEndian.Uint16(d[4:]), Flags: binary.NativeEndian.Uint16(d[6:]),
				Seq: binary.NativeEndian.Uint32(d[8:]), PID: binary.NativeEndian.Uint32(d[12:]),
				Attrs: make(map[uint16]string),
			}
			body := d[unix.NLMSG_HDRLEN:size]
			n, ok := fixedLen[m.Type]
			if !ok {
				n = len(body)
			}
			m.Fixed = fmt.Sprintf("%x", body[:n])
			for a := body[n:]; len(a) >= 4; {
				l := int(binary.NativeEndian.Uint16(a))
				m.Attrs[binary.NativeEndian.Uint16(a[2:])] = fmt.Sprintf("%x", a[4:l])
				a = a[min(len(a), nlmsg.Align(l)):]
			}
			out = append(out, m)
			d = d[min(len(d), nlmsg.Align(size)):]
		}
	}
	return out
}

// unsaid are the attributes of the kernel that we leave out, by message type.
var unsaid = map[uint16]map[uint16]string{
	unix.RTM_NEWLINK: {
		5: "IFLA_LINK: the other end of a veth", 12: "IFLA_PROTINFO: IPv6 sysctls and counters",
		18: "IFLA_LINKINFO: driver; see TestKernelLinkInfo", 31: "IFLA_NUM_TX_QUEUES: of a veth, as many as processors", 32: "IFLA_NUM_RX_QUEUES", 26: "IFLA_AF_SPEC: sysctls", 27: "IFLA_NET_NS_PID or number of VFs",
		30: "IFLA_NET_NS...", 35: "IFLA_CARRIER_CHANGES",
		40: "IFLA_GSO_MAX_SEGS", 41: "IFLA_GSO_MAX_SIZE", 43: "IFLA_XDP", 47: "IFLA_CARRIER_UP_COUNT", 48: "IFLA_CARRIER_DOWN_COUNT",
		58: "IFLA_GRO_MAX_SIZE", 59: "IFLA_TSO_MAX_SIZE", 60: "IFLA_TSO_MAX_SEGS",
		63: "IFLA_GSO_IPV4_MAX_SIZE", 64: "IFLA_GRO_IPV4_MAX_SIZE", 66: "IFLA_MAX_PACING_OFFLOAD_HORIZON", 67: "IFLA_NETNS_IMMUTABLE",
		68: "IFLA_HEADROOM", 69: "IFLA_TAILROOM",
		unix.NLA_F_NESTED | 62: "IFLA_DEVLINK_PORT", unix.NLA_F_NESTED | 65: "IFLA_DPLL_PIN",
	},
}

// norm takes out what cannot be equal: time stamps and counters.
func norm(ms []decoded) []decoded {
	for i, m := range ms {
		for typ, v := range m.Attrs {
			switch {
			case m.Type == unix.RTM_NEWADDR && typ == unix.IFA_CACHEINFO:
				m.Attrs[typ] = v[:16] // without cstamp and tstamp
			case m.Type == unix.RTM_NEWLINK && (typ == unix.IFLA_STATS || typ == unix.IFLA_STATS64),
				m.Type == unix.RTM_NEWROUTE && typ == unix.RTA_CACHEINFO:
				m.Attrs[typ] = fmt.Sprint(len(v))
			}
			if _, ok := unsaid[m.Type][typ]; ok {
				delete(m.Attrs, typ)
			}
		}
		ms[i] = m
	}
	return ms
}

// compare asks both and compares; order tells whether it must be the same.
func compare(t *testing.T, opts Options, req []byte, order bool) {
	t.Helper()
	k := newKernelSocket(t, opts)
	want := norm(decode(t, k.answer(t, req)))
	got := norm(decode(t, opts.Answer(twin(), req, k.port)))
	if !order {
		key := func(m decoded) string {
			return fmt.Sprint(m.Type, m.Fixed, m.Attrs[unix.RTA_DST], m.Attrs[unix.RTA_OIF], m.Attrs[unix.RTA_PRIORITY], m.Attrs[unix.RTA_TABLE])
		}
		toMap := func(ms []decoded) map[string]decoded {
			out := make(map[string]decoded)
			for _, m := range ms {
				if _, ok := out[key(m)]; ok {
					t.Errorf("twice: %+v", m)
				}
				out[key(m)] = m
			}
			return out
		}
		if d := cmp.Diff(toMap(want), toMap(got)); d != "" {
			t.Errorf("-kernel +ours\n%s", d)
		}
		return
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-kernel +ours\n%s", d)
	}
}

const (
	request1 = unix.NLM_F_REQUEST
	requestD = unix.NLM_F_REQUEST | unix.NLM_F_DUMP
	requestA = unix.NLM_F_REQUEST | unix.NLM_F_ACK
)

func TestKernelDumps(t *testing.T) {
	oracle(t)
	for _, typ := range []uint16{unix.RTM_GETLINK, unix.RTM_GETADDR, unix.RTM_GETROUTE} {
		for _, family := range []byte{unix.AF_UNSPEC, unix.AF_INET, unix.AF_INET6, unix.AF_PACKET} {
			t.Run(fmt.Sprintf("type %d family %d", typ, family), func(t *testing.T) {
				// IPv6 tables are hashes; everything else has an order.
				order := typ != unix.RTM_GETROUTE
				compare(t, Options{}, message(typ, requestD, 1, []byte{family, 0, 0, 0}), order)
				compare(t, Options{Strict: true}, message(typ, requestD|unix.NLM_F_ACK, 9, append([]byte{family}, make([]byte, fixedLen[typ-2]-1)...)), order)
			})
		}
	}
	rtm := func(b ...byte) []byte { return append(b, make([]byte, 12-len(b))...) }
	tests := []struct {
		name string
		opts Options
		req  []byte
	}{
		{"links with an extension mask", Options{}, message(unix.RTM_GETLINK, requestD, 1, make([]byte, 16), attribute(unix.IFLA_EXT_MASK, u32(8|1)))},
		{"ports of a bridge", Options{}, message(unix.RTM_GETLINK, requestD, 1, make([]byte, 16), attribute(unix.IFLA_MASTER, u32(3)))},
		{"addresses of one interface", Options{Strict: true}, message(unix.RTM_GETADDR, requestD, 1, make([]byte, 4), u32(3))},
		{"main table", Options{Strict: true}, message(unix.RTM_GETROUTE, requestD, 1, rtm(2, 0, 0, 0, unix.RT_TABLE_MAIN))},
		{"local table", Options{Strict: true}, message(unix.RTM_GETROUTE, requestD, 1, rtm(2, 0, 0, 0, 0), attribute(unix.RTA_TABLE, u32(255)))},
		{"routes of one interface", Options{Strict: true}, message(unix.RTM_GETROUTE, requestD, 1, rtm(2), attribute(unix.RTA_OIF, u32(3)))},
		{"routes of the kernel", Options{Strict: true}, message(unix.RTM_GETROUTE, requestD, 1, rtm(2, 0, 0, 0, 0, unix.RTPROT_KERNEL))},
		{"another table", Options{Strict: true, ExtAck: true}, message(unix.RTM_GETROUTE, requestD, 1, rtm(2, 0, 0, 0, 100))},
		{"a large table", Options{Strict: true, ExtAck: true}, message(unix.RTM_GETROUTE, requestD, 1, rtm(2), attribute(unix.RTA_TABLE, u32(1000)))},
		{"no such table", Options{Strict: true, ExtAck: true}, message(unix.RTM_GETROUTE, requestD, 1, rtm(2, 0, 0, 0, 77))},
		{"no such table, IPv6", Options{Strict: true, ExtAck: true}, message(unix.RTM_GETROUTE, requestD, 1, rtm(10, 0, 0, 0, 77))},
		{"no such table, any family", Options{Strict: true, ExtAck: true}, message(unix.RTM_GETROUTE, requestD, 1, rtm(0, 0, 0, 0, 77))},
		{"routes of no interface", Options{Strict: true, ExtAck: true}, message(unix.RTM_GETROUTE, requestD, 1, rtm(2), attribute(unix.RTA_OIF, u32(99)))},
		{"blackholes", Options{Strict: true}, message(unix.RTM_GETROUTE, requestD, 1, rtm(2, 0, 0, 0, 0, 0, 0, unix.RTN_BLACKHOLE))},
		{"filters that are not strict", Options{}, message(unix.RTM_GETROUTE, requestD, 1, rtm(2, 0, 0, 0, unix.RT_TABLE_MAIN))},
		{"route cache", Options{Strict: true}, message(unix.RTM_GETROUTE, requestD, 1, rtm(2, 0, 0, 0, 0, 0, 0, 0, 0, 2))},
		{"route cache, not strict", Options{}, message(unix.RTM_GETROUTE, requestD, 1, rtm(2, 0, 0, 0, 0, 0, 0, 0, 0, 2))},
		{"rules", Options{}, message(unix.RTM_GETRULE, requestD, 1, rtm(unix.AF_INET))},
		{"rules 6", Options{}, message(unix.RTM_GETRULE, requestD, 1, rtm(unix.AF_INET6))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { compare(t, tt.opts, tt.req, tt.req[4] != unix.RTM_GETROUTE) })
	}
}

func TestKernelSingles(t *testing.T) {
	oracle(t)
	link := func(index uint32, attrs ...[]byte) []byte {
		b := make([]byte, 16)
		copy(b[4:], u32(index))
		return append(b, bytes.Join(attrs, nil)...)
	}
	name := func(s string) []byte { return attribute(unix.IFLA_IFNAME, append([]byte(s), 0)) }
	addr6 := func(index uint32, a string) []byte {
		ip := netip.MustParseAddr(a)
		return bytes.Join([][]byte{{unix.AF_INET6, 0, 0, 0}, u32(index), attribute(unix.IFA_ADDRESS, ip.AsSlice())}, nil)
	}
	tests := []struct {
		name string
		req  []byte
	}{
		{"link by index", message(unix.RTM_GETLINK, request1, 3, link(2))},
		{"link by index, acknowledged", message(unix.RTM_GETLINK, requestA, 3, link(3))},
		{"link by name", message(unix.RTM_GETLINK, request1, 3, link(0, name("eth1")))},
		{"link by alternative name", message(unix.RTM_GETLINK, request1, 3, link(0, attribute(unix.IFLA_ALT_IFNAME, []byte("eth1\x00"))))},
		{"link for IPv6", message(unix.RTM_GETLINK, request1, 3, append([]byte{unix.AF_INET6}, link(2)[1:]...))},
		{"link with an extension mask", message(unix.RTM_GETLINK, request1, 3, link(2, attribute(unix.IFLA_EXT_MASK, u32(8))))},
		{"link that is down", message(unix.RTM_GETLINK, request1, 3, link(5))},
		{"no such index", message(unix.RTM_GETLINK, request1, 3, link(99))},
		{"no such name", message(unix.RTM_GETLINK, request1, 3, link(0, name("nope")))},
		{"name too long", message(unix.RTM_GETLINK, request1, 3, link(0, name("abcdefghijklmnop")))},
		{"neither", message(unix.RTM_GETLINK, request1, 3, link(0))},
		{"short", message(unix.RTM_GETLINK, request1, 3, []byte{0})},
		{"address", message(unix.RTM_GETADDR, request1, 3, addr6(2, "fd00:7::2"))},
		{"address, any interface", message(unix.RTM_GETADDR, request1, 3, addr6(0, "::1"))},
		{"no such address", message(unix.RTM_GETADDR, request1, 3, addr6(0, "fd00:7::9"))},
		{"which address", message(unix.RTM_GETADDR, request1, 3, addr6(2, "::")[:8])},
		{"IPv4 address", message(unix.RTM_GETADDR, request1, 3, make([]byte, 8))},
		{"rule", message(unix.RTM_GETRULE, request1, 3, make([]byte, 12))},
		{"neighbour", message(unix.RTM_GETNEIGH, request1, 3, []byte{2, 0, 0, 0}, u32(3), make([]byte, 4), attribute(unix.NDA_DST, []byte{192, 0, 2, 77}))},
		{"which neighbour", message(unix.RTM_GETNEIGH, request1, 3, make([]byte, 12))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			compare(t, Options{}, tt.req, true)
			compare(t, Options{CapAck: true}, tt.req, true)
		})
	}
}

func TestKernelRouteGet(t *testing.T) {
	oracle(t)
	tests := []struct {
		dst, src string
		oif      uint32
	}{
		{"1.1.1.1", "", 0}, {"1.1.1.1", "10.7.0.3", 0}, {"1.1.1.1", "192.0.2.5", 0}, {"1.1.1.1", "9.9.9.9", 0},
		{"1.1.1.1", "", 2}, {"1.1.1.1", "", 3}, {"1.1.1.1", "", 99}, {"10.7.0.9", "", 0}, {"10.7.0.2", "", 0},
		{"10.7.0.3", "", 0}, {"10.7.0.255", "", 0}, {"127.0.0.1", "", 0}, {"127.5.5.5", "", 0}, {"0.0.0.0", "", 0},
		{"255.255.255.255", "", 0}, {"224.0.0.251", "", 0}, {"192.0.2.9", "", 0}, {"203.0.113.1", "", 0},
		{"203.0.113.200", "", 0}, {"203.0.113.200", "", 2}, {"198.51.100.1", "", 0},
		{"2001:db8::1", "", 0}, {"2001:db8:1::1", "", 0}, {"fd00:7::9", "", 0}, {"fd00:7::2", "", 0}, {"::1", "", 0},
		{"fe80::9", "", 3}, {"fe80::9", "", 4}, {"2001:db8::1", "", 2}, {"2001:db8::1", "", 3}, {"2001:db8::1", "", 99},
		{"ff02::fb", "", 3}, {"::", "", 0},
		{"10.66.0.1", "", 0}, {"10.66.1.1", "", 0}, {"10.66.2.1", "", 0}, {"10.66.3.1", "", 0}, {"10.66.0.1", "", 2}, {"10.66.4.1", "", 0},
		{"10.66.5.1", "", 0}, {"10.66.6.1", "", 0}, {"fd66::1", "", 0}, {"fd66:0:0:1::1", "", 0}, {"fd66:0:0:2::1", "", 0}, {"fd66:0:0:3::1", "", 0},
		{"fd66:0:0:1::1", "", 2}, {"fd66:0:0:4::1", "", 0}, {"fd66:0:0:5::1", "", 0}, {"2001:db8::1", "fd00:7::2", 0}, {"2001:db8::1", "fd00:7::9", 0},
	}
	for _, tt := range tests {
		for _, flags := range []uint32{0, fullTable, fibMatch} {
			t.Run(fmt.Sprintf("%s from %s oif %d flags %#x", tt.dst, tt.src, tt.oif, flags), func(t *testing.T) {
				dst := netip.MustParseAddr(tt.dst)
				body := make([]byte, unix.SizeofRtMsg)
				body[0], body[1] = byte(familyOf(dst)), byte(dst.BitLen())
				copy(body[8:], u32(flags))
				body = append(body, attribute(unix.RTA_DST, dst.AsSlice())...)
				if tt.src != "" {
					src := netip.MustParseAddr(tt.src)
					body[2] = byte(src.BitLen())
					body = append(body, attribute(unix.RTA_SRC, src.AsSlice())...)
				}
				if tt.oif != 0 {
					body = append(body, attribute(unix.RTA_OIF, u32(tt.oif))...)
				}
				compare(t, Options{}, message(unix.RTM_GETROUTE, request1, 5, body), true)
			})
		}
	}
}

// TestKernelLinkInfo: the interface says of itself what a TUN device says.
func TestKernelLinkInfo(t *testing.T) {
	oracle(t)
	k := newKernelSocket(t, Options{})
	req := message(unix.RTM_GETLINK, request1, 1, []byte{0, 0, 0, 0}, u32(2), u32(0), u32(0))
	want := decode(t, k.answer(t, req))[0].Attrs[unix.IFLA_LINKINFO]
	if got := decode(t, Answer(twin(), req, k.port))[0].Attrs[unix.IFLA_LINKINFO]; got != want {
		t.Errorf("%s, the kernel %s", got, want)
	}
}

// The loop over a request's messages, and its errors, byte for byte.
func TestKernelErrors(t *testing.T) {
	oracle(t)
	good := message(unix.RTM_GETLINK, request1, 7, make([]byte, 4), u32(1), make([]byte, 8))
	bad := message(unix.RTM_GETLINK, request1, 8, make([]byte, 16))
	length := func(m []byte, n uint32) []byte {
		m = bytes.Clone(m)
		binary.NativeEndian.PutUint32(m, n)
		return m
	}
	tests := []struct {
		name string
		req  []byte
	}{
		{"too short for a header", make([]byte, 15)},
		{"length below a header", length(good, 15)},
		{"length zero", length(good, 0)},
		{"length beyond the end", length(good, 1000)},
		{"no request", message(unix.RTM_GETLINK, 0, 1, make([]byte, 16))},
		{"no request, to be acknowledged", message(unix.RTM_GETLINK, unix.NLM_F_ACK, 1, make([]byte, 16))},
		{"control message", message(unix.NLMSG_NOOP, requestA, 1)},
		{"control message, quiet", message(unix.NLMSG_DONE, request1, 1, make([]byte, 4))},
		{"no family", message(unix.RTM_GETLINK, requestA, 1)},
		{"type beyond all", message(200, request1, 1, make([]byte, 16))},
		{"unused type", message(58, requestD, 1, make([]byte, 16))},
		{"unused type, single", message(58, request1, 1, make([]byte, 16))},
		{"two errors", append(bytes.Clone(bad), bad...)},
		{"error, then nonsense", append(bytes.Clone(bad), 1, 2, 3)},
		{"odd length", length(append(bytes.Clone(bad), 9, 9, 9, 9), uint32(len(bad))+1)},
		{"huge type", message(0xffff, requestA, 1, []byte{0})},
	}
	for _, tt := range tests {
		for _, opts := range []Options{{}, {CapAck: true}} {
			t.Run(tt.name, func(t *testing.T) {
				k := newKernelSocket(t, opts)
				want := k.answer(t, tt.req)
				got := opts.Answer(twin(), tt.req, k.port)
				if d := cmp.Diff(want, got); d != "" {
					t.Errorf("-kernel +ours\n%s", d)
				}
			})
		}
	}
}

func TestKernelIoctl(t *testing.T) {
	oracle(t)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	commands := map[string]uint32{
		"FLAGS": unix.SIOCGIFFLAGS, "ADDR": unix.SIOCGIFADDR, "DSTADDR": unix.SIOCGIFDSTADDR, "BRDADDR": unix.SIOCGIFBRDADDR,
		"NETMASK": unix.SIOCGIFNETMASK, "METRIC": unix.SIOCGIFMETRIC, "MTU": unix.SIOCGIFMTU, "HWADDR": unix.SIOCGIFHWADDR,
		"INDEX": unix.SIOCGIFINDEX, "TXQLEN": unix.SIOCGIFTXQLEN, "MAP": unix.SIOCGIFMAP, "SLAVE": siocgifslave,
		"PFLAGS": siocgifpflags, "COUNT": siocgifcount, "MEM": unix.SIOCGIFMEM,
		"ENCAP": unix.SIOCGIFENCAP, "RTMSG": unix.SIOCRTMSG, "PRIVATE": siocPrivate,
		"WANDEV": unix.SIOCWANDEV, "MII": unix.SIOCGMIIPHY, "NAME": unix.SIOCGIFNAME,
	}
	names := []string{"lo", "tun0", "eth1", "eth2", "off", "tun0:1", "nope", "", "0123456789abcdefgh"}
	for what, cmd := range commands {
		for _, name := range names {
			t.Run(what+" "+name, func(t *testing.T) {
				want := bytes.Repeat([]byte{0xaa}, IfreqLen)
				clear(want[:unix.IFNAMSIZ])
				copy(want[:unix.IFNAMSIZ], name)
				if cmd == unix.SIOCGIFNAME {
					copy(want[unix.IFNAMSIZ:], u32(uint32(1+len(name)%7)))
				}
				got := bytes.Clone(want)
				_, _, wantErr := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(cmd), uintptr(unsafe.Pointer(&want[0])))
				n, gotErr := Ioctl(twin(), nil, unix.AF_INET, cmd, got)
				if gotErr != wantErr {
					t.Fatalf("%v, the kernel %v", gotErr, wantErr)
				}
				if wantErr == 0 && (n != IfreqLen || !bytes.Equal(got, want)) {
					t.Errorf("%d bytes\n%x, the kernel\n%x", n, got, want)
				}
			})
		}
	}
}

func TestKernelIfconf(t *testing.T) {
	oracle(t)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	ask := func(room int, buf *byte) int {
		t.Helper()
		conf := struct {
			n   int32
			_   int32
			buf *byte
		}{n: int32(room), buf: buf}
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCGIFCONF, uintptr(unsafe.Pointer(&conf))); errno != 0 {
			t.Fatal(errno)
		}
		return int(conf.n)
	}
	for _, room := range []int{0, 1, 39, 40, 41, 120, 200, 500} {
		buf := make([]byte, 500)
		want := buf[:ask(room, &buf[0])]
		if got := Ifconf(twin(), IfreqLen, room); !bytes.Equal(got, want) {
			t.Errorf("room %d\n%x, the kernel\n%x", room, got, want)
		}
	}
	if want, got := ask(7, nil), len(Ifconf(twin(), IfreqLen, -1)); want != got {
		t.Errorf("%d bytes in all, the kernel %d", got, want)
	}
}
