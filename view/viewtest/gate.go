// SPDX-License-Identifier: Apache-2.0

// A gate: a host between the host and a peer that forwards no packets, with
// proxies on it.

package viewtest

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Where the proxies of a gate listen, for the host.
var (
	GateIP4 = netip.MustParseAddr("192.0.2.65")
	GateIP6 = netip.MustParseAddr("2001:db8:64::1")
)

// What the peer sees of who comes through a gate.
var (
	BeyondIP4 = netip.MustParseAddr("192.0.2.70")
	BeyondIP6 = netip.MustParseAddr("2001:db8:65::2")
)

// Ports of a gate's proxies.
const (
	PortGateSSH   = 22
	PortDante     = 1080
	PortDanteAuth = 1081 // wants GateUser and GatePassword
	PortMicro     = 1082 // microsocks; wants them too
	PortSSHSocks  = 1083 // ssh -D
	PortTiny      = 3128 // tinyproxy
	PortTinyAuth  = 3129 // wants GateUser and GatePassword
	PortTor       = 9050 // tor, which has no network
)

// Who may use the proxies that ask.
const (
	GateUser     = "lab"
	GatePassword = "swordfish"
)

// A Gate is a namespace with a leg on the host's side and one on the peer's.
// Proxies are started by Start.
type Gate struct {
	*NS
	w    *World
	dir  string
	cmds map[int]*Cmd
}

// Gate makes a gate to the peer. What goes from the host to anything but the
// gate's proxies is a stray.
func (p *Peer) Gate(t testing.TB) *Gate {
	t.Helper()
	g := &Gate{w: p.w, dir: filepath.Join(p.w.dir, "gate"), cmds: map[int]*Cmd{}}
	n, err := newNS("gate")
	if err != nil {
		t.Fatal(err)
	}
	g.NS = n
	t.Cleanup(g.close)
	if err := g.build(p); err != nil {
		t.Fatalf("make the gate: %v", err)
	}
	return g
}

func (g *Gate) close() {
	for _, c := range g.cmds {
		c.Stop()
	}
	g.NS.Close()
}

func (g *Gate) build(p *Peer) error {
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		return err
	}
	if err := errors.Join(g.quiet(), g.w.account(g.NS), g.password(),
		g.w.Host.ip("link add gate0 type veth peer name gate0 netns "+g.Path(),
			"addr add 192.0.2.66/30 dev gate0", "addr add 2001:db8:64::2/64 dev gate0 nodad", "link set gate0 up"),
		g.ip("addr add 192.0.2.65/30 dev gate0", "addr add 2001:db8:64::1/64 dev gate0 nodad", "link set gate0 up"),
		p.ip("link add gate1 type veth peer name gate1 netns "+g.Path(),
			"addr add 192.0.2.69/30 dev gate1", "addr add 2001:db8:65::1/64 dev gate1 nodad", "link set gate1 up",
			// Servers on the unspecified address answer from where they are asked.
			"route add 192.0.2.70/32 dev gate1 src 10.77.0.1", "-6 route add 2001:db8:65::2/128 dev gate1 src fd77::1"),
		g.ip("addr add 192.0.2.70/30 dev gate1", "addr add 2001:db8:65::2/64 dev gate1 nodad", "link set gate1 up",
			"route add 10.0.0.0/8 via 192.0.2.69", "-6 route add fd00::/8 via 2001:db8:65::1"),
		g.WriteFile("/etc/resolv.conf", "nameserver 10.77.0.1\nsearch corp.lab.test\n"),
		g.Tmpfs("/run"), // for sshd, and so that nothing of the machine's is met
	); err != nil {
		return err
	}
	ports := []uint16{PortGateSSH, PortDante, PortDanteAuth, PortMicro, PortSSHSocks, PortTiny, PortTinyAuth, PortTor}
	x, err := g.watch("gate0", func(f frame) bool {
		if f.dst.Addr() != GateIP4 && f.dst.Addr() != GateIP6 {
			return false
		}
		switch f.proto {
		case unix.IPPROTO_TCP:
			for _, port := range ports {
				if f.dst.Port() == port {
					return true
				}
			}
		case unix.IPPROTO_UDP:
			return f.dst.Port() != PortDNS // else a port of an association
		}
		return f.unreachable()
	})
	if err != nil {
		return err
	}
	g.w.watch = append(g.w.watch, x)
	return nil
}

// password gives the ordinary user's account GatePassword, as crypt(3) writes it,
// and nobody else any.
func (g *Gate) password() error {
	const hash = "$6$lab$8g1FAFzH4DVSOu8JUKs/zfJgxiV/ysYTaFDHC9dk2.CVco1EkPP9AxMU4haQ6Tf6SXI4IiyYes1LNrSwch3BI/"
	return g.WriteFile("/etc/shadow", "root:*:19000::::::\n"+GateUser+":"+hash+":19000:0:99999:7:::\n")
}

