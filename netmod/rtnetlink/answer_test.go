// SPDX-License-Identifier: Apache-2.0

// What can be told without a kernel: refusals, sizes, bounds, other decoders.

package rtnetlink

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jsimonetti/rtnetlink/v2"
	"golang.org/x/sys/unix"

	"umrun/netmod/nlmsg"
	"umrun/stacks"
)

// An independent decoder finds in our dumps what is in the State.
func TestDecodedByOthers(t *testing.T) {
	s := twin()
	var names, addrs, routes []string
	each := func(typ uint16, f func(body []byte) error) {
		t.Helper()
		for _, d := range Answer(s, message(typ, requestD, 42, make([]byte, 4)), 7) {
			msgs, err := syscall.ParseNetlinkMessage(d)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range msgs {
				if m.Header.Seq != 42 || m.Header.Pid != 7 || m.Header.Flags&unix.NLM_F_MULTI == 0 {
					t.Errorf("header %+v", m.Header)
				}
				if m.Header.Type == unix.NLMSG_DONE {
					continue
				}
				if err := f(m.Data); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	each(unix.RTM_GETLINK, func(b []byte) error {
		var m rtnetlink.LinkMessage
		err := m.UnmarshalBinary(b)
		names = append(names, fmt.Sprint(m.Index, " ", m.Attributes.Name, " ", m.Attributes.MTU, " ", m.Attributes.Address))
		return err
	})
	each(unix.RTM_GETADDR, func(b []byte) error {
		var m rtnetlink.AddressMessage
		err := m.UnmarshalBinary(b)
		addrs = append(addrs, fmt.Sprint(m.Index, " ", m.Attributes.Address, "/", m.PrefixLength))
		return err
	})
	each(unix.RTM_GETROUTE, func(b []byte) error {
		var m rtnetlink.RouteMessage
		err := m.UnmarshalBinary(b)
		if m.Table == unix.RT_TABLE_MAIN && m.Family == unix.AF_INET {
			routes = append(routes, fmt.Sprint(m.Attributes.Dst, "/", m.DstLength, " ", m.Attributes.Gateway, " ", m.Attributes.OutIface))
		}
		return err
	})
	var wantNames, wantAddrs []string
	for _, i := range s.Interfaces {
		mac := i.MAC
		if i.Loop {
			mac = make(net.HardwareAddr, 6)
		}
		wantNames = append(wantNames, fmt.Sprint(i.Index, " ", i.Name, " ", i.MTU, " ", mac))
		for _, p := range i.Addrs {
			wantAddrs = append(wantAddrs, fmt.Sprint(i.Index, " ", p))
		}
	}
	slices.Sort(addrs)
	slices.Sort(wantAddrs)
	wantRoutes := []string{"<nil>/0 10.7.0.1 2", "10.7.0.0/24 <nil> 2",
		"10.66.0.0/24 <nil> 0", "10.66.1.0/24 <nil> 0", "10.66.2.0/24 <nil> 0", "10.66.3.0/24 <nil> 0", "10.66.5.0/24 <nil> 2", "10.66.6.0/24 99.9.9.9 2", "192.0.2.0/24 <nil> 3",
		"203.0.113.0/25 192.0.2.1 3", "203.0.113.0/24 192.0.2.1 3", "203.0.113.0/24 <nil> 2"}
	for _, d := range []string{cmp.Diff(wantNames, names), cmp.Diff(wantAddrs, addrs), cmp.Diff(wantRoutes, routes)} {
		if d != "" {
			t.Errorf("-want +got\n%s", d)
		}
	}
}

// Routes that a stack lists more than once, or that belong to the table local,
// are told as the kernel would hold them.
func TestRoutesOnce(t *testing.T) {
	s := twin()
	before := Answer(s, message(unix.RTM_GETROUTE, requestD, 1, make([]byte, 4)), 1)
	for _, dst := range []string{"10.7.0.0/24", "fd00:7::/64", "10.7.0.2/32", "fd00:7::2/128", "ff00::/8"} {
		p := netip.MustParsePrefix(dst)
		s.Routes = append(s.Routes,
			stacks.Route{Dst: p, IfIndex: 2},
			stacks.Route{Dst: p, IfIndex: 2, Src: netip.MustParseAddr(map[bool]string{true: "10.7.0.2", false: "fd00:7::2"}[p.Addr().Is4()])})
	}
	s.Routes = append(s.Routes,
		stacks.Route{Dst: netip.MustParsePrefix("127.0.0.0/8"), IfIndex: 1},
		stacks.Route{Dst: netip.MustParsePrefix("::1/128"), IfIndex: 1},
		stacks.Route{Dst: netip.MustParsePrefix("203.0.113.0/24"), IfIndex: 5},  // is down
		stacks.Route{Dst: netip.MustParsePrefix("203.0.113.0/24"), IfIndex: 77}, // is not there
	)
	after := Answer(s, message(unix.RTM_GETROUTE, requestD, 1, make([]byte, 4)), 1)
	if d := cmp.Diff(decode(t, before), decode(t, after)); d != "" {
		t.Errorf("-before +after\n%s", d)
	}
}

func TestRefusals(t *testing.T) {
	for typ, want := range map[uint16]unix.Errno{
		unix.RTM_NEWLINK: unix.EPERM, unix.RTM_DELLINK: unix.EPERM, unix.RTM_SETLINK: unix.EPERM,
		unix.RTM_NEWADDR: unix.EPERM, unix.RTM_DELADDR: unix.EPERM, unix.RTM_NEWROUTE: unix.EPERM,
		unix.RTM_DELROUTE: unix.EPERM, unix.RTM_NEWRULE: unix.EPERM, unix.RTM_NEWNSID: unix.EPERM,
		unix.RTM_GETQDISC: unix.EOPNOTSUPP, unix.RTM_GETNSID: unix.EOPNOTSUPP, 0x80: unix.EOPNOTSUPP,
	} {
		for _, flags := range []uint16{request1, requestD, requestA} {
			got := Options{ExtAck: true}.Answer(twin(), message(typ, flags, 1, make([]byte, 16)), 1)
			if len(got) != 1 || binary.NativeEndian.Uint16(got[0][4:]) != unix.NLMSG_ERROR ||
				int32(binary.NativeEndian.Uint32(got[0][16:])) != -int32(want) {
				t.Errorf("type %d flags %#x: %x, want %v", typ, flags, got, want)
			}
		}
	}
}

// NETLINK_EXT_ACK adds the kernel's words behind the request.
func TestExtendedErrors(t *testing.T) {
	req := message(unix.RTM_GETNEIGH, request1, 1, make([]byte, 12))
	for _, capAck := range []bool{false, true} {
		got := Options{ExtAck: true, CapAck: capAck}.Answer(twin(), req, 1)[0]
		at := unix.NLMSG_HDRLEN + 4 + len(req)
		if capAck {
			at = unix.NLMSG_HDRLEN + 4 + unix.NLMSG_HDRLEN
		}
		if flags := binary.NativeEndian.Uint16(got[6:]); flags&unix.NLM_F_ACK_TLVS == 0 || flags&unix.NLM_F_CAPPED != 0 != capAck {
			t.Errorf("flags %#x", flags)
		}
		if text := string(got[at+4:]); text != "Network address not specified\x00\x00\x00" {
			t.Errorf("text %q", text)
		}
	}
}

// Large tables come in datagrams that fit a page, and lose nothing.
func TestDatagramSize(t *testing.T) {
	s := twin()
	for i := range 2000 {
		a := netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)})
		s.Interfaces[1].Addrs = append(s.Interfaces[1].Addrs, netip.PrefixFrom(a, 32))
		s.Interfaces = append(s.Interfaces, stacks.Interface{Index: 10 + i, Name: fmt.Sprint("i", i), MTU: 1500})
	}
	for typ, want := range map[uint16]int{unix.RTM_GETLINK: 2006, unix.RTM_GETADDR: 2009} {
		got := Answer(s, message(typ, requestD, 1, make([]byte, 4)), 1)
		n := 0
		for i, d := range got {
			if len(d) > nlmsg.MaxDatagram {
				t.Errorf("datagram of %d bytes", len(d))
			}
			if i < len(got)-1 && len(d) < nlmsg.MaxDatagram/2 {
				t.Errorf("datagram %d of %d has only %d bytes", i, len(got), len(d))
			}
			for _, m := range decode(t, [][]byte{d}) {
				if m.Type == unix.NLMSG_DONE != (i == len(got)-1 && n == want) {
					t.Errorf("message %d of type %d in datagram %d of %d", n, m.Type, i, len(got))
				}
				n++
			}
		}
		if n != want+1 {
			t.Errorf("type %d: %d messages, want %d", typ, n, want+1)
		}
	}
}

