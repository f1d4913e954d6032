// SPDX-License-Identifier: Apache-2.0

// The world: host, sink and links, made and unmade around a test.

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

	"golang.org/x/sys/unix"
)

// A World is a host, its sink, and WireGuard peers.
type World struct {
	Host  *NS
	Sink  *NS
	Peers []*Peer

	// Patience is how long an umrun may take; DefaultTimeout to begin with.
	Patience time.Duration

	t     testing.TB
	dir   string // world-readable, removed at the end
	home  string // of the ordinary user
	watch []*watcher
	alive context.Context // alive until the end of the test
}

// New makes a world with one peer, to be unmade when the test ends. It skips
// where the machine cannot have one.
func New(t testing.TB) *World {
	t.Helper()
	Need(t, "root", "tun", "ip", "wg", "wireguard-go")
	dir, err := os.MkdirTemp("", "umrun-lab-")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	w := &World{t: t, dir: dir, home: filepath.Join(dir, "home"), alive: ctx, Patience: DefaultTimeout}
	t.Cleanup(func() {
		cancel()
		w.close()
		os.RemoveAll(dir)
	})
	if err := w.build(); err != nil {
		t.Fatalf("make the laboratory: %v", err)
	}
	w.AddPeer(t)
	return w
}

func (w *World) build() error {
	if err := errors.Join(os.Chmod(w.dir, 0o755), os.Mkdir(w.home, 0o755), os.Chown(w.home, UID, GID)); err != nil {
		return err
	}
	var err error
	if w.Host, err = newNS("host"); err != nil {
		return err
	}
	if w.Sink, err = newNS("sink"); err != nil {
		return err
	}
	for _, n := range []*NS{w.Host, w.Sink} {
		if err := n.quiet(); err != nil {
			return err
		}
	}
	if err := errors.Join(
		w.Host.ip("link add sink0 type veth peer name sink0 netns "+w.Sink.Path()),
		w.Sink.ip("addr add 198.51.100.1/30 dev sink0", "addr add 2001:db8:ffff::1/64 dev sink0 nodad", "link set sink0 up"),
		w.Host.ip("addr add 198.51.100.2/30 dev sink0", "addr add 2001:db8:ffff::2/64 dev sink0 nodad", "link set sink0 up"),
	); err != nil {
		return err
	}
	mac, err := w.Sink.mac("sink0")
	if err != nil {
		return err
	}
	// Permanent neighbours: a stray packet must arrive, not end in ARP.
	if err := w.Host.ip(
		"neigh replace 198.51.100.1 lladdr "+mac+" dev sink0 nud permanent",
		"neigh replace 2001:db8:ffff::1 lladdr "+mac+" dev sink0 nud permanent",
		"route add default via 198.51.100.1", "-6 route add default via 2001:db8:ffff::1",
	); err != nil {
		return err
	}
	// A name server beyond the default route: who asks it leaks.
	if err := w.Host.WriteFile("/etc/resolv.conf", "nameserver 198.51.100.1\nnameserver 2001:db8:ffff::1\n"); err != nil {
		return err
	}
	if err := w.account(w.Host); err != nil {
		return err
	}
	sink, err := w.Sink.watch("sink0", nil)
	if err != nil {
		return err
	}
	w.watch = append(w.watch, sink)
	return nil
}

// account gives the ordinary user a name, which ssh and sshd insist on.
func (w *World) account(n *NS) error {
	accounts, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return err
	}
	return n.WriteFile("/etc/passwd", fmt.Sprintf("%s\nlab:x:%d:%d::%s:/bin/sh\n",
		strings.TrimRight(string(accounts), "\n"), UID, GID, w.home))
}

func (w *World) close() {
	for _, p := range w.Peers {
		p.close()
	}
	for _, x := range w.watch {
		x.close()
	}
	for _, n := range []*NS{w.Host, w.Sink} {
		if n != nil {
			n.Close()
		}
	}
}

// Strays returns how many packets left the host by another way than a tunnel
// since the last ResetStrays, and what the first of them were.
func (w *World) Strays() (n int, what string) {
	var all []string
	for _, x := range w.watch {
		m, s := x.strays()
		if n += m; m > 0 {
			all = append(all, fmt.Sprintf("%s saw %d:\n%s", x.where, m, s))
		}
	}
	return n, strings.Join(all, "\n")
}

// ResetStrays forgets what was counted.
func (w *World) ResetStrays() {
	for _, x := range w.watch {
		x.reset()
	}
}

// NoStrays fails the test if anything left the host beside the tunnel.
func (w *World) NoStrays(t testing.TB) {
	t.Helper()
	if n, what := w.Strays(); n > 0 {
		t.Errorf("%d packets outside of the tunnel:\n%s", n, what)
	}
}

// Dir is a directory that everyone may read, removed with the world.
func (w *World) Dir() string { return w.dir }

// Home is the home directory of the ordinary user.
func (w *World) Home() string { return w.home }

// File writes a file that the ordinary user owns and nobody else may read.
func (w *World) File(t testing.TB, name, content string) string {
	t.Helper()
	f, err := os.CreateTemp(w.dir, "*-"+name)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString(content)
	if err := errors.Join(err, f.Chmod(0o600), f.Chown(UID, GID), f.Close()); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// HostCmd prepares a command on the host, outside of any tunnel.
func (w *World) HostCmd(ctx context.Context, args ...string) *Cmd {
	return w.Host.Command(ctx, args...)
}

// Umrun prepares `umrun -n conf -- prog...` on the host as the ordinary user.
func (w *World) Umrun(t testing.TB, conf string, prog ...string) *Cmd {
	t.Helper()
	return w.UmrunFlags(t, append([]string{"-n", conf, "--"}, prog...)...).AsUser(w.home)
}

// UmrunFlags prepares umrun on the host with arguments as given, as root.
func (w *World) UmrunFlags(t testing.TB, args ...string) *Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(w.alive, w.Patience)
	t.Cleanup(cancel)
	return w.Host.Command(ctx, append([]string{Binary(t)}, args...)...)
}

// ip runs ip(8) commands in the namespace.
func (n *NS) ip(lines ...string) error {
	for _, l := range lines {
		r := n.Command(context.Background(), append([]string{"ip"}, strings.Fields(l)...)...).Result()
		if r.Status != 0 {
			return fmt.Errorf("in %s: %v", n.Name, r)
		}
	}
	return nil
}

// quiet sets a new namespace up: loopback, no duplicate address detection, no
// router solicitations, no rate limit of ICMP errors, ping for everyone. (Limiting
// to nothing would take away what unreachable routes have saved up to send theirs.)
func (n *NS) quiet() error {
	return errors.Join(
		n.Sysctl("net.ipv6.conf.default.accept_dad=0", "net.ipv6.conf.all.accept_dad=0",
			"net.ipv6.conf.default.router_solicitations=0", "net.ipv6.conf.default.accept_ra=0",
			"net.ipv4.icmp_ratemask=0", "net.ipv6.icmp.ratelimit=0", "net.ipv4.icmp_msgs_per_sec=1000000",
			"net.ipv4.ping_group_range=0 2147483647"),
		n.ip("link set lo up"))
}

func (n *NS) mac(ifname string) (string, error) {
	var addr []byte
	var err error
	n.Do(func() {
		var fd int
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return
		}
		defer unix.Close(fd)
		addr, err = os.ReadFile("/sys/class/net/" + ifname + "/address")
	})
	return strings.TrimSpace(string(addr)), err
}
