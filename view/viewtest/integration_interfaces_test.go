// SPDX-License-Identifier: Apache-2.0

// Interfaces, addresses and routes: whoever asks for them is told of the view's,
// and of nothing that is the host's.

package viewtest_test

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"umrun/view/viewtest"
)

// TestIntegrationInterfaces asks in every way that programs have.
func TestIntegrationInterfaces(t *testing.T) {
	viewtest.Need(t, "gcc", "musl-gcc", "ip", "/usr/bin/python3", "node", "busybox")
	w, p, _ := lab(t)
	// What is the host's: its interfaces, and addresses of the networks on them.
	hosts := regexp.MustCompile(`sink0|link0|198\.51\.100\.|192\.0\.2\.|2001:db8:`)
	for _, c := range []struct {
		name string
		args []string
		want []string // regular expressions; DEV, SELF4 and SELF6 are replaced
	}{
		{"c", words("BIN:interfaces:dynamic"), []string{`getifaddrs lo 127\.0\.0\.1 up`, `getifaddrs lo ::1 up`, `getifaddrs DEV SELF4 up`, `getifaddrs DEV SELF6 up`, `if_nameindex lo`, `if_nameindex DEV`, `SIOCGIFCONF DEV SELF4`}},
		{"c-static", words("BIN:interfaces:static"), []string{`getifaddrs DEV SELF4 up`, `SIOCGIFCONF DEV SELF4`}},
		{"c-musl", words("BIN:interfaces:musl"), []string{`getifaddrs DEV SELF4 up`, `getifaddrs DEV SELF6 up`, `if_nameindex DEV`}},
		{"go", words("BIN:gonet:static addrs"), []string{`lo 127\.0\.0\.1/8`, `lo ::1/128`, `DEV SELF4/24`, `DEV SELF6/64`}},
		{"python", []string{"/usr/bin/python3", "-c", "import socket; print(*(n for _, n in socket.if_nameindex()))"}, []string{`^lo DEV\n$`}},
		{"node", []string{"node", "-p", `Object.entries(os.networkInterfaces()).map(([n, a]) => a.map(x => n + " " + x.cidr).join("\n")).join("\n")`}, []string{`DEV SELF4/24`, `DEV SELF6/64`}},
		{"ip-addr", words("ip addr"), []string{`inet 127\.0\.0\.1/8`, `DEV: <[A-Z,_]*UP[A-Z,_]*> mtu 1420`, `inet SELF4/24`, `inet6 SELF6/64`}},
		{"ip-brief", words("ip -br addr show up"), []string{`DEV +[A-Z]+ +SELF4/24 SELF6/64`}},
		{"ip-json", words("ip -j addr"), []string{`"local":"SELF4"`}},
		{"ip-link", words("ip link show"), []string{`mtu 1420`}},
		{"ip-route", words("ip route"), []string{`(?m)^default dev DEV`, `(?m)^10\.77\.0\.0/24 dev DEV`}},
		{"ip-route-v6", words("ip -6 route"), []string{`(?m)^default dev DEV`, `(?m)^fd77::/64 dev DEV`}},
		{"ip-route-get", words("ip route get 198.18.0.1"), []string{`198\.18\.0\.1 dev DEV src SELF4`}},
		{"ip-route-get-v6", words("ip -6 route get fd77::1"), []string{`fd77::1 (from :: )?dev DEV .*src SELF6`}},
		{"hostname", words("hostname -I"), []string{`^SELF4 SELF6 \n$`}},
		{"busybox-ip", words("busybox ip addr"), []string{`inet SELF4/24`, `inet6 SELF6/64`}},
		{"busybox-ip-route", words("busybox ip route"), []string{`(?m)^default dev DEV`}},
		{"busybox-ifconfig", words("busybox ifconfig DEV"), []string{`inet addr:SELF4`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			me := p.Client(t)
			vars := strings.NewReplacer("DEV", "office", "SELF4", me.IP4.String(), "SELF6", me.IP6.String())
			var args []string
			for _, a := range c.args {
				if rest, ok := strings.CutPrefix(a, "BIN:"); ok {
					name, how, _ := strings.Cut(rest, ":")
					a = viewtest.Target(t, name, viewtest.Linking(how))
				}
				args = append(args, vars.Replace(a))
			}
			r := w.Umrun(t, "office=wg:"+me.Conf, args...).Result()
			if r.Status != 0 {
				t.Errorf("got %v", r)
			}
			for _, re := range c.want {
				if re = vars.Replace(re); !regexp.MustCompile(re).MatchString(r.Stdout) {
					t.Errorf("want %q, got %v", re, r)
				}
			}
			if seen := hosts.FindString(r.Stdout + r.Stderr); seen != "" {
				t.Errorf("%q is the host's: %v", seen, r)
			}
		})
	}
	w.NoStrays(t)
}

