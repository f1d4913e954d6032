// SPDX-License-Identifier: Apache-2.0

// A LAN on which hosts are told their configuration: dnsmasq behind a TAP of the host.

package viewtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A LAN is a namespace with dnsmasq, one cable from the host's tap0, which the ordinary
// user may open.
//
//	host: tap0 --- br0 --- up0 ------ lan0 (10.66.0.1/24, fd66::1/64) LAN
type LAN struct {
	*NS
	w    *World
	dir  string
	cmd  *Cmd
	runs int
}

// LAN makes the network. Nobody serves on it yet.
func (w *World) LAN(t testing.TB) *LAN {
	t.Helper()
	n, err := newNS("lan")
	if err != nil {
		t.Fatal(err)
	}
	l := &LAN{NS: n, w: w, dir: t.TempDir()}
	t.Cleanup(func() {
		l.Silence()
		n.Close()
	})
	h := w.Host
	if err := errors.Join(
		n.quiet(), h.openTUN(w.dir),
		n.Sysctl("net.ipv6.conf.all.forwarding=1"),
		h.ip("link add up0 type veth peer name lan0 netns "+n.Path(), fmt.Sprintf("tuntap add dev tap0 mode tap user %d", UID),
			"link add br0 type bridge", "link set tap0 master br0", "link set up0 master br0"),
		h.Sysctl("net.ipv6.conf.br0.disable_ipv6=1", "net.ipv6.conf.tap0.disable_ipv6=1", "net.ipv6.conf.up0.disable_ipv6=1"),
		h.ip("link set up0 up", "link set tap0 up", "link set br0 up"),
		n.ip("addr add 10.66.0.1/24 dev lan0", "addr add fd66::1/64 dev lan0 nodad", "link set lan0 up"),
	); err != nil {
		t.Fatalf("a network with a server: %v", err)
	}
	Eventually(t, 10*time.Second, func() error { // which dnsmasq binds, and sends advertisements from
		if out := l.MustRun(t, "ip", "-6", "-o", "addr", "show", "dev", "lan0", "scope", "link"); !strings.Contains(out, "fe80:") || strings.Contains(out, "tentative") {
			return fmt.Errorf("lan0 has no link-local address: %s", out)
		}
		return nil
	})
	return l
}

// IP runs commands of ip(8) on the LAN.
func (l *LAN) IP(t testing.TB, lines ...string) {
	t.Helper()
	if err := l.ip(lines...); err != nil {
		t.Fatal(err)
	}
}

// Serve runs dnsmasq with arguments, instead of the one that ran. Leases are kept.
func (l *LAN) Serve(t testing.TB, args ...string) {
	t.Helper()
	l.Silence()
	l.runs++
	l.cmd = l.Command(l.w.alive, append([]string{"dnsmasq", "-k", "--conf-file=/dev/null", "--user=root", "--group=root", "--pid-file",
		"--no-resolv", "--no-hosts", "--interface=lan0", "--bind-interfaces", "--log-dhcp", "--log-queries", "--log-facility=" + l.log(), "--no-ping",
		"--dhcp-leasefile=" + filepath.Join(l.dir, "leases"), "--local=/lan.test/", "--domain=lan.test",
		"--host-record=www.lan.test,10.66.0.1"}, args...)...)
	if err := l.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	Eventually(t, 10*time.Second, func() error {
		if !strings.Contains(l.Log(), "started, version") {
			return fmt.Errorf("dnsmasq does not start: %s%s", l.cmd.Errors(), l.Log())
		}
		return nil
	})
}

func (l *LAN) log() string { return filepath.Join(l.dir, fmt.Sprintf("dnsmasq.%d.log", l.runs)) }

// Silence ends the server.
func (l *LAN) Silence() {
	if l.cmd != nil {
		l.cmd.Stop()
		l.cmd = nil
	}
}

// Forget has the server forget its leases. It must not run.
func (l *LAN) Forget() { _ = os.Remove(filepath.Join(l.dir, "leases")) }

// Log is what the server that was started last says.
func (l *LAN) Log() string {
	b, _ := os.ReadFile(l.log())
	return string(b)
}

// Umrun is `umrun args` of the ordinary user on the host, with the time of ctx.
func (l *LAN) Umrun(ctx context.Context, t testing.TB, args ...string) *Cmd {
	t.Helper()
	return l.w.Host.Command(ctx, append([]string{Binary(t)}, args...)...).AsUser(l.w.home)
}
