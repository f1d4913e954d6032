// SPDX-License-Identifier: Apache-2.0

// Guests of a Server: kernels in namespaces of their own, configured by udhcpc and
// dhclient and by the kernel's own SLAAC.

package nat_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"umrun/stacks"
	"umrun/stacks/nat"
)

// A packetLink is a stacks.Link of an interface of this namespace, by a packet socket:
// with a virtio_net_hdr, as the kernel's own offloads have it.
type packetLink struct {
	f   *os.File
	mtu int
}

func openPacketLink(t *testing.T, name string) *packetLink {
	t.Helper()
	i, err := net.InterfaceByName(name)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &unix.PacketMreq{Ifindex: int32(i.Index), Type: unix.PACKET_MR_PROMISC}),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: i.Index}))
	if err != nil {
		unix.Close(fd)
		t.Fatal(err)
	}
	return &packetLink{os.NewFile(uintptr(fd), name), i.MTU}
}

func (l *packetLink) Type() stacks.LinkType { return stacks.LinkEthernet }
func (l *packetLink) MTU() int              { return l.mtu }
func (l *packetLink) BatchSize() int        { return 1 }
func (l *packetLink) Offloads() bool        { return true }

func (l *packetLink) Close() error {
	if err := l.f.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

func (l *packetLink) Read(bufs [][]byte, sizes []int) (int, error) {
	for {
		n, err := l.f.Read(bufs[0])
		sizes[0] = n
		switch {
		case err == nil:
			return 1, nil
		case errors.Is(err, os.ErrClosed):
			return 0, net.ErrClosed
		case errors.Is(err, unix.ENETDOWN):
		default:
			return 0, err
		}
	}
}

func (l *packetLink) Write(bufs [][]byte) (int, error) {
	for i, b := range bufs {
		if _, err := l.f.Write(b); errors.Is(err, os.ErrClosed) {
			return i, net.ErrClosed
		}
	}
	return len(bufs), nil
}

// A guest is a namespace on the served network, with an interface eth0.
type guest struct {
	t   *testing.T
	pid int
}

// lan makes n guests on one bridge with the interface "lan" of this namespace:
//
//	guest 0  eth0 --- lan-0 \
//	guest 1  eth0 --- lan-1 -- br0 -- lan-g === lan -- Server
func lan(t *testing.T, n int) (*packetLink, []*guest) {
	t.Helper()
	run(t, "link add br0 type bridge", "link add lan type veth peer name lan-g", "link set lan-g master br0",
		"link set br0 up", "link set lan-g up", "link set lan up")
	t.Cleanup(func() { ip("link del lan", "link del br0") })
	// The host itself says nothing on this network.
	for _, dev := range []string{"lan", "lan-g", "br0"} {
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+dev+"/disable_ipv6", []byte("1"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var guests []*guest
	for i := range n {
		cmd := exec.Command("sleep", "300")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			cmd.Process.Kill()
			cmd.Wait()
		})
		g := &guest{t, cmd.Process.Pid}
		port := fmt.Sprint("lan-", i)
		run(t, fmt.Sprintf("link add %s type veth peer name eth0 netns %d", port, g.pid), "link set "+port+" master br0")
		t.Cleanup(func() { ip("link del " + port) }) // the namespace ends when it likes
		g.run("ip", "link", "set", "lo", "up")
		g.run("ip", "link", "set", "eth0", "address", fmt.Sprintf("02:00:00:00:00:%02x", i+1))
		run(t, "link set "+port+" up")
		g.run("ip", "link", "set", "eth0", "up")
		guests = append(guests, g)
	}
	return openPacketLink(t, "lan"), guests
}

// run runs a command in the guest's namespace and returns its output.
func (g *guest) run(argv ...string) string {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "nsenter", append([]string{"-t", strconv.Itoa(g.pid), "-n", "--"}, argv...)...).CombinedOutput()
	if err != nil {
		g.t.Fatalf("%q in a guest: %v\n%s", argv, err, out)
	}
	return string(out)
}