// One request cannot make us build without end.
func TestBound(t *testing.T) {
	var req []byte
	one := message(unix.RTM_GETLINK, requestD, 1, make([]byte, 4))
	for range 3000 {
		req = append(req, one...)
	}
	size, busy := 0, 0
	for _, d := range Answer(twin(), req, 1) {
		size += len(d)
		if binary.NativeEndian.Uint16(d[4:]) == unix.NLMSG_ERROR {
			busy++
			if errno := -int32(binary.NativeEndian.Uint32(d[16:])); errno != int32(unix.EBUSY) {
				t.Fatalf("errno %d", errno)
			}
		}
	}
	if busy < 2900 || size > maxDump+3000*64+8192 {
		t.Errorf("%d bytes, %d busy", size, busy)
	}
}

func TestIoctlRefusals(t *testing.T) {
	tests := []struct {
		name string
		cmd  uint32
		dev  string
		want unix.Errno
	}{
		{"set flags", unix.SIOCSIFFLAGS, "tun0", unix.EPERM},
		{"set address", unix.SIOCSIFADDR, "nope", unix.EPERM},
		{"rename", unix.SIOCSIFNAME, "tun0", unix.EPERM},
		{"add route", unix.SIOCADDRT, "", unix.EPERM},
		{"add bridge", 0x89a0, "br0", unix.EPERM},
		{"its namespace", siocgskns, "tun0", unix.EPERM},
		{"ethtool", unix.SIOCETHTOOL, "tun0", unix.EOPNOTSUPP},
		{"ethtool, no device", unix.SIOCETHTOOL, "nope", unix.ENODEV},
		{"wireless name", siocgiwname, "eth1", unix.EOPNOTSUPP},
		{"wireless name, no device", siocgiwname, "nope", unix.ENODEV},
		{"set wireless mode", 0x8b06, "eth1", unix.EPERM},
		{"bond info", 0x8994, "eth1", unix.EOPNOTSUPP},
		{"enslave", 0x8990, "eth1", unix.EPERM},
		{"arp entry", siocgarp, "", unix.ENXIO},
		{"no network command", 0x5401, "tun0", unix.ENOTTY},
		{"multicast count", siocgifcount, "tun0", unix.ENOTTY},
	}
	for _, tt := range tests {
		for _, size := range []int{IfreqLen, IfreqLen32} {
			ifr := make([]byte, size)
			copy(ifr, tt.dev)
			before := slices.Clone(ifr)
			n, errno := Ioctl(twin(), nil, unix.AF_INET, tt.cmd, ifr)
			if errno != tt.want || n != 0 || !slices.Equal(before, ifr) {
				t.Errorf("%s: %d, %v, want %v", tt.name, n, errno, tt.want)
			}
		}
	}
	if _, errno := Ioctl(twin(), nil, unix.AF_INET, unix.SIOCGIFMTU, make([]byte, 31)); errno != unix.EFAULT {
		t.Errorf("short ifreq: %v", errno)
	}
}