// TestIntegrationChanges: an ordinary user changes the view's network, which works
// as changed, and sees its sockets; the host's network stays what it is.
func TestIntegrationChanges(t *testing.T) {
	viewtest.Need(t, "ip", "ss", "curl", "/usr/bin/python3")
	w, p, _ := lab(t)
	before := w.HostCmd(t.Context(), words("ip -4 -o addr")...).Result().Stdout
	const get = `curl -sS -m10 http://10.77.0.1/addr`
	for _, c := range []struct {
		name, script, want string // want is a regular expression; SELF4 is replaced
	}{
		{"mtu", `ip link set office mtu 1300 && ip link show office && ` + get, `mtu 1300 (?s:.*)\nSELF4\n$`},
		{"mtu-too-large", `ip link set office mtu 9000 2>&1; ip link show office`, `Invalid argument\n(?s:.*)mtu 1420 `},
		{"down-and-up", `ip link set office down; ! ` + get + ` 2>/dev/null && ip link set office up && ip route && ` + get, `^10\.77\.0\.0/24 dev office proto kernel scope link src SELF4 \nSELF4\n$`},
		{"address", `ip addr add 10.88.0.1/24 dev office && ip -o -4 addr show office && ` + get, `inet SELF4/24 (?s:.*)inet 10\.88\.0\.1/24 (?s:.*)\nSELF4\n$`},
		{"no-address", `ip addr flush dev office && ip addr show office; ` + get + ` 2>&1`, `curl: \(7\)`},
		{"no-route", `ip route del 10.77.0.0/16 2>&1; ip route del default && ip route get 198.18.0.1 2>&1`, `No such process\n.*unreachable`},
		{"sockets", `/usr/bin/python3 -c 'import socket, subprocess
s = socket.create_connection(("10.77.0.1", 80))
l = socket.create_server(("", 8000))
subprocess.run(["ss", "-Htanp"])'`, `LISTEN +0 +\d+ +0\.0\.0\.0:8000 .*python3(?s:.*)ESTAB +0 +0 +SELF4:\d+ +10\.77\.0\.1:80 +users:\(\("python3"`},
		{"rules", `ip rule add to 10.77.0.1 dport 80 prohibit && ip rule && ! ` + get + ` 2>&1 && ip rule del to 10.77.0.1 && ` + get, `to 10\.77\.0\.1 dport 80 prohibit\n(?s:.*)curl: \(7\)(?s:.*)\nSELF4\n$`},
		{"rules-as-wg-quick", `ip route add default dev office table 51820 && ip rule add not fwmark 51820 table 51820 && ip rule add table main suppress_prefixlength 0 &&
ip route del default; ip route get 198.18.0.1; ip route get 198.18.0.1 mark 51820 2>&1; ip route get 10.77.0.1; ` + get, `^198\.18\.0\.1 dev office table 51820 src SELF4 (?s:.*)unreachable\n10\.77\.0\.1 dev office src SELF4 (?s:.*)\nSELF4\n$`},
		{"neighbours", `ip neigh add 10.77.0.9 dev office nud permanent && ip neigh && ` + get + ` && ip neigh flush dev office nud permanent; ip neigh del 0.0.0.0 dev office && ip neigh`, `^0\.0\.0\.0 dev office lladdr .*PERMANENT \nSELF4\n$`},
		{"sockets-that-are-ended", `/usr/bin/python3 -c 'import errno, socket, subprocess
s = socket.create_connection(("10.77.0.1", 80))
subprocess.run(["ss", "-HtnK", "dst", "10.77.0.1"])
print(errno.errorcode[s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)])
subprocess.run(["ss", "-Htn"])'`, `ESTAB +0 +0 +SELF4:\d+ +10\.77\.0\.1:80 *\nECONNABORTED\n$`},
		{"counters", get + ` >/dev/null && ip -s link show office`, `RX: .*\n +[1-9]\d* +[1-9]\d* `},
	} {
		t.Run(c.name, func(t *testing.T) {
			me := p.Client(t)
			r := w.Umrun(t, "office=wg:"+me.Conf, "sh", "-c", c.script).Result()
			if re := strings.ReplaceAll(c.want, "SELF4", me.IP4.String()); !regexp.MustCompile(re).MatchString(r.Stdout) {
				t.Errorf("want %q, got %v", re, r)
			}
		})
	}
	if after := w.HostCmd(t.Context(), words("ip -4 -o addr")...).Result().Stdout; after != before {
		t.Errorf("the host's network: before\n%s\nafter\n%s", before, after)
	}
	w.NoStrays(t)
}

