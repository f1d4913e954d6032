// SPDX-License-Identifier: Apache-2.0

// The kernel's stack: what is special about it. That it does what others do is shown
// by the matrix, the transcripts and the leaks.

package viewtest_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"umrun/view/viewtest"

	"golang.org/x/sys/unix"
)

// kernelKey asks for it.
const kernelKey = ",stack=kernel"

// TestIntegrationKernelDelivery: the namespace lives until everything is delivered.
func TestIntegrationKernelDelivery(t *testing.T) {
	viewtest.Need(t, "gcc")
	w, p, _ := lab(t)
	for _, tc := range []delivery{{"exit", 1, 0}, {"exit", 8 << 20, 0}, {"kill", 3 << 20, 128 + 9}, {"slow", 6 << 20, 0}} {
		tc.run(t, w, p, kernelKey, 3)
	}
	w.NoStrays(t)
}

// TestIntegrationKernelNames: names are answered on whatever addresses resolv.conf has,
// over UDP and TCP, also if that is the very server behind the tunnel.
func TestIntegrationKernelNames(t *testing.T) {
	viewtest.Need(t, "dig")
	w, _, me := lab(t)
	for _, tc := range []struct{ name, conf string }{
		{"loopback", "nameserver 127.0.0.53\n"},
		{"outside", "nameserver 198.51.100.1\n"},
		{"outside6", "nameserver 2001:db8:ffff::1\n"},
		{"own", "nameserver 10.77.0.1\n"},
		{"own6", "nameserver fd77::1\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := w.Host.WriteFile("/etc/resolv.conf", tc.conf); err != nil {
				t.Fatal(err)
			}
			for _, how := range []string{"+notcp", "+tcp"} {
				r := w.Umrun(t, me.Conf+kernelKey, "dig", "+short", "+time=5", "+tries=1", how, "www.lab.test", "A").Result()
				if r.Status != 0 || r.Stdout != "10.77.0.1\n" {
					t.Errorf("%s: got %v", how, r)
				}
			}
		})
	}
	w.NoStrays(t)
}

// TestIntegrationKernelTraps: of a download only socket and connect trap, and a bind of
// glibc's to netlink.
func TestIntegrationKernelTraps(t *testing.T) {
	viewtest.Need(t, "curl")
	w, _, me := lab(t)
	traps := filepath.Join(w.Home(), "traps")
	r := w.UmrunFlags(t, "-n", me.Conf+kernelKey, "--traps", traps, "--", "curl", "-sS", "-m10", "http://www.lab.test/addr").AsUser(w.Home()).Result()
	if r.Status != 0 {
		t.Fatalf("got %v", r)
	}
	b, err := os.ReadFile(traps)
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(b)) {
		switch call, _, _ := strings.Cut(l, "\t"); call {
		case "call", "socket", "connect", "bind":
		default:
			t.Errorf("traps, too: %s", l)
		}
	}
	if n := strings.Count(string(b), "\n"); n < 3 {
		t.Errorf("too little is counted:\n%s", b)
	}
}

// TestIntegrationKernelRefused: where the machine does not allow it, the error says what
// and how to mend it, auto takes the other stack, and doctor tells.
func TestIntegrationKernelRefused(t *testing.T) {
	viewtest.Need(t, "curl")
	w, _, me := lab(t)
	curl := []string{"curl", "-sS", "-m10", "http://10.77.0.1/addr"}
	for _, tc := range []struct {
		name  string
		spoil func() error
		want  []string
	}{
		{"no-tun", func() error { return os.Chmod("/dev/net/tun", 0o600) }, []string{"a TUN device cannot be had here", "permission denied", "chmod 666 /dev/net/tun"}},
		{"no-device", func() error { return os.Remove("/dev/net/tun") }, []string{"a TUN device cannot be had here", "no such file", "modprobe tun"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var err error
			w.Host.Do(func() { err = tc.spoil() })
			if err != nil {
				t.Fatal(err)
			}
			r := w.Umrun(t, me.Conf+kernelKey, curl...).Result()
			if r.Status != 123 {
				t.Errorf("want status 123, got %v", r)
			}
			for _, want := range tc.want {
				if !strings.Contains(r.Stderr, want) {
					t.Errorf("no word of %q: %v", want, r)
				}
			}
			if r := w.Umrun(t, me.Conf+",stack=auto", curl...).Result(); r.Status != 0 || r.Stdout != me.IP4.String()+"\n" {
				t.Errorf("stack=auto: got %v", r)
			}
			r = w.HostCmd(t.Context(), viewtest.Binary(t), "doctor").AsUser(w.Home()).Result()
			if !strings.Contains(r.Stdout, "stack=auto takes netstack") || !strings.Contains(r.Stdout, "TUN") {
				t.Errorf("doctor says %v", r)
			}
		})
	}
}

