// SPDX-License-Identifier: Apache-2.0

// The kernel as oracle: what it writes into the files of a namespace, and what this
// package writes of the same network.

package procnet

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"umrun/netmod/nlmsg/nstest"
	"umrun/netmod/sockdiag"
	"umrun/stacks"
)

func TestMain(m *testing.M) { os.Exit(nstest.Run(m)) }

// kernel configures the namespace and returns the same as a State.
func kernel(t *testing.T) *Source {
	t.Helper()
	nstest.Need(t)
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("ip(8) is not installed")
	}
	write := func(file, v string) {
		if err := os.WriteFile(file, []byte(v), 0); err != nil {
			t.Fatal(err)
		}
	}
	write("/proc/sys/net/ipv6/conf/default/accept_dad", "0")
	write("/proc/sys/net/ipv6/conf/default/addr_gen_mode", "1") // no link-local address
	for _, l := range strings.Split(`link set lo up
link add eth1 address 02:00:00:00:00:01 type veth peer name eth2 address 02:00:00:00:00:02
link set eth1 up
link set eth2 mtu 1400 up
addr add 10.7.0.2/24 dev eth1
addr add fd00:7::2/64 dev eth1 nodad
addr add fe80::1/64 dev eth2 nodad
route add default via 10.7.0.1
route add 203.0.113.0/24 via 10.7.0.1 metric 50
route add 203.0.113.0/25 dev eth2
route add 203.0.113.7/32 dev eth2
route add unreachable 10.66.1.0/24
route add blackhole 10.66.2.0/24
-6 route add 2001:db8:1::/48 via fd00:7::1 metric 7
-6 route add default via fd00:7::1
neigh add 10.7.0.9 lladdr 02:00:00:00:00:09 dev eth1 nud permanent
neigh add 10.7.0.8 lladdr 02:00:00:00:00:08 dev eth1 nud stale`, "\n") {
		if out, err := exec.Command("ip", strings.Fields(l)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", l, err, out)
		}
	}
	mac := func(s string) net.HardwareAddr { m, _ := net.ParseMAC(s); return m }
	p := netip.MustParsePrefix
	gw4, gw6 := netip.MustParseAddr("10.7.0.1"), netip.MustParseAddr("fd00:7::1")
	index := func(name string) int {
		i, err := net.InterfaceByName(name)
		if err != nil {
			t.Fatal(err)
		}
		return i.Index
	}
	e1, e2 := index("eth1"), index("eth2")
	nodad := func(a string) map[netip.Prefix]stacks.AddrInfo {
		return map[netip.Prefix]stacks.AddrInfo{p(a): {Flags: unix.IFA_F_NODAD}}
	}
	return &Source{Neighbours: func() []stacks.Neighbour {
		return []stacks.Neighbour{{IfIndex: e1, Addr: netip.MustParseAddr("10.7.0.8"), MAC: mac("02:00:00:00:00:08"), State: unix.NUD_STALE}}
	}, State: stacks.State{
		Neighbours: []stacks.Neighbour{{IfIndex: e1, Addr: netip.MustParseAddr("10.7.0.9"), MAC: mac("02:00:00:00:00:09"), State: unix.NUD_PERMANENT}},
		Interfaces: []stacks.Interface{
			{Index: 1, Name: "lo", Loop: true, Up: true, MTU: 65536, Addrs: []netip.Prefix{p("127.0.0.1/8"), p("::1/128")}},
			{Index: e2, Name: "eth2", Type: stacks.LinkEthernet, Up: true, MTU: 1400, MAC: mac("02:00:00:00:00:02"), Addrs: []netip.Prefix{p("fe80::1/64")}, Info: nodad("fe80::1/64")},
			{Index: e1, Name: "eth1", Type: stacks.LinkEthernet, Up: true, MTU: 1500, MAC: mac("02:00:00:00:00:01"), Addrs: []netip.Prefix{p("10.7.0.2/24"), p("fd00:7::2/64")}, Info: nodad("fd00:7::2/64")},
		},
		Routes: []stacks.Route{
			{Dst: p("0.0.0.0/0"), Gateway: gw4, IfIndex: e1},
			{Dst: p("10.7.0.0/24"), IfIndex: e1},
			{Dst: p("203.0.113.0/24"), Gateway: gw4, IfIndex: e1, Metric: 50},
			{Dst: p("203.0.113.0/25"), IfIndex: e2},
			{Dst: p("203.0.113.7/32"), IfIndex: e2},
			{Dst: p("10.66.1.0/24"), Type: unix.RTN_UNREACHABLE},
			{Dst: p("10.66.2.0/24"), Type: unix.RTN_BLACKHOLE},
			{Dst: p("2001:db8:1::/48"), Gateway: gw6, IfIndex: e1, Metric: 7},
			{Dst: p("::/0"), Gateway: gw6, IfIndex: e1},
			{Dst: p("fd00:7::/64"), IfIndex: e1},
			{Dst: p("fe80::/64"), IfIndex: e2},
		},
	}}
}