// TestIntegrationProcNet: files and the tools that read them tell of the view's
// network, with --no-proc of the host's.
func TestIntegrationProcNet(t *testing.T) {
	viewtest.Need(t, "busybox", "/usr/bin/python3")
	w, p, _ := lab(t)
	const listener = `import socket, sys
l = socket.create_server(("0.0.0.0", 8123)); u = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); u.bind(("::", 8124))
c = socket.create_connection(("10.77.0.1", 80)); `
	for _, c := range []struct {
		name string
		args []string
		want string // regular expression; SELF4 and SELF6 stand for addresses as the file has them
	}{
		{"dev", words("cut -d: -f1 /proc/net/dev"), `^Inter-.*\n face .*\n    lo\noffice\n$`},
		{"route", words("cat /proc/self/net/route"), `^Iface\tDestination.*\n(office\t[0-9A-F]{8}\t00000000\t0001\t0\t0\t0\t[0-9A-F]{8}\t0\t0\t0 *\n)+$`},
		{"if_inet6", words("cat /proc/net/if_inet6"), `^0{31}1 01 80 10 80       lo\nfd770{25}[0-9a-f]{3} 02 40 00 80   office\n$`},
		{"sysfs", words("cat /sys/class/net/office/mtu /sys/class/net/office/type"), `^1420\n65534\n$`},
		{"renamed", []string{"/usr/bin/python3", "-c", `import os, subprocess
def has(name):
    try: return "mtu" in os.listdir("/sys/class/net/" + name)
    except FileNotFoundError: return False
print(has("office"), has("shed"))
for change in "down", "name shed": subprocess.run(["ip", "link", "set", "office"] + change.split(), check=True)
print(has("office"), has("shed"))`}, `^True False\nFalse True\n$`},
		{"no interface of the host", words("cat /sys/class/net/sink0/mtu"), `^$`},
		{"busybox route", words("busybox route -n"), `(?m)^0\.0\.0\.0 +0\.0\.0\.0 +0\.0\.0\.0 +U +0 +0 +0 office$`},
		{"busybox netstat", words("busybox netstat -rn"), `(?m)^10\.77\.0\.0 +0\.0\.0\.0 +255\.255\.255\.0 +U .* office$`},
		{"sockets", []string{"/usr/bin/python3", "-c", listener + `print(open("/proc/net/tcp").read(), open("/proc/net/udp6").read())`},
			`(?m)^ +\d: 00000000:1FBB 00000000:0000 0A (?s:.*)^ +\d: [0-9A-F]{6}0A:[0-9A-F]{4} 01004D0A:0050 01 (?s:.*) 0{32}:1FBC 0{32}:0000 07 `},
		{"busybox netstat -l", []string{"/usr/bin/python3", "-c", listener + `import subprocess; subprocess.run(["busybox", "netstat", "-ltnu"])`},
			`(?m)^tcp +0 +0 0\.0\.0\.0:8123 +0\.0\.0\.0:\* +LISTEN(?s:.*)^udp +0 +0 :::8124 `},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := w.Umrun(t, "office=wg:"+p.Client(t).Conf, c.args...).Result()
			if !regexp.MustCompile(c.want).MatchString(r.Stdout) || strings.Contains(r.Stdout, "sink0") {
				t.Errorf("want %s, got %v", c.want, r)
			}
		})
	}
	t.Run("no-proc", func(t *testing.T) {
		args := words("cut -d: -f1 /proc/net/dev")
		outside := w.HostCmd(t.Context(), args...).AsUser(w.Home()).Result()
		r := w.UmrunFlags(t, append([]string{"--no-proc", "-n", p.Client(t).Conf, "--"}, args...)...).AsUser(w.Home()).Result()
		if r.Stdout != outside.Stdout || !strings.Contains(r.Stdout, "sink0") {
			t.Errorf("outside %v\nin the view %v", outside, r)
		}
	})
	w.NoStrays(t)
}