// TestIntegrationNetNS: a program in the namespace of somebody else, as root and, with
// raw sockets refused, as a user whom root has made the program.
func TestIntegrationNetNS(t *testing.T) {
	viewtest.Need(t, "curl", "ping")
	w, p, _ := lab(t)
	n := nativeNS(t, p)
	path := "netns:" + n.Path()
	r := w.UmrunFlags(t, "-n", path, "--", "curl", "-sS", "-m10", "http://10.77.0.1/addr").Result()
	if r.Status != 0 || r.Stdout != nativeIP4.String()+"\n" {
		t.Errorf("got %v", r)
	}
	const raw = `import os, socket, sys
os.setresuid(61234, 61234, 61234) if sys.argv[1] == "drop" else None
for f, t, p in (socket.AF_INET, socket.SOCK_STREAM, 0), (socket.AF_INET, socket.SOCK_RAW, 1), (socket.AF_PACKET, socket.SOCK_RAW, 0), (socket.AF_INET, 10, 3), (socket.AF_NETLINK, socket.SOCK_RAW, 0):
    try:
        socket.socket(f, t, p); print("ok")
    except OSError as e:
        print(e.strerror)
`
	for who, want := range map[string]string{
		"root": "ok\nok\nok\nok\nok\n",
		"drop": "ok\nOperation not permitted\nOperation not permitted\nOperation not permitted\nok\n",
	} {
		if r := w.UmrunFlags(t, "-n", path, "--", "/usr/bin/python3", "-c", raw, who).Result(); r.Stdout != want {
			t.Errorf("%s: want %q, got %v", who, want, r)
		}
	}
	r = w.Umrun(t, path, "true").Result()
	if r.Status != 123 || !strings.Contains(r.Stderr, "cannot be had here") || !strings.Contains(r.Stderr, "nsenter") {
		t.Errorf("an ordinary user: got %v", r)
	}
	w.NoStrays(t)
}

// TestIntegrationKernelKilled: nothing is left of a view whose umrun was killed.
func TestIntegrationKernelKilled(t *testing.T) {
	w, _, me := lab(t)
	u := start(t, w.Umrun(t, me.Conf+kernelKey, "sleep", "100"))
	var helper int
	viewtest.Eventually(t, 20*time.Second, func() error {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", u.Process.Pid, u.Process.Pid))
		if err != nil {
			return err
		}
		dirs, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", u.Process.Pid))
		for _, d := range dirs {
			more, _ := os.ReadFile(d)
			b = append(append(b, ' '), more...)
		}
		for _, word := range strings.Fields(string(b)) {
			cmd, _ := os.ReadFile("/proc/" + word + "/cmdline")
			if strings.HasPrefix(string(cmd), "umrun-netns") {
				_, err := fmt.Sscan(word, &helper)
				return err
			}
		}
		return fmt.Errorf("no helper among %q", b)
	})
	fd, err := unix.PidfdOpen(helper, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := u.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	viewtest.Eventually(t, 20*time.Second, func() error {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, _ := unix.Poll(p, 0); n != 1 {
			return fmt.Errorf("the helper %d is still there", helper)
		}
		return nil
	})
	w.NoStrays(t)
}

// TestIntegrationKernelSilent: a tunnel that is down keeps what is sent, and nothing of
// it goes anywhere else.
func TestIntegrationKernelSilent(t *testing.T) {
	viewtest.Need(t, "curl")
	w, p, me := lab(t)
	conf := strings.ReplaceAll(readFile(t, me.Conf), p.Endpoint, "198.51.100.1:9")
	file := w.File(t, "silent.conf", conf)
	r := w.UmrunFlags(t, "-n", file+kernelKey, "--no-wait", "--", "curl", "-sS", "-m3", "http://10.77.0.1/").AsUser(w.Home()).Result()
	if r.Status != 28 {
		t.Errorf("want curl's time-out, got %v", r)
	}
	if r.Took > 20*time.Second {
		t.Errorf("took %v", r.Took)
	}
	// Only WireGuard's own handshakes went to the endpoint, which is beyond the sink.
	if n, what := w.Strays(); strings.Contains(what, "TCP") || strings.Contains(what, ":80") {
		t.Errorf("%d packets:\n%s", n, what)
	}
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestIntegrationNoUserNS: an ordinary user where user namespaces are used up is told.
func TestIntegrationNoUserNS(t *testing.T) {
	viewtest.Need(t, "setpriv")
	w, _, _ := lab(t)
	// In a user namespace of its own the limit can be set, and privileges be laid down.
	const none = `echo 0 >/proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all --inh-caps=-all "$@"`
	r := w.HostCmd(t.Context(), "unshare", "-U", "--map-root-user", "sh", "-c", none, "sh", viewtest.Binary(t), "-n", "none,stack=kernel", "true").AsUser(w.Home()).Result()
	if r.Status != 123 || !strings.Contains(r.Stderr, "a user namespace cannot be had here") || !strings.Contains(r.Stderr, "sysctl user.max_user_namespaces=") {
		t.Errorf("got %v", r)
	}
}

// TestIntegrationKernelSeveral: it is one of several networks, too.
func TestIntegrationKernelSeveral(t *testing.T) {
	viewtest.Need(t, "curl", "ping")
	w, _, me := lab(t)
	const ask = "curl -sS -m10 http://www.lab.test/addr; curl -sS -m10 http://10.77.0.1/addr; ping -q -c1 -W5 fd77::1 | grep -c ' 0% packet loss'; curl -sS -m5 http://192.0.2.1/"
	r := w.UmrunFlags(t, "-n", "k="+me.Conf+kernelKey, "-n", "o=none,stack=kernel", "--route", "192.0.2.0/24=o", "--", "sh", "-c", ask).AsUser(w.Home()).Result()
	if want := me.IP6.String() + "\n" + me.IP4.String() + "\n1\n"; r.Stdout != want || r.Status != 7 {
		t.Errorf("want %q and curl's failure to connect, got %v", want, r)
	}
	w.NoStrays(t)
}
