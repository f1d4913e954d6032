// SPDX-License-Identifier: Apache-2.0

// The kernel as oracle: a namespace whose configuration is written down as a
// State.
//
//	lo     127.0.0.1/8, ::1/128
//	tun0   10.7.0.2/24, 10.7.0.3/24, fd00:7::2/64      default routes, MTU 1420
//	eth1   192.0.2.5/24, fe80::ff:fe00:1/64            (veth) ---- eth2, no IPv4
//	off    198.51.100.1/24                             (veth) down

package rtnetlink

import (
	"bytes"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"umrun/netmod/nlmsg/nstest"
	"umrun/stacks"
)

// TestMain runs the tests in a fresh network namespace.
func TestMain(m *testing.M) { os.Exit(nstest.Run(m)) }

// twin is the configuration that oracle gives the kernel.
func twin() stacks.State {
	prefixes := func(s ...string) (out []netip.Prefix) {
		for _, p := range s {
			out = append(out, netip.MustParsePrefix(p))
		}
		return out
	}
	mac := func(s string) net.HardwareAddr {
		m, err := net.ParseMAC(s)
		if err != nil {
			panic(err)
		}
		return m
	}
	route := func(dst, gw string, ifc, metric int) stacks.Route {
		r := stacks.Route{Dst: netip.MustParsePrefix(dst), IfIndex: ifc, Metric: metric}
		if gw != "" {
			r.Gateway = netip.MustParseAddr(gw)
		}
		return r
	}
	return stacks.State{
		Tables: []stacks.Table{{Family: unix.AF_INET, ID: 100}, {Family: unix.AF_INET, ID: 1000}, {Family: unix.AF_INET6, ID: 100}},
		Interfaces: []stacks.Interface{
			{Index: 1, Name: "lo", Loop: true, Up: true, MTU: 65536, Addrs: prefixes("127.0.0.1/8", "::1/128")},
			{Index: 2, Name: "tun0", Up: true, MTU: 1420, Addrs: prefixes("10.7.0.2/24", "10.7.0.3/24", "fd00:7::2/64")},
			{Index: 3, Name: "eth1", Type: stacks.LinkEthernet, Up: true, MTU: 1500, MAC: mac("02:00:00:00:00:01"),
				Addrs: prefixes("192.0.2.5/24", "fe80::ff:fe00:1/64")},
			{Index: 4, Name: "eth2", Type: stacks.LinkEthernet, Up: true, MTU: 1500, MAC: mac("02:00:00:00:00:02"),
				Addrs: prefixes("fe80::ff:fe00:2/64")},
			{Index: 5, Name: "off", Type: stacks.LinkEthernet, MTU: 1500, MAC: mac("02:00:00:00:00:03"),
				Addrs: prefixes("198.51.100.1/24")},
			{Index: 6, Name: "off-peer", Type: stacks.LinkEthernet, MTU: 1500, MAC: mac("02:00:00:00:00:04")},
		},
		Routes: []stacks.Route{
			route("0.0.0.0/0", "10.7.0.1", 2, 0),
			route("10.7.0.0/24", "", 2, 0),
			route("192.0.2.0/24", "", 3, 0),
			route("203.0.113.0/24", "", 2, 50),
			route("203.0.113.0/25", "192.0.2.1", 3, 0),
			route("203.0.113.0/24", "192.0.2.1", 3, 20),
			{Dst: netip.MustParsePrefix("10.66.0.0/24"), Type: unix.RTN_BLACKHOLE},
			{Dst: netip.MustParsePrefix("10.66.1.0/24"), Type: unix.RTN_UNREACHABLE},
			{Dst: netip.MustParsePrefix("10.66.2.0/24"), Type: unix.RTN_PROHIBIT, Metric: 7},
			{Dst: netip.MustParsePrefix("10.66.3.0/24"), Type: unix.RTN_THROW},
			{Dst: netip.MustParsePrefix("10.66.4.0/24"), IfIndex: 2, Table: 100},
			{Dst: netip.MustParsePrefix("10.66.4.0/24"), IfIndex: 2, Table: 1000, MTU: 1400},
			{Dst: netip.MustParsePrefix("10.66.5.0/24"), IfIndex: 2, MTU: 1300},
			{Dst: netip.MustParsePrefix("10.66.6.0/24"), IfIndex: 2, Gateway: netip.MustParseAddr("99.9.9.9"), OnLink: true},
			{Dst: netip.MustParsePrefix("fd66::/64"), Type: unix.RTN_BLACKHOLE},
			{Dst: netip.MustParsePrefix("fd66:0:0:1::/64"), Type: unix.RTN_UNREACHABLE},
			{Dst: netip.MustParsePrefix("fd66:0:0:2::/64"), Type: unix.RTN_PROHIBIT, Metric: 7},
			{Dst: netip.MustParsePrefix("fd66:0:0:3::/64"), Type: unix.RTN_THROW},
			{Dst: netip.MustParsePrefix("fd66:0:0:4::/64"), IfIndex: 2, Table: 100},
			{Dst: netip.MustParsePrefix("fd66:0:0:5::/64"), IfIndex: 2, MTU: 1300},
			route("::/0", "", 2, 0),
			route("2001:db8:1::/48", "fd00:7::1", 2, 7),
			route("fd00:7::/64", "", 2, 0),
			route("fe80::/64", "", 3, 0),
			route("fe80::/64", "", 4, 0),
		},
	}
}