// lines sorts lines behind a heading, and takes out what nobody reads alike: use
// counts of routes, pointers.
func lines(text string, heading int, blank *regexp.Regexp) []string {
	ls := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	for i := range ls {
		if i >= heading && blank != nil {
			ls[i] = blank.ReplaceAllString(ls[i], "$1*$2")
		}
	}
	slices.Sort(ls[min(heading, len(ls)):])
	return slices.Compact(ls)
}

func TestKernel(t *testing.T) {
	from := kernel(t)
	// Sockets: a listener, a connection, datagram sockets, both families.
	var keep []interface{ Close() error }
	defer func() {
		for _, c := range keep {
			c.Close()
		}
	}()
	var socks []sockdiag.Socket
	add := func(fd uintptr, family, proto, state int) {
		var st unix.Stat_t
		if err := unix.Fstat(int(fd), &st); err != nil {
			t.Fatal(err)
		}
		name := func(sa unix.Sockaddr, _ error) netip.AddrPort {
			switch sa := sa.(type) {
			case *unix.SockaddrInet4:
				return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
			case *unix.SockaddrInet6:
				return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
			}
			return netip.AddrPort{}
		}
		socks = append(socks, sockdiag.Socket{Inode: uint32(st.Ino), UID: uint32(os.Getuid()), Endpoint: stacks.Endpoint{
			Family: family, Proto: proto, State: state, Local: name(unix.Getsockname(int(fd))), Remote: name(unix.Getpeername(int(fd))),
		}})
	}
	for _, at := range []struct {
		host   string
		family int
	}{{"127.0.0.1", unix.AF_INET}, {"::1", unix.AF_INET6}} {
		l, err := net.Listen("tcp", net.JoinHostPort(at.host, "0"))
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		a, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		u, err := net.ListenPacket("udp", net.JoinHostPort(at.host, "0"))
		if err != nil {
			t.Fatal(err)
		}
		v, err := net.Dial("udp", u.LocalAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		keep = append(keep, l, c, a, u, v)
		tcp := func(x *net.TCPConn) {
			rc, _ := x.SyscallConn()
			rc.Control(func(fd uintptr) { add(fd, at.family, unix.IPPROTO_TCP, sockdiag.Established) })
		}
		lc, _ := l.(*net.TCPListener).SyscallConn()
		lc.Control(func(fd uintptr) { add(fd, at.family, unix.IPPROTO_TCP, sockdiag.Listen) })
		tcp(c.(*net.TCPConn))
		tcp(a.(*net.TCPConn))
		for i, x := range []*net.UDPConn{u.(*net.UDPConn), v.(*net.UDPConn)} {
			rc, _ := x.SyscallConn()
			rc.Control(func(fd uintptr) {
				add(fd, at.family, unix.IPPROTO_UDP, []int{sockdiag.Close, sockdiag.Established}[i])
			})
		}
	}
	from.Inet = func() []sockdiag.Socket { return socks }

	sockets := regexp.MustCompile(`^(?: *\d+: )(.*) \d\d:[0-9A-F]{8}( 0{8} .* \d+) \d [0-9a-f]{16}( .*)?$`) // number, timer, pointer
	use := regexp.MustCompile(`^(.{105}[0-9a-f]{8} )[0-9a-f]{8} [0-9a-f]{8}( .*)$`)
	zero := regexp.MustCompile(`^(.*:)[ \d]+()$`)
	tests := []struct {
		file    string
		heading int
		blank   *regexp.Regexp
	}{
		{"dev", 2, zero}, {"route", 1, nil}, {"if_inet6", 0, nil}, {"ipv6_route", 0, use}, {"arp", 1, nil},
		{"tcp", 1, sockets}, {"tcp6", 1, sockets}, {"udp", 1, sockets}, {"udp6", 1, sockets}, {"udplite", 1, nil}, {"udplite6", 1, nil},
		{"raw", 1, nil}, {"raw6", 1, nil}, {"icmp", 1, nil}, {"icmp6", 1, nil}, {"packet", 1, nil},
	}
	for _, tt := range tests {
		t.Run(tt.file, func(t *testing.T) {
			want, err := os.ReadFile("/proc/self/net/" + tt.file)
			if os.IsNotExist(err) {
				t.Skipf("this kernel has no /proc/net/%s", tt.file)
			}
			if err != nil {
				t.Fatal(err)
			}
			got, ok := File(tt.file, from)
			if !ok {
				t.Fatal("there is no such file")
			}
			if d := cmp.Diff(lines(string(want), tt.heading, tt.blank), lines(string(got), tt.heading, tt.blank)); d != "" {
				t.Errorf("-kernel +ours:\n%s", d)
			}
		})
	}
	t.Run("sysfs", func(t *testing.T) {
		// Only a sysfs that is mounted in the namespace shows it.
		dir := t.TempDir()
		if err := unix.Mount("sysfs", dir, "sysfs", 0, ""); err != nil {
			t.Skipf("mount sysfs: %v", err)
		}
		defer unix.Unmount(dir, unix.MNT_DETACH)
		for _, ifc := range []string{"lo", "eth1"} {
			for name := range attributes {
				want, err := os.ReadFile(filepath.Join(dir, "class/net", ifc, name))
				if err != nil {
					t.Errorf("%s of %s: %v", name, ifc, err)
					continue
				}
				got, _, err := Sys(ifc+"/"+name, from)
				w := string(want)
				if name == "iflink" || name == "addr_assign_type" || name == "operstate" && ifc == "lo" { // of veth they are others
					continue
				}
				if err != nil || string(got) != w {
					t.Errorf("%s of %s is %q, %v; the kernel's is %q", name, ifc, got, err, w)
				}
			}
			for name := range statistics {
				if _, err := os.Stat(filepath.Join(dir, "class/net", ifc, "statistics", name)); err != nil {
					t.Error(err)
				}
			}
		}
	})
}

func TestSysErrors(t *testing.T) {
	from := &Source{State: stacks.State{Interfaces: []stacks.Interface{{Index: 1, Name: "lo", Loop: true}}}}
	for path, want := range map[string]error{
		"eth0": unix.ENOENT, "eth0/mtu": unix.ENOENT, "lo/nothing": unix.ENOENT, "lo/mtu/x": unix.ENOTDIR,
		"lo/statistics/x": unix.ENOENT, "lo/statistics/rx_bytes/x": unix.ENOTDIR,
		"": nil, "lo": nil, "lo/": nil, "lo/statistics": nil, "lo/mtu": nil,
	} {
		if _, _, err := Sys(path, from); err != want {
			t.Errorf("%q: %v, want %v", path, err, want)
		}
	}
	if _, ok := File("nothing", from); ok {
		t.Error("there is a file called nothing")
	}
	for _, name := range Names() {
		if b, ok := File(name, from); !ok || len(b) == 0 && name != "if_inet6" {
			t.Errorf("%s is empty", name)
		}
	}
}