// Programs of 32 bits see smaller entries with the same contents.
func TestIoctl32(t *testing.T) {
	for _, cmd := range []uint32{unix.SIOCGIFADDR, unix.SIOCGIFMTU, unix.SIOCGIFHWADDR, unix.SIOCGIFMAP} {
		long, short := make([]byte, IfreqLen), make([]byte, IfreqLen32)
		copy(long, "eth1")
		copy(short, "eth1")
		n, errno := Ioctl(twin(), nil, unix.AF_INET, cmd, short)
		if _, e := Ioctl(twin(), nil, unix.AF_INET, cmd, long); errno != 0 || e != 0 || n != IfreqLen32 || !slices.Equal(long[:IfreqLen32], short) {
			t.Errorf("command %#x: %d, %v, %v\n%x\n%x", cmd, n, errno, e, long, short)
		}
	}
	if got := Ifconf(twin(), IfreqLen32, 100); len(got) != 96 || string(got[32:36]) != "tun0" {
		t.Errorf("%q", got)
	}
}

func FuzzAnswer(f *testing.F) {
	for _, typ := range []uint16{unix.RTM_GETLINK, unix.RTM_GETADDR, unix.RTM_GETROUTE, unix.RTM_GETNEIGH, unix.RTM_GETRULE} {
		f.Add(message(typ, requestD, 1, make([]byte, 16)), true)
		f.Add(message(typ, requestA, 1, []byte{unix.AF_INET}, make([]byte, 11), attribute(1, []byte{10, 7, 0, 9})), false)
		f.Add(message(typ, requestA, 1, []byte{unix.AF_INET6}, make([]byte, 11), attribute(1, make([]byte, 16))), false)
	}
	s := twin()
	f.Fuzz(func(t *testing.T, req []byte, on bool) {
		size := 0
		for _, d := range (Options{ExtAck: on, CapAck: on, Strict: on}).Answer(s, req, 1) {
			size += len(d)
			if _, err := syscall.ParseNetlinkMessage(d); err != nil {
				t.Errorf("%x: %v", d, err)
			}
		}
		// The kernel's answer to a single GETLINK is large; 16 bytes ask for it.
		if size > maxDump+16384+len(req)*64 {
			t.Errorf("%d bytes answer %d", size, len(req))
		}
	})
}