// TestIntegrationOneFamily: on a network of one address family names have only
// addresses of it, and glibc and Node do not even ask for others.
func TestIntegrationOneFamily(t *testing.T) {
	viewtest.Need(t, "gcc", "/usr/bin/python3", "node", "curl", "getent")
	w, p, _ := lab(t)
	for _, c := range []struct {
		name       string
		six        bool
		addr, want string
	}{
		{"v4", false, "10.77.0.1", "A"},
		{"v6", true, "fd77::1", "AAAA"},
	} {
		t.Run(c.name, func(t *testing.T) {
			// one makes a configuration of one family, with a key of its own.
			one := func() (conf string, self netip.Addr) {
				me := p.Client(t)
				self, bits, dns := me.IP4, 24, "10.77.0.1"
				if c.six {
					self, bits, dns = me.IP6, 64, "fd77::1"
				}
				return w.File(t, "wg.conf", strings.NewReplacer(
					fmt.Sprintf("%v/24, %v/64", me.IP4, me.IP6), fmt.Sprintf("%v/%d", self, bits),
					"DNS = 10.77.0.1, fd77::1", "DNS = "+dns).Replace(me.Text)), self
			}
			for prober, args := range map[string][]string{
				"glibc":  words(viewtest.Target(t, "lookup", viewtest.Dynamic) + " NAME"),
				"static": words(viewtest.Target(t, "lookup", viewtest.Static) + " NAME"),
				"python": {"/usr/bin/python3", "-c", `import socket; print(*{a[4][0] for a in socket.getaddrinfo("NAME", 80, flags=socket.AI_ADDRCONFIG)})`},
				"node":   {"node", "-e", `dns.lookup("NAME", {all: true, hints: dns.ADDRCONFIG}, (e, a) => console.log(e ? e.code : a.map(x => x.address).join()))`},
			} {
				name := wild(prober, "only"+c.name)
				for i, a := range args {
					args[i] = strings.ReplaceAll(a, "NAME", name)
				}
				conf, _ := one()
				r := w.Umrun(t, conf, args...).Result()
				if got := strings.TrimPrefix(strings.TrimSpace(r.Stdout), name+": "); got != c.addr {
					t.Errorf("%s: want %s, got %v", prober, c.addr, r)
				}
				asked := regexp.MustCompile(`query\[(A+)\] `+regexp.QuoteMeta(name)).FindAllStringSubmatch(p.Queries(), -1)
				if len(asked) != 1 || asked[0][1] != c.want {
					t.Errorf("%s: want one question for %s, got %q", prober, c.want, asked)
				}
			}
			for host, works := range map[string]bool{"www.lab.test": true, "v4.lab.test": !c.six, "v6.lab.test": c.six} {
				conf, self := one()
				r := w.Umrun(t, conf, "curl", "-sS", "-m10", "http://"+host+"/addr").Result()
				if works != (r.Status == 0) || works && r.Stdout != self.String()+"\n" {
					t.Errorf("want %v from %s, got %v", works, self, r)
				}
			}
		})
	}
	w.NoStrays(t)
}
