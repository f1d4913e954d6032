// SPDX-License-Identifier: Apache-2.0

// A namespace with a TAP or TUN device of the ordinary user, behind which a peer is.

package viewtest

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Addresses of the view on a device, by its kind.
var (
	DeviceIP4 = map[string]netip.Addr{"tap": netip.MustParseAddr("10.77.0.21"), "tun": netip.MustParseAddr("10.77.0.22"), "vde": netip.MustParseAddr("10.77.0.23")}
	DeviceIP6 = map[string]netip.Addr{"tap": netip.MustParseAddr("fd77::21"), "tun": netip.MustParseAddr("fd77::22"), "vde": netip.MustParseAddr("fd77::23")}
)

// Device returns a namespace that has a device of the kind, "tap", "tun" or "vde", which
// the ordinary user may open, and nothing else: a TAP is a port of a bridge to the peer,
// a TUN has the peer behind a router. That of "vde" is a TAP too, for vde_plug.
//
//	tap0 --- br0 --- up0 ------ tap (10.77.0.1, fd77::1) peer
//	vde0 --- br0 --- up0 ------ vde (10.77.0.1, fd77::1) peer
//	tun0 --- routes --- up0 --- tun (10.88.0.1/30) peer
func (p *Peer) Device(t testing.TB, kind string) *NS {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := p.devices[kind]; n != nil {
		return n
	}
	n, err := newNS(kind)
	if err != nil {
		t.Fatal(err)
	}
	if p.devices == nil {
		p.devices = make(map[string]*NS)
	}
	p.devices[kind] = n
	v4, v6 := DeviceIP4[kind], DeviceIP6[kind]
	mode := kind
	if kind == "vde" {
		mode = "tap"
	}
	steps := []error{
		n.quiet(), p.w.account(n), n.openTUN(p.dir),
		p.ip(fmt.Sprintf("link add %s type veth peer name up0 netns %s", kind, n.Path()), "link set "+kind+" up"),
		n.ip(fmt.Sprintf("tuntap add dev %s0 mode %s user %d", kind, mode, UID), "link set "+kind+"0 up", "link set up0 up"),
	}
	switch mode {
	case "tap":
		steps = append(steps,
			n.ip("link add br0 type bridge", "link set "+kind+"0 master br0", "link set up0 master br0", "link set br0 up"),
			p.ip("addr add 10.77.0.1/32 dev "+kind, "addr add fd77::1/128 dev "+kind+" nodad", "route add "+v4.String()+" dev "+kind+" src 10.77.0.1", "-6 route add "+v6.String()+" dev "+kind+" src fd77::1"))
	case "tun":
		steps = append(steps,
			n.Sysctl("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"),
			p.ip("addr add 10.88.0.1/30 dev tun", "addr add fd88::1/64 dev tun nodad",
				"route add "+v4.String()+" via 10.88.0.2 src 10.77.0.1", "-6 route add "+v6.String()+" via fd88::2 src fd77::1"),
			n.ip("addr add 10.88.0.2/30 dev up0", "addr add fd88::2/64 dev up0 nodad",
				"route add default via 10.88.0.1", "-6 route add default via fd88::1",
				"route add "+v4.String()+" dev tun0", "-6 route add "+v6.String()+" dev tun0"))
	}
	steps = append(steps, n.WriteFile("/etc/resolv.conf", "nameserver 10.77.0.1\nnameserver fd77::1\nsearch corp.lab.test\n"))
	if err := errors.Join(steps...); err != nil {
		t.Fatalf("namespace with a device: %v", err)
	}
	return n
}

// openTUN lets everybody open /dev/net/tun in the namespace, as on most machines.
func (n *NS) openTUN(dir string) error {
	node := filepath.Join(dir, n.Name+".node")
	if err := unix.Mknod(node, unix.S_IFCHR, int(unix.Mkdev(10, 200))); err != nil {
		return fmt.Errorf("mknod %s: %w", node, err)
	}
	err := os.Chmod(node, 0o666)
	if err == nil {
		n.Do(func() { err = unix.Mount(node, "/dev/net/tun", "", unix.MS_BIND, "") })
	}
	return err
}