func FuzzIoctl(f *testing.F) {
	f.Add(uint32(unix.SIOCGIFADDR), make([]byte, IfreqLen))
	f.Fuzz(func(t *testing.T, cmd uint32, ifr []byte) {
		size := len(ifr)
		if n, errno := Ioctl(twin(), nil, unix.AF_INET, cmd, ifr); n > size || (errno == 0) != (n > 0) {
			t.Errorf("%d of %d bytes, %v", n, size, errno)
		}
	})
}

// FuzzServe: whatever is asked, the State that comes of it is one that a stack can
// have, and the groups can be told of it.
func FuzzServe(f *testing.F) {
	f.Add(addrReq(unix.RTM_NEWADDR, add, 2, "10.1.0.2/24"))
	f.Add(addrReq(unix.RTM_DELADDR, plain, 2, "10.7.0.2/24"))
	f.Add(routeReq(unix.RTM_NEWROUTE, add, "10.2.0.0/16", hop{via: "10.7.0.1", metric: 3}))
	f.Add(routeReq(unix.RTM_NEWROUTE, replace, "::/0", hop{oif: 2}))
	f.Add(routeReq(unix.RTM_DELROUTE, plain, "0.0.0.0/0", hop{}))
	f.Add(routeReq(unix.RTM_NEWROUTE, add, "10.2.0.0/16", hop{kind: unix.RTN_BLACKHOLE, table: 100}))
	f.Add(routeReq(unix.RTM_NEWROUTE, appended, "fd02::/64", hop{oif: 2, mtu: 1300, flags: unix.RTNH_F_ONLINK}))
	f.Add(down(2))
	f.Add(mtu(2, 1200))
	f.Add(addrWith(unix.RTM_NEWADDR, replace, 2, "10.1.0.2/24", extra{peer: "10.1.0.3", label: "tun0:1", brd: "10.1.0.9", metric: 7, valid: 9, preferred: 3}))
	f.Add(addrWith(unix.RTM_NEWADDR, replace, 2, "fd01::2/64", extra{peer: "fd01::3", flags: noPrefixRoute, metric: 7, valid: 9}))
	rule := func(typ, flags uint16, hdr []byte, attrs ...[]byte) []byte {
		return message(typ, flags, 1, append([][]byte{hdr}, attrs...)...)
	}
	f.Add(rule(unix.RTM_NEWRULE, add, []byte{2, 8, 8, 0, 100, 0, 0, 1, 2, 0, 0, 0}, attribute(unix.FRA_DST, []byte{10, 0, 0, 0}), attribute(unix.FRA_SRC, []byte{10, 7, 0, 0}),
		attribute(unix.FRA_IIFNAME, []byte("lo\x00")), attribute(unix.FRA_FWMARK, u32(7)), attribute(fraUIDRange, make([]byte, 8)), attribute(fraDPortRange, []byte{1, 0, 2, 0})))
	f.Add(rule(unix.RTM_NEWRULE, add, []byte{10, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0}, attribute(unix.FRA_GOTO, u32(40000)), attribute(unix.FRA_PRIORITY, u32(9))))
	f.Add(rule(unix.RTM_DELRULE, plain, []byte{2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, attribute(unix.FRA_PRIORITY, u32(32766))))
	f.Add(neighReq(unix.RTM_NEWNEIGH, add, 3, "192.0.2.9", "02:00:00:00:00:77", unix.NUD_PERMANENT, unix.NTF_ROUTER))
	f.Add(neighReq(unix.RTM_DELNEIGH, plain, 2, "fd07::9", "-", 0, 0))
	f.Fuzz(func(t *testing.T, req []byte) {
		s := twin()
		s.Neighbours = []stacks.Neighbour{{IfIndex: 2, Addr: netip.MustParseAddr("fd07::9"), State: unix.NUD_PERMANENT}}
		Options{ExtAck: true}.Serve(s, func(next stacks.State, _ Origin) error {
			for _, ifc := range next.Interfaces {
				if ifc.Name == "" || len(ifc.Name) >= unix.IFNAMSIZ || ifc.MTU < 0 {
					t.Fatalf("interface %+v", ifc)
				}
				for _, p := range ifc.Addrs {
					if !p.IsValid() {
						t.Fatalf("address %v", p)
					}
				}
			}
			for _, r := range next.Routes {
				if !r.Dst.IsValid() || r.Dst != r.Dst.Masked() || byIndex(next, r.IfIndex) == nil && r.Refuses() == 0 {
					t.Fatalf("route %+v", r)
				}
			}
			for _, r := range next.Policy() {
				if r.Src.Bits() > 0 && (r.Family == unix.AF_INET) != r.Src.Addr().Is4() || r.Dst.Bits() > 0 && (r.Family == unix.AF_INET) != r.Dst.Addr().Is4() {
					t.Fatalf("rule %+v", r)
				}
			}
			for _, n := range next.Neighbours {
				if !n.Addr.IsValid() || byIndex(next, n.IfIndex) == nil {
					t.Fatalf("neighbour %+v", n)
				}
			}
			Changes(s, next, Origin{})
			for _, dst := range []string{"10.7.0.9", "fd07::9"} {
				_, _ = lookup(next, stacks.Flow{Dst: netip.MustParseAddr(dst), Mark: 7, Proto: 6, DPort: 1}, 0)
			}
			s = next
			return nil
		}, req, 1)
	})
}

// TestCounters: they stand where struct rtnl_link_stats64 and its older form have
// them.
func TestCounters(t *testing.T) {
	s := twin()
	s.Interfaces[1].Counters = stacks.Counters{RxPackets: 1, TxPackets: 2, RxBytes: 3, TxBytes: 1 << 40, RxDropped: 5, TxDropped: 6}
	req := message(unix.RTM_GETLINK, request1, 1, []byte{0, 0, 0, 0}, u32(2), u32(0), u32(0))
	m := decode(t, Answer(s, req, 1))[0]
	var want64, want32 []byte
	for _, v := range []uint64{1, 2, 3, 1 << 40, 0, 0, 5, 6} {
		want64 = binary.NativeEndian.AppendUint64(want64, v)
		want32 = binary.NativeEndian.AppendUint32(want32, uint32(v))
	}
	for typ, want := range map[uint16]string{
		unix.IFLA_STATS64: fmt.Sprintf("%x", append(want64, make([]byte, stats64Len-len(want64))...)),
		unix.IFLA_STATS:   fmt.Sprintf("%x", append(want32, make([]byte, statsLen-len(want32))...)),
	} {
		if got := m.Attrs[typ]; got != want {
			t.Errorf("attribute %d: got %s, want %s", typ, got, want)
		}
	}
}

// FuzzInetIoctl: the same of the structures that AF_INET and AF_INET6 sockets take.
func FuzzInetIoctl(f *testing.F) {
	f.Add(make([]byte, RtentryLen), "tun0:1", true)
	f.Fuzz(func(t *testing.T, b []byte, device string, del bool) {
		s := twin()
		set := func(next stacks.State, _ Origin) error {
			Changes(s, next, Origin{})
			Expire(next, time.Now())
			s = next
			return nil
		}
		RouteIoctl(s, set, del, b, device)
		Route6Ioctl(s, set, del, b)
		Addr6Ioctl(s, set, del, b)
		if len(b) >= IfreqLen {
			for _, cmd := range []uint32{unix.SIOCSIFADDR, unix.SIOCSIFNETMASK, unix.SIOCSIFBRDADDR, unix.SIOCSIFDSTADDR, unix.SIOCSIFFLAGS, unix.SIOCSIFNAME, unix.SIOCSIFMTU} {
				Ioctl(s, set, unix.AF_INET, cmd, slices.Clone(b[:IfreqLen]))
			}
			Ethtool(s, b[:IfreqLen], b[:EthtoolLen])
		}
	})
}