// in runs f on a thread of the guest's namespace; what f opens stays there.
func (g *guest) in(f func()) {
	g.t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		g.t.Fatal(err)
	}
	defer home.Close()
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", g.pid))
	if err != nil {
		g.t.Fatal(err)
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		g.t.Fatal(err)
	}
	f()
	if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
		panic(err) // this thread is of no more use to anybody
	}
}

// exchange sends a line to an echo server from the guest, and returns what comes back.
func (g *guest) exchange(addr string, size int) error {
	var c net.Conn
	var err error
	g.in(func() { c, err = net.DialTimeout("tcp", addr, 10*time.Second) })
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	go func() { // ends with the connection
		c.Write(make([]byte, size))
		c.(*net.TCPConn).CloseWrite()
	}()
	n, err := io.Copy(io.Discard, c)
	if err == nil && n != int64(size) {
		err = fmt.Errorf("of %d bytes %d came back", size, n)
	}
	return err
}

// udhcpc gets the guest an address, and returns what the script was told. ask are
// further arguments.
func (g *guest) udhcpc(ask ...string) map[string]string {
	g.t.Helper()
	dir := g.t.TempDir()
	script := filepath.Join(dir, "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n[ \"$1\" = bound ] || exit 0\nenv > "+dir+"/env\n"+
		"ip -4 addr flush dev eth0; ip addr add $ip/$mask dev eth0; ip link set eth0 mtu $mtu; ip route add default via $router\n"), 0o755); err != nil {
		g.t.Fatal(err)
	}
	g.run(append([]string{"busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-f", "-t", "3", "-T", "1", "-s", script,
		"-O", "search", "-O", "mtu", "-x", "hostname:guest" + strconv.Itoa(g.pid)}, ask...)...)
	env, err := os.ReadFile(filepath.Join(dir, "env"))
	if err != nil {
		g.t.Fatal(err)
	}
	told := map[string]string{}
	for l := range strings.Lines(string(env)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(l), "="); ok {
			told[k] = v
		}
	}
	return told
}

func TestServe(t *testing.T) {
	needs(t, "busybox", "nsenter")
	link, guests := lan(t, 2)
	s, err := nat.Serve(context.Background(), link, nat.Options{
		MTU: 1400,
		DNS: stacks.DNS{Servers: []netip.AddrPort{netip.MustParseAddrPort("198.51.100.2:53")}, Search: []string{"corp.test", "lab.test"}},
	})
	if err != nil {
		link.Close()
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })

	eventually(t, "the MTU of the advertisement", func() bool {
		return guests[0].run("cat", "/proc/sys/net/ipv6/conf/eth0/mtu") == "1400\n"
	})

	// Two guests get two addresses, the same again when they ask again, and each what
	// the network is like.
	for i, g := range guests {
		want := map[string]string{
			"ip": fmt.Sprint("10.0.2.", 15+i), "subnet": "255.255.255.0", "mask": "24", "router": "10.0.2.2", "dns": "10.0.2.3",
			"domain": "corp.test", "search": "corp.test lab.test", "mtu": "1400", "lease": "3600", "serverid": "10.0.2.2",
		}
		for range 2 {
			told := g.udhcpc()
			for k, v := range want {
				if told[k] != v {
					t.Errorf("guest %d was told %s=%q, not %q", i, k, told[k], v)
				}
			}
		}
	}
	var leases []string
	for _, l := range s.Leases() {
		leases = append(leases, fmt.Sprint(l.MAC, " ", l.Addr, " ", l.Name))
	}
	if want := []string{
		fmt.Sprint("02:00:00:00:00:01 10.0.2.15 guest", guests[0].pid),
		fmt.Sprint("02:00:00:00:00:02 10.0.2.16 guest", guests[1].pid),
	}; fmt.Sprint(leases) != fmt.Sprint(want) {
		t.Errorf("leases: %v, not %v", leases, want)
	}

	// The kernel takes the prefix, the route and the MTU from the advertisement.
	for i, g := range guests {
		want := fmt.Sprintf("fd00:2::ff:fe00:%d/64", i+1)
		eventually(t, "an address by SLAAC", func() bool {
			out := g.run("ip", "-6", "addr", "show", "dev", "eth0", "scope", "global", "-tentative")
			return strings.Contains(out, want)
		})
		if out := g.run("ip", "-6", "route", "show", "default"); !strings.Contains(out, "via fe80::5055:aff:fe00:202 dev eth0") {
			t.Errorf("default route of IPv6: %q", out)
		}
	}

	tcp4 := serve(t, "198.51.100.2:0", echo)
	tcp6 := serve(t, "[2001:db8::2]:0", echo)
	for i, g := range guests {
		for _, a := range []string{tcp4, tcp6} {
			if err := g.exchange(a, 3<<20); err != nil {
				t.Errorf("guest %d to %s: %v", i, a, err)
			}
		}
		for _, to := range []string{"10.0.2.2", "10.0.2.3", "198.51.100.2", "fd00:2::2", "fd00:2::3", "2001:db8::2"} {
			if out := g.run("ping", "-c", "1", "-W", "5", to); !strings.Contains(out, "1 received") {
				t.Errorf("guest %d, ping %s: %s", i, to, out)
			}
		}
	}
	// The guests reach each other without the server, and it does not carry what is
	// meant for its network.
	if out := guests[0].run("ping", "-c", "1", "-W", "5", "10.0.2.16"); !strings.Contains(out, "1 received") {
		t.Error("guests do not reach each other: ", out)
	}
	var refused error
	guests[0].in(func() { _, refused = net.DialTimeout("tcp", "10.0.2.2:1", 5*time.Second) })
	if !errors.Is(refused, unix.ECONNREFUSED) {
		t.Errorf("a closed port of the gateway: %v", refused)
	}
}

