// SPDX-License-Identifier: Apache-2.0

// A host whose interfaces change, and one that has a single family.

package nat_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"umrun/stacks/nat"
)

// neighbourhood is a host next to this one, 192.168.50.2, by the interface "near" of
// this one.
func neighbourhood(t *testing.T) *guest {
	t.Helper()
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
	run(t, "link add near type veth peer name eth0 netns "+strconv.Itoa(g.pid), "link set near up")
	t.Cleanup(func() { ip("link del near") })
	g.run("ip", "link", "set", "eth0", "up")
	g.run("ip", "addr", "add", "192.168.50.2/24", "dev", "eth0")
	return g
}

// TestHostAddressChanges: a port of the view stays mapped when the host gets another
// address, and what it sends next comes from there; new connections do, too.
func TestHostAddressChanges(t *testing.T) {
	needs(t, "nsenter")
	g := neighbourhood(t)
	run(t, "addr add 192.168.50.1/24 dev near")
	var u net.PacketConn
	var ln net.Listener
	var err error
	g.in(func() {
		if u, err = net.ListenPacket("udp4", "192.168.50.2:7"); err == nil {
			ln, err = net.Listen("tcp4", "192.168.50.2:7")
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	defer ln.Close()
	go func() { // ends with the socket
		for b := make([]byte, 100); ; {
			_, from, err := u.ReadFrom(b)
			if err != nil {
				return
			}
			u.WriteTo([]byte(from.String()), from)
		}
	}()
	go func() { // ends with the listener
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(c, c.RemoteAddr())
			c.Close()
		}
	}()
	v := open(t, nat.Options{})
	c := v.dialUDP("192.168.50.2:7", 0)
	ask := func() (addr, port string) {
		t.Helper()
		if _, err := c.Write([]byte("who?")); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 100)
		n, err := c.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		addr, port, _ = net.SplitHostPort(string(b[:n]))
		return addr, port
	}
	addr, port := ask()
	if addr != "192.168.50.1" {
		t.Errorf("the neighbour sees %s", addr)
	}
	run(t, "addr del 192.168.50.1/24 dev near", "addr add 192.168.50.9/24 dev near")
	if again, same := ask(); again != "192.168.50.9" || same != port {
		t.Errorf("with the host's new address the neighbour sees %s port %s, not 192.168.50.9 port %s", again, same, port)
	}
	tcp := v.mustDial("192.168.50.2:7")
	defer tcp.Close()
	b := make([]byte, 100)
	if n, err := tcp.Read(b); err != nil || !strings.HasPrefix(string(b[:n]), "192.168.50.9:") {
		t.Errorf("a new connection comes from %q, %v", b[:n], err)
	}
}

// TestOneFamily: where the host has no way by IPv6, a program hears of it at once and
// takes IPv4.
func TestOneFamily(t *testing.T) {
	needs(t, "nsenter")
	v := open(t, nat.Options{})
	if _, err := v.dial("[2001:db8:77::1]:80"); err == nil || !strings.Contains(err.Error(), "unreachable") {
		t.Errorf("a connection to a network that the host cannot reach: %v", err)
	}
	run(t, "-6 addr del 2001:db8::2/64 dev ext0")
	t.Cleanup(func() { run(t, "addr add 2001:db8::2/64 dev ext0 nodad") })
	if _, err := v.dial("[2001:db8::9]:80"); err == nil || !strings.Contains(err.Error(), "unreachable") {
		t.Errorf("the host has no IPv6: %v", err)
	}
	c := v.mustDial(serve(t, "198.51.100.2:0", echo))
	c.Close()
	if _, err := v.link.Publish("tcp", netip.MustParseAddrPort("[2001:db8::2]:0"), netip.MustParseAddrPort("[fd00:2::15]:80")); !errors.Is(err, unix.EADDRNOTAVAIL) {
		t.Errorf("publish at an address that is gone: %v", err)
	}
}