// Start runs the proxy of a port, or skips the test where it is not installed.
func (g *Gate) Start(t testing.TB, port int) {
	t.Helper()
	var args []string
	var err error
	switch port {
	case PortDante, PortDanteAuth:
		args, err = g.dante(port)
	case PortMicro:
		args = words("microsocks -i :: -p 1082 -u " + GateUser + " -P " + GatePassword)
	case PortGateSSH:
		args, err = g.sshd()
	case PortSSHSocks:
		g.Start(t, PortGateSSH)
		args = words("ssh -N -D *:1083 -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o BatchMode=yes -o LogLevel=ERROR -i " + g.SSHKey() + " root@127.0.0.1")
	case PortTiny, PortTinyAuth:
		args, err = g.tinyproxy(port)
	case PortTor:
		torrc := filepath.Join(g.dir, "torrc")
		err = write(torrc, fmt.Sprintf("DataDirectory %s/tor\nSocksPort %s:9050\nSocksTimeout 3\n", g.dir, GateIP4))
		args = []string{"tor", "-f", torrc, "--defaults-torrc", torrc}
	default:
		t.Fatalf("no proxy has the port %d", port)
	}
	if err != nil {
		t.Fatal(err)
	}
	Need(t, args[0])
	if c := g.cmds[port]; c != nil && c.ProcessState == nil {
		return // it runs
	}
	c := g.Command(g.w.alive, args...)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	g.cmds[port] = c
	if err := poll(10*time.Second, func() error {
		conn, err := g.DialContext(g.w.alive, "tcp", netip.AddrPortFrom(GateIP4, uint16(port)).String())
		if err != nil {
			return fmt.Errorf("%s: %w\n%s%s", args[0], err, c.Output(), c.Errors())
		}
		return conn.Close()
	}); err != nil {
		t.Fatal(err)
	}
}

// Stop ends the proxy of a port, and its connections.
func (g *Gate) Stop(port int) {
	c := g.cmds[port]
	if c == nil {
		return
	}
	c.Stop()
	for _, pid := range g.Pids() { // sshd's connections are sessions of their own
		name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if port == PortGateSSH && strings.HasPrefix(string(name), "sshd: ") {
			unix.Kill(pid, unix.SIGKILL) // in a namespace that we made: ours
		}
	}
}

func (g *Gate) dante(port int) ([]string, error) {
	method := "none"
	if port == PortDanteAuth {
		method = "username"
	}
	conf := filepath.Join(g.dir, fmt.Sprintf("danted-%d.conf", port))
	return []string{"danted", "-f", conf, "-p", conf + ".pid"}, write(conf, fmt.Sprintf(`logoutput: stderr
internal: gate0 port = %d
external: gate1
socksmethod: %s
clientmethod: none
user.privileged: root
user.unprivileged: nobody
client pass { from: 0/0 to: 0/0 }
socks block { from: 0/0 to: %v/32 }
socks pass { from: 0/0 to: 0/0 }
`, port, method, OtherIP4))
}

func (g *Gate) tinyproxy(port int) ([]string, error) {
	conf := filepath.Join(g.dir, fmt.Sprintf("tinyproxy-%d.conf", port))
	text := fmt.Sprintf("Port %d\nTimeout 60\nMaxClients 200\nLogLevel Error\nLogFile \"%s.log\"\n", port, conf)
	if port == PortTinyAuth {
		text += fmt.Sprintf("BasicAuth %s %s\n", GateUser, GatePassword)
	}
	return []string{"tinyproxy", "-d", "-c", conf}, write(conf, text)
}

func (g *Gate) sshd() ([]string, error) {
	args := words("/usr/sbin/sshd -D -e -f " + filepath.Join(g.dir, "sshd.conf"))
	if _, err := os.Stat(g.SSHKey()); err == nil {
		return args, nil
	}
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		return args, nil // Start says what is missing
	}
	var err error
	g.Do(func() { err = os.MkdirAll("/run/sshd", 0o755) })
	if err != nil {
		return nil, err
	}
	_, err = SSHDConf(g.dir, PortGateSSH)
	return args, err
}

// SSHKey is a private key that the gate's sshd accepts for root.
func (g *Gate) SSHKey() string { return filepath.Join(g.dir, "id") }

// HostKey is the public half of the gate's host key, as known_hosts has it.
func (g *Gate) HostKey(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(g.dir, "hostkey.pub"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func words(s string) []string { return strings.Fields(s) }