// oracle configures the namespace. Tests that call it do not run in parallel.
func oracle(t testing.TB) {
	t.Helper()
	nstest.Need(t)
	if configured != nil {
		return
	}
	if _, err := net.InterfaceByName("tun0"); err == nil { // a fuzzing worker: its parent was here
		configured = os.Stdin
		return
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("ip(8) is not installed")
	}
	ip := func(line string) {
		t.Helper()
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", line, err, out)
		}
	}
	// Quiet IPv6: no duplicate detection, which makes addresses tentative for a
	// while, and no link-local address for tun0.
	write := func(file, value string) {
		t.Helper()
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+file, []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
	write("all/accept_dad", "0")
	write("default/accept_dad", "0")
	write("default/router_solicitations", "0")

	tun, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		t.Skip("no TUN device can be made here: " + err.Error())
	}
	req, err := unix.NewIfreq("tun0")
	if err != nil {
		t.Fatal(err)
	}
	req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(int(tun.Fd()), unix.TUNSETIFF, req); err != nil {
		t.Skip("no TUN device can be made here: " + err.Error())
	}
	configured = tun // its carrier goes with the process
	write("tun0/addr_gen_mode", "1")
	for line := range strings.Lines(`link set lo up
		link set tun0 mtu 1420
		address add 10.7.0.2/24 dev tun0
		address add 10.7.0.3/24 dev tun0
		address add fd00:7::2/64 dev tun0
		link add name eth1 index 3 address 02:00:00:00:00:01 type veth peer name eth2 index 4 address 02:00:00:00:00:02
		link add name off index 5 address 02:00:00:00:00:03 type veth peer name off-peer index 6 address 02:00:00:00:00:04
		address add 192.0.2.5/24 dev eth1
		address add 198.51.100.1/24 dev off
		link set eth1 up
		link set eth2 up
		link set tun0 up
		route add default via 10.7.0.1
		route add 203.0.113.0/24 dev tun0 metric 50
		route add 203.0.113.0/25 via 192.0.2.1
		route add 203.0.113.0/24 via 192.0.2.1 metric 20
		route add blackhole 10.66.0.0/24
		route add unreachable 10.66.1.0/24
		route add prohibit 10.66.2.0/24 metric 7
		route add throw 10.66.3.0/24
		route add 10.66.4.0/24 dev tun0 table 100
		route add 10.66.4.0/24 dev tun0 table 1000 mtu 1400
		route add 10.66.5.0/24 dev tun0 mtu 1300
		route add 10.66.6.0/24 via 99.9.9.9 dev tun0 onlink
		-6 route add blackhole fd66::/64
		-6 route add unreachable fd66:0:0:1::/64
		-6 route add prohibit fd66:0:0:2::/64 metric 7
		-6 route add throw fd66:0:0:3::/64
		-6 route add fd66:0:0:4::/64 dev tun0 table 100
		-6 route add fd66:0:0:5::/64 dev tun0 mtu 1300
		-6 route add default dev tun0
		-6 route add 2001:db8:1::/48 via fd00:7::1 metric 7
	`) {
		if line = strings.TrimSpace(line); line != "" {
			ip(line)
		}
	}
	// Operational state and link-local addresses follow a moment later.
	deadline := time.Now().Add(10 * time.Second)
	for {
		links, _ := exec.Command("ip", "-o", "link").Output()
		addrs, _ := exec.Command("ip", "-o", "-6", "addr").Output()
		if bytes.Count(links, []byte("state UP")) == 2 && bytes.Count(addrs, []byte("fe80::")) == 2 &&
			!bytes.Contains(addrs, []byte("tentative")) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the namespace does not come up:\n%s%s", links, addrs)
		}
		time.Sleep(10 * time.Millisecond) // poll
	}
}

var configured *os.File
