// SPDX-License-Identifier: Apache-2.0

// VPN clients as providers of a network: unmodified, run by an ordinary user, against
// servers that people run.

package viewtest_test

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"umrun/view/viewtest"
)

// openVPN starts an OpenVPN server beside the peer's own, and returns the configuration
// of a client. dev is tun or tap.
//
//	view --tun0 10.60.0.2--> openvpn --UDP, NAT--> link0 ... peer: openvpn tun60 10.60.0.1
func openVPN(t *testing.T, w *viewtest.World, p *viewtest.Peer, dev string, port int) string {
	t.Helper()
	dir := filepath.Dir(p.CA())
	net := map[string]string{"tun": "60", "tap": "61"}[dev]
	conf := filepath.Join(dir, "openvpn-"+dev)
	key, err := os.ReadFile(filepath.Join(dir, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	cert, err := os.ReadFile(p.CA())
	if err != nil {
		t.Fatal(err)
	}
	// One certificate is authority, server and client: the peer's.
	pems := fmt.Sprintf("<ca>\n%s</ca>\n<cert>\n%s</cert>\n<key>\n%s</key>\n", cert, cert, key)
	server := fmt.Sprintf("port %d\nproto udp\ndev %s%s\ndev-type %s\ntopology subnet\nserver 10.%s.0.0 255.255.255.0\nserver-ipv6 fd%s::/64\n", port, dev, net, dev, net, net) +
		"dh none\nduplicate-cn\nkeepalive 1 10\npush \"redirect-gateway def1\"\npush \"route-ipv6 fd77::/64\"\npush \"dhcp-option DNS 10.77.0.1\"\npush \"dhcp-option DOMAIN corp.lab.test\"\nverb 3\n" + pems
	if err := os.WriteFile(conf, []byte(server), 0o600); err != nil {
		t.Fatal(err)
	}
	c := p.Cmd(t.Context(), "openvpn", "--config", conf)
	start(t, c)
	t.Cleanup(c.Stop)
	viewtest.Eventually(t, 20*time.Second, func() error {
		if !strings.Contains(c.Output(), "Initialization Sequence Completed") {
			return fmt.Errorf("the server says %s%s", c.Output(), c.Errors())
		}
		return nil
	})
	// What a distribution's script does by resolvconf(8).
	up := w.File(t, "up", `#!/bin/sh
for o in "$foreign_option_1" "$foreign_option_2" "$foreign_option_3"; do
	set -- $o
	case "$2" in
	DNS) echo "nameserver $3" ;;
	DOMAIN) echo "search $3" ;;
	esac
done >/etc/resolv.conf
`)
	if err := os.Chmod(up, 0o755); err != nil {
		t.Fatal(err)
	}
	host, _, _ := strings.Cut(p.Endpoint, ":")
	return w.File(t, "client-"+dev+".ovpn", fmt.Sprintf("client\nremote %s %d\nproto udp\ndev %s\nnobind\nscript-security 2\nup %s\nverb 3\n", host, port, dev, up)+pems)
}

// openConnect starts an AnyConnect server beside the peer's own, and returns the command of a
// client, in which --script has no argument yet, and a script.
//
//	view --tun0 10.62.0.x--> openconnect --TLS, DTLS, NAT--> link0 ... peer: ocserv 10.62.0.1
func openConnect(t *testing.T, w *viewtest.World, p *viewtest.Peer) (command, script string) {
	t.Helper()
	dir := filepath.Dir(p.CA())
	users, conf := filepath.Join(dir, "ocpasswd"), filepath.Join(dir, "ocserv.conf")
	add := exec.CommandContext(t.Context(), "ocpasswd", "-c", users, "lab")
	add.Stdin = strings.NewReader("secret\nsecret\n")
	if out, err := add.CombinedOutput(); err != nil {
		t.Fatalf("ocpasswd: %v: %s", err, out)
	}
	server := fmt.Sprintf(`auth = "plain[passwd=%[4]s]"
tcp-port = %[1]d
udp-port = %[1]d
socket-file = %[2]s/ocserv.socket
pid-file = %[2]s/ocserv.pid
server-cert = %[3]s
server-key = %[2]s/key.pem
run-as-user = root
run-as-group = root
isolate-workers = false
use-occtl = false
device = vpns
predictable-ips = true
ipv4-network = 10.62.0.0/24
ipv6-network = fd62::/64
route = 10.77.0.0/24
route = fd77::/64
dns = 10.77.0.1
default-domain = corp.lab.test
cisco-client-compat = true
`, viewtest.PortTLS, dir, p.CA(), users)
	if err := os.WriteFile(conf, []byte(server), 0o600); err != nil {
		t.Fatal(err)
	}
	c := p.Cmd(t.Context(), "ocserv", "--foreground", "--debug", "1", "--config", conf)
	start(t, c)
	t.Cleanup(c.Stop)
	viewtest.Eventually(t, 20*time.Second, func() error {
		if !strings.Contains(c.Errors(), "listening (UDP) on [::]") {
			return fmt.Errorf("the server says %s%s", c.Output(), c.Errors())
		}
		return nil
	})
	b, err := os.ReadFile(p.CA())
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(b)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	pin := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	// As docs/providers.md has it: Debian's script wants a writable /run/vpnc to change name servers.
	script = w.File(t, "configure", `#!/bin/sh
(unset INTERNAL_IP4_DNS; /usr/share/vpnc-scripts/vpnc-script)
if [ "$reason" = connect ] && [ -n "$INTERNAL_IP4_DNS" ]; then
	{
		for server in $INTERNAL_IP4_DNS; do echo "nameserver $server"; done
		echo "search $CISCO_DEF_DOMAIN"
	} >/etc/resolv.conf
fi
`)
	if err := os.Chmod(script, 0o755); err != nil {
		t.Fatal(err)
	}
	host, _, _ := strings.Cut(p.Endpoint, ":")
	// Empty variables, which say that there is no proxy, are one without a name to libproxy.
	return fmt.Sprintf("unset http_proxy https_proxy; exec openconnect --non-inter -u lab --passwd-on-stdin --servercert pin-sha256:%s --script https://%s:%d <%s",
		base64.StdEncoding.EncodeToString(pin[:]), host, viewtest.PortTLS, w.File(t, "password", "secret\n")), script
}

// TestIntegrationOpenConnect: Debian's openconnect, with the script that Debian has for it, brings
// a view its network.
func TestIntegrationOpenConnect(t *testing.T) {
	viewtest.Need(t, "root", "tun", "openconnect", "ocserv", "curl", "ip")
	w := viewtest.New(t)
	p := w.Peers[0]
	command, script := openConnect(t, w, p)
	said := filepath.Join(w.Home(), "said")
	for _, run := range []struct {
		name  string
		flags []string
		names string // what resolves
	}{
		{"names too", []string{"-n", "vpn=tun-provider:" + strings.Replace(command, "--script", "--script "+script, 1)}, "intra"},
		{"Debian's script", []string{"--dns", "10.77.0.1", "-n", "vpn=tun-provider:" + strings.Replace(command, "--script", "", 1)}, viewtest.NameWeb},
	} {
		t.Run(run.name, func(t *testing.T) {
			w.ResetStrays()
			r := w.UmrunFlags(t, append(run.flags, "--log", said, "--", "sh", "-c", fmt.Sprintf(
				"curl -sS -m 20 http://%s/big.bin | sha256sum; curl -sS telnet://10.77.0.1:%d </dev/null; curl -sS 'telnet://[fd77::1]:%[2]d' </dev/null; ip -br addr show tun0; getent ahostsv4 %[3]s",
				viewtest.NameWeb, viewtest.PortWho, run.names))...).AsUser(w.Home()).Result()
			for _, want := range []string{viewtest.BigSum() + "  -\n", "\n10.62.0.", "\nfd62::", "\ntun0", "\n10.77.0.1 "} {
				if r.Status != 0 || !strings.Contains(r.Stdout, want) {
					t.Errorf("it does not say %q: %v", want, r)
				}
			}
			log, err := os.ReadFile(said)
			if err != nil || !strings.Contains(string(log), "Established DTLS connection") {
				t.Errorf("openconnect has no DTLS (%v): %s", err, log)
			}
			if left := running(w, "openconnect"); len(left) > 0 {
				t.Errorf("processes %v are left", left)
			}
			w.NoStrays(t)
		})
	}
}

// running lists the host's processes of a name.
func running(w *viewtest.World, name string) (pids []int) {
	for _, pid := range w.Host.Pids() {
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err == nil && strings.TrimSpace(string(b)) == name {
			pids = append(pids, pid)
		}
	}
	return pids
}

// TestIntegrationOpenVPN: Debian's openvpn brings a view its network.
func TestIntegrationOpenVPN(t *testing.T) {
	viewtest.Need(t, "root", "tun", "openvpn", "curl", "/usr/bin/python3", "ip", "dig")
	w := viewtest.New(t)
	p := w.Peers[0]
	ovpn := openVPN(t, w, p, "tun", 51821)
	spec := "vpn=tun-provider:exec openvpn --config " + ovpn

	devices := func() (names []string) {
		for _, line := range strings.Split(w.Host.MustRun(t, "ip", "-br", "link"), "\n") {
			name, _, _ := strings.Cut(line, " ")
			names = append(names, name)
		}
		return names
	}
	before := devices()
	check := func(name string, want func(r viewtest.Result) error, args ...string) {
		t.Run(name, func(t *testing.T) {
			w.ResetStrays()
			r := w.Umrun(t, spec, args...).Result()
			if err := want(r); err != nil {
				t.Errorf("%v: %v", err, r)
			}
			if d := cmp.Diff(before, devices()); d != "" {
				t.Errorf("devices of the host (-before +now):\n%s", d)
			}
			if left := running(w, "openvpn"); len(left) > 0 {
				t.Errorf("processes %v are left", left)
			}
			w.NoStrays(t)
		})
	}
	says := func(want ...string) func(viewtest.Result) error {
		return func(r viewtest.Result) error {
			for _, s := range want {
				if r.Status != 0 || r.Stderr != "" || !strings.Contains(r.Stdout, s) {
					return fmt.Errorf("it does not say %q, quietly", s)
				}
			}
			return nil
		}
	}
	check("interface", says("inet 10.60.0.2/24 ", "inet6 fd60::1000/64 ", "0.0.0.0/1 via 10.60.0.1 dev tun0", "fd77::/64", "10.77.0.1 via 10.60.0.1 dev tun0"),
		"sh", "-c", "ip addr show dev tun0; ip route; ip -6 route; ip route get 10.77.0.1")
	const fetch = "curl -sS -m 20 "
	who := fmt.Sprintf("curl -sS telnet://10.77.0.1:%d </dev/null; curl -sS 'telnet://[fd77::1]:%[1]d' </dev/null", viewtest.PortWho)
	check("data", says(viewtest.BigSum()+"  -\n", "10.60.0.", "fd60::10"),
		"sh", "-c", fetch+"http://10.77.0.1/big.bin | sha256sum; "+who)
	check("names", says("10.77.0.1"), "sh", "-c", fetch+"http://"+viewtest.NameWeb+"/ -o /dev/null -w '%{remote_ip}\n' -4")
	check("search domain", says("10.77.0.1"), "sh", "-c", "getent ahostsv4 intra")

	// The same in the view itself, by the interface that it has: -m dev:tun.
	t.Run("in the view", func(t *testing.T) {
		w.ResetStrays()
		r := w.UmrunFlags(t, "-n", "nat", "-m", "dev:tun:/dev/net/tun", "--", "sh", "-c", `
openvpn --config `+ovpn+` --route-noexec --up /bin/true >/dev/null & pid=$!
for i in $(seq 200); do ip addr show dev tun0 2>/dev/null | grep -q 10.60.0 && break; sleep 0.05; done
ip route add 10.77.0.0/24 via 10.60.0.1
`+fetch+`http://10.77.0.1/big.bin | sha256sum
ip -br link show tun0
kill $pid; wait $pid
ip -br link; ip route get 10.77.0.1`).AsUser(w.Home()).Result()
		before, after, _ := strings.Cut(r.Stdout, "\ntun0 ")
		if r.Status != 0 || before != viewtest.BigSum()+"  -" || strings.Count(after, "tun0") > 0 || !strings.Contains(after, "via 10.0.2.2 dev nat0") {
			t.Errorf("got %v", r)
		}
		w.NoStrays(t)
	})

	spec = "vpn=tun-provider:exec openvpn --config " + openVPN(t, w, p, "tap", 51822)
	check("ethernet", says(viewtest.BigSum()+"  -\n", "link/ether", "10.61.0.", "fd61::10", "10.61.0.1 dev tap0 lladdr"),
		"sh", "-c", fetch+"http://10.77.0.1/big.bin | sha256sum; "+who+"; ip addr show dev tap0; ip neigh")

	t.Run("ends early", func(t *testing.T) {
		r := w.Umrun(t, "vpn=tun-provider:echo no such luck; exit 3", "true").Result()
		if r.Status != 120 || !strings.Contains(r.Stderr, "no such luck") || !strings.Contains(r.Stderr, "exit status 3") {
			t.Errorf("got %v", r)
		}
	})
	t.Run("what is the host's", func(t *testing.T) {
		const forward = "/proc/sys/net/ipv4/ip_forward"
		was := w.Host.MustRun(t, "cat", forward)
		// As root, who may write there.
		r := w.UmrunFlags(t, "-n", "vpn=tun-provider:echo 7 >"+forward+"; cd /proc/sys/net/ipv4; echo 7 >>ip_forward; exit 3", "--", "true").Result()
		if r.Status != 120 || strings.Count(r.Stderr, "Read-only file system") != 2 {
			t.Errorf("got %v", r)
		}
		if r := w.UmrunFlags(t, "-n", "none", "--", "sh", "-c", "echo 7 >"+forward).Result(); !strings.Contains(r.Stderr, "Read-only file system") {
			t.Errorf("in the view: %v", r)
		}
		if now := w.Host.MustRun(t, "cat", forward); now != was {
			t.Errorf("it was %q and is %q", was, now)
		}
	})
	killSwitch := func(t *testing.T, flags ...string) {
		w.ResetStrays()
		u := w.UmrunFlags(t, append(flags, "--", "/usr/bin/python3", "-c", mourner, "10.77.0.1,fd77::1", "alive", "udp")...).AsUser(w.Home())
		in, err := u.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		start(t, u)
		viewtest.Eventually(t, 40*time.Second, func() error {
			if !strings.HasPrefix(u.Output(), "up\n") {
				return fmt.Errorf("it says %q, %q", u.Output(), u.Errors())
			}
			return nil
		})
		pids := running(w, "openvpn")
		if len(pids) != 1 {
			t.Fatalf("openvpn is %v", pids)
		}
		w.Host.MustRun(t, "kill", "-KILL", strconv.Itoa(pids[0]))
		viewtest.Eventually(t, 20*time.Second, func() error {
			if left := running(w, "openvpn"); len(left) > 0 {
				return fmt.Errorf("%v is still there", left)
			}
			return nil
		})
		fmt.Fprintln(in)
		in.Close()
		u.Wait()
		if out := u.Output(); strings.Contains(out, "OUT") || !strings.HasSuffix(out, "done\n") || strings.Count(out, "\n") != 12 {
			t.Errorf("it says %q, %q", out, u.Errors())
		}
		if !strings.Contains(u.Errors(), "the provider of the network vpn has ended") {
			t.Errorf("umrun says %q", u.Errors())
		}
		w.NoStrays(t)
	}
	t.Run("kill switch", func(t *testing.T) { killSwitch(t, "-n", spec) })
	// Another network is no way out for what goes to the first one.
	t.Run("kill switch, and nat", func(t *testing.T) { killSwitch(t, "-n", spec, "-n", "lan=nat") })
}

// TestIntegrationWireguardGo: the daemon of WireGuard's own people brings a view its
// network, configured by wg(8) and ip(8) as on a machine of its own.
func TestIntegrationWireguardGo(t *testing.T) {
	viewtest.Need(t, "root", "tun", "wireguard-go", "wg", "curl", "ip")
	w := viewtest.New(t)
	p := w.Peers[0]
	c := p.Client(t)
	// Where the daemon has its socket; the package makes it, and only root may write there.
	const sockets = "/var/run/wireguard"
	if err := os.MkdirAll(sockets, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := w.Host.Tmpfs(sockets); err != nil {
		t.Fatal(err)
	}
	w.Host.MustRun(t, "chmod", "1777", sockets)
	var conf []string
	for _, line := range strings.Split(c.Text, "\n") { // wg-quick strip
		if key, _, _ := strings.Cut(line, " "); !slices.Contains([]string{"Address", "DNS", "MTU"}, key) {
			conf = append(conf, line)
		}
	}
	script := w.File(t, "up.sh", fmt.Sprintf(`
wireguard-go -f wg7 &
until wg show wg7 >/dev/null 2>&1; do sleep 0.05; done
wg setconf wg7 %s
ip addr add %v/32 dev wg7
ip addr add %v/128 dev wg7
ip link set wg7 mtu 1420 up
ip route add 10.77.0.0/24 dev wg7
ip route add fd77::/64 dev wg7
echo nameserver 10.77.0.1 >/etc/resolv.conf
wait
`, w.File(t, "wg7.conf", strings.Join(conf, "\n")), c.IP4, c.IP6))
	w.ResetStrays()
	r := w.Umrun(t, "vpn=tun-provider:sh "+script, "sh", "-c", fmt.Sprintf(
		"curl -sS -m 20 http://%s/big.bin | sha256sum; curl -sS telnet://10.77.0.1:%d </dev/null; curl -sS 'telnet://[fd77::1]:%[2]d' </dev/null; ip -br link show wg7",
		viewtest.NameWeb, viewtest.PortWho)).Result()
	for _, want := range []string{viewtest.BigSum() + "  -\n", c.IP4.String(), c.IP6.String(), "wg7"} {
		if r.Status != 0 || r.Stderr != "" || !strings.Contains(r.Stdout, want) {
			t.Errorf("it does not say %q, quietly: %v", want, r)
		}
	}
	if left := running(w, "wireguard-go"); len(left) > 0 {
		t.Errorf("processes %v are left", left)
	}
	w.NoStrays(t)
}

// TestIntegrationProviderDaemon: a client that puts itself into the background is told to end, too.
func TestIntegrationProviderDaemon(t *testing.T) {
	viewtest.Need(t, "/usr/bin/python3", "ip")
	w := viewtest.New(t)
	client := w.File(t, "client.py", `import fcntl, os, signal, struct, subprocess, sys, time
if os.fork(): os._exit(0)
os.setsid()
f = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(f, 0x400454ca, struct.pack("16sH22x", b"tun0", 0x1001))
def end(*_): time.sleep(0.2); open(sys.argv[1], "w").write("in order"); os._exit(0)
signal.signal(signal.SIGTERM, end)
subprocess.check_call("ip addr add 10.9.0.2/24 dev tun0; ip link set tun0 up", shell=True)
while True: signal.pause()
`)
	ended := filepath.Join(mountTree(t, w, true), "ended")
	r := umrunAs(t, w, true, "-n", "vpn=tun-provider:python3 "+client+" "+ended, "--", "ip", "-br", "addr").Result()
	if r.Status != 0 || !strings.Contains(r.Stdout, "10.9.0.2/24") {
		t.Errorf("got %v", r)
	}
	if b, err := os.ReadFile(ended); string(b) != "in order" {
		t.Errorf("the client has ended otherwise: %q, %v", b, err)
	}
	w.NoStrays(t)
}