// TestServeAddresses holds who gets which address.
func TestServeAddresses(t *testing.T) {
	needs(t, "busybox", "nsenter", "dhclient")
	link, guests := lan(t, 3)
	s, err := nat.Serve(context.Background(), link, nat.Options{Lease: 2 * time.Minute})
	if err != nil {
		link.Close()
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })

	// One has an address of its own choosing, which is never given away.
	guests[0].run("ip", "addr", "add", "10.0.2.15/24", "dev", "eth0")
	guests[0].run("ip", "route", "add", "default", "via", "10.0.2.2")
	guests[0].run("ping", "-c", "1", "-W", "5", "10.0.2.2")
	if got := guests[1].udhcpc()["ip"]; got != "10.0.2.16" {
		t.Errorf("the second guest got %s", got)
	}
	// One that had an address elsewhere may keep it, if it is free...
	if got := guests[2].udhcpc("-r", "10.0.2.99")["ip"]; got != "10.0.2.99" {
		t.Errorf("a guest that asks for 10.0.2.99 got %s", got)
	}
	// ... and gets its own, whatever it asks for, once it has one.
	if got := guests[2].udhcpc("-r", "10.0.2.16")["ip"]; got != "10.0.2.99" {
		t.Errorf("a guest with 10.0.2.99 that asks for that of another got %s", got)
	}
	told := guests[1].udhcpc()
	for k, v := range map[string]string{"ip": "10.0.2.16", "lease": "120", "dns": "", "domain": "", "search": ""} {
		if told[k] != v {
			t.Errorf("without name servers: %s=%q, not %q", k, told[k], v)
		}
	}

	// ISC's client, and a renewal by unicast.
	dir := t.TempDir()
	script := filepath.Join(dir, "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho $reason $new_ip_address $new_routers >> "+dir+"/log\n"+
		"[ \"$reason\" != PREINIT ] && ip addr replace $new_ip_address/24 dev eth0\nexit 0\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	guests[2].run("ip", "addr", "flush", "dev", "eth0", "scope", "global")
	for range 2 { // the second time it asks for what it has: INIT-REBOOT
		guests[2].run("dhclient", "-1", "-v", "-sf", script, "-lf", dir+"/leases", "-pf", dir+"/pid", "-cf", "/dev/null", "eth0")
		guests[2].run("sh", "-c", "until [ -s "+dir+"/pid ]; do sleep 0.02; done; kill $(cat "+dir+"/pid)")
	}
	log, _ := os.ReadFile(dir + "/log")
	if got := string(log); !strings.Contains(got, "BOUND 10.0.2.99 10.0.2.2\n") || !strings.Contains(got, "REBOOT 10.0.2.99 10.0.2.2\n") {
		t.Errorf("dhclient's script was told:\n%s", got)
	}
	// A request for what is another's is refused.
	if err := os.WriteFile(dir+"/leases", []byte("lease {\n  interface \"eth0\";\n  fixed-address 10.0.2.16;\n  expire never;\n}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	out := guests[2].run("dhclient", "-1", "-v", "-sf", script, "-lf", dir+"/leases", "-pf", dir+"/pid", "-cf", "/dev/null", "eth0")
	guests[2].run("sh", "-c", "until [ -s "+dir+"/pid ]; do sleep 0.02; done; kill $(cat "+dir+"/pid)")
	if !strings.Contains(out, "DHCPNAK") || !strings.Contains(out, "bound to 10.0.2.99") {
		t.Errorf("dhclient with another's lease:\n%s", out)
	}
}

// needs skips where a command is missing.
func needs(t *testing.T, commands ...string) {
	t.Helper()
	for _, c := range commands {
		if _, err := exec.LookPath(c); err != nil {
			t.Skipf("needs %s", c)
		}
	}
}

// TestServeAdvertisement reads what the kernel does not tell of an advertisement.
func TestServeAdvertisement(t *testing.T) {
	needs(t, "nsenter")
	link, guests := lan(t, 1)
	var c net.PacketConn
	var err error
	guests[0].in(func() { c, err = net.ListenPacket("ip6:ipv6-icmp", "::") })
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := nat.Serve(context.Background(), link, nat.Options{
		DNS: stacks.DNS{Servers: []netip.AddrPort{netip.MustParseAddrPort("198.51.100.2:53")}, Search: []string{"corp.test", "lab.test", strings.Repeat("x", 64)}},
	})
	if err != nil {
		link.Close()
		t.Fatal(err)
	}
	read := func() header.NDPRouterAdvert {
		t.Helper()
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		for b := make([]byte, 1500); ; {
			n, _, err := c.ReadFrom(b)
			if err != nil {
				t.Fatal(err)
			}
			if b[0] == byte(header.ICMPv6RouterAdvert) {
				return header.NDPRouterAdvert(b[header.ICMPv6HeaderSize:n])
			}
		}
	}
	ra := read()
	if ra.RouterLifetime() != 30*time.Minute || ra.ManagedAddrConfFlag() || ra.OtherConfFlag() {
		t.Errorf("router for %v, managed %v, other %v", ra.RouterLifetime(), ra.ManagedAddrConfFlag(), ra.OtherConfFlag())
	}
	it, err := ra.Options().Iter(true)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for {
		o, done, err := it.Next()
		if err != nil {
			t.Fatal(err)
		}
		if done {
			break
		}
		switch o := o.(type) {
		case header.NDPPrefixInformation:
			got = append(got, fmt.Sprint("prefix ", o.Subnet(), o.OnLinkFlag(), o.AutonomousAddressConfigurationFlag(), o.ValidLifetime(), o.PreferredLifetime()))
		case header.NDPRecursiveDNSServer:
			a, err := o.Addresses()
			got = append(got, fmt.Sprint("dns ", a, o.Lifetime(), err))
		case header.NDPDNSSearchList:
			d, err := o.DomainNames()
			got = append(got, fmt.Sprint("search ", d, o.Lifetime(), err))
		case header.NDPSourceLinkLayerAddressOption:
			got = append(got, fmt.Sprint("from ", o.EthernetAddress()))
		}
	}
	want := []string{"from 52:55:0a:00:02:02", "prefix fd00:2::/64 true true 24h0m0s 4h0m0s",
		"dns [fd00:2::3] 30m0s <nil>", "search [corp.test lab.test] 30m0s <nil>"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("options (-want +got):\n%s", d)
	}
	// When the router goes, the guests hear of it.
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	for end := time.Now().Add(10 * time.Second); read().RouterLifetime() != 0; {
		if time.Now().After(end) {
			t.Fatal("the guests were not told that the router is gone")
		}
	}
}
