// SPDX-License-Identifier: Apache-2.0

// Views on VDE networks: programs in two views on one switch, a switch that is killed,
// and what is left behind.

package viewtest_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"umrun/view/viewtest"
)

// longLived is for what runs as long as a test, whatever that takes.
func longLived(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// vdeSwitch starts a vde_switch of the ordinary user's in a namespace.
func vdeSwitch(t testing.TB, n *viewtest.NS, w *viewtest.World, dir string) *viewtest.Cmd {
	t.Helper()
	c := n.Command(longLived(t), "vde_switch", "-s", dir).AsUser(w.Home())
	r, hold, err := os.Pipe() // at the end of file it exits
	if err != nil {
		t.Fatal(err)
	}
	c.Stdin = r
	start(t, c)
	t.Cleanup(func() { r.Close(); hold.Close() })
	viewtest.Eventually(t, 10*time.Second, func() error { _, err := os.Stat(dir + "/ctl"); return err })
	return c
}

// TestIntegrationVDE: programs in two views on one switch, somebody else's and our own,
// and by a command.
func TestIntegrationVDE(t *testing.T) {
	viewtest.Need(t, "vde_switch", "vde_plug", "curl", "ping", "iperf3", "ssh", "ssh-keygen", "busybox", "/usr/bin/python3")
	w := viewtest.New(t)
	home := w.Home()
	big := new(bytes.Buffer)
	io.Copy(big, io.LimitReader(&viewtest.Pattern{}, viewtest.BigSize))
	if err := os.WriteFile(filepath.Join(home, "big.bin"), big.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	conf, _ := sshd(t, w)
	key := filepath.Join(home, "sshd", "id")
	own, foreign := filepath.Join(home, "own"), filepath.Join(home, "foreign")
	vdeSwitch(t, w.Host, w, foreign)
	for _, tc := range []struct{ name, server, client, dir string }{
		{"vde_switch", "vde:" + foreign, "vde:" + foreign + "[5]", foreign},
		{"command", "vde:" + foreign, "cmd://vde_plug " + foreign, foreign},
		{"switch", "switch://" + own, "vde://" + own, own},
		{"hub", "vde://" + own, "hub://" + own, own}, // the client serves
		{"vlan", "vlan://5{ptp://" + own + "}", "vlan://5{ptp://" + own + "}", filepath.Dir(own)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			at := func(spec string, n int) string {
				return fmt.Sprintf("lan=%s,ip=10.5.0.%d/24,ip=fd05::%d/64", spec, n, n)
			}
			client := []string{"sh", "-c", fmt.Sprintf(`
ping -q -n -c2 -i0.2 -W5 10.5.0.1 && ping -q -n -c2 -i0.2 -W5 fd05::1 &&
busybox arping -q -c1 -I lan 10.5.0.1 && echo arping &&
curl -sS -m20 --retry 10 --retry-delay 1 --retry-connrefused -o got http://10.5.0.1:8080/big.bin && cmp got big.bin &&
curl -sS -m20 -o got 'http://[fd05::1]:8080/big.bin' && cmp got big.bin && rm got && echo curl &&
ssh %s -p 2222 lab@10.5.0.1 'echo $SSH_CONNECTION' </dev/null &&
iperf3 -c 10.5.0.1 -n 50M | grep -c receiver`, strings.ReplaceAll(sshOpts, "KEY", key))}
			serve := []string{"sh", "-c", "/usr/bin/python3 -m http.server 8080 --bind :: -d " + home + " & /usr/sbin/sshd -D -e -f " + conf + " & iperf3 -s"}
			var s *viewtest.Cmd
			if strings.HasPrefix(tc.client, "hub") { // first it must be there
				client[2] = "sleep 1; for i in $(seq 20); do ping -q -n -c1 -W1 10.5.0.1 && break; done; " + client[2]
				c := start(t, w.Umrun(t, at(tc.client, 2), client...))
				viewtest.Eventually(t, 10*time.Second, func() error { _, err := os.Stat(tc.dir + "/ctl"); return err })
				s = start(t, w.Umrun(t, at(tc.server, 1), serve...))
				checkVDEClient(t, c.Result())
			} else {
				s = start(t, w.Umrun(t, at(tc.server, 1), serve...))
				if strings.HasPrefix(tc.server, "switch") {
					viewtest.Eventually(t, 10*time.Second, func() error { _, err := os.Stat(tc.dir + "/ctl"); return err })
				}
				checkVDEClient(t, w.Umrun(t, at(tc.client, 2), client...).Result())
			}
			// By itself, not killed: what is left behind would be umrun's fault.
			s.Process.Signal(unix.SIGTERM)
			s.Wait()
			viewtest.Eventually(t, 10*time.Second, func() error {
				var left []string
				all, _ := filepath.Glob(tc.dir + "/*")
				hidden, _ := filepath.Glob(tc.dir + "/.[0-9]*")
				for _, f := range append(all, hidden...) {
					st, err := os.Lstat(f)
					if err == nil && st.Mode()&os.ModeSocket != 0 && filepath.Base(f) != "ctl" {
						left = append(left, f)
					}
				}
				if len(left) > 0 {
					return fmt.Errorf("left behind: %v", left)
				}
				if _, err := os.Stat(own); err == nil {
					return fmt.Errorf("%s is left behind", own)
				}
				return nil
			})
		})
	}
	w.NoStrays(t)
}

func checkVDEClient(t *testing.T, r viewtest.Result) {
	t.Helper()
	for _, want := range []string{"2 packets transmitted, 2 received", "arping\n", "curl\n", "10.5.0.2 ", " 10.5.0.1 2222\n"} {
		if r.Status != 0 || !strings.Contains(r.Stdout, want) {
			t.Fatalf("no %q: %v", want, r)
		}
	}
}

// TestIntegrationVDERestart: a switch that is killed in the middle of a download and
// started again costs time and nothing else; while there is none, nothing goes another
// way.
func TestIntegrationVDERestart(t *testing.T) {
	viewtest.Need(t, "vde_switch", "curl", "/usr/bin/python3")
	w := viewtest.New(t)
	home := w.Home()
	dir := filepath.Join(home, "sw")
	big := new(bytes.Buffer)
	io.Copy(big, io.LimitReader(&viewtest.Pattern{}, viewtest.BigSize))
	if err := os.WriteFile(filepath.Join(home, "big.bin"), big.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	sw := vdeSwitch(t, w.Host, w, dir)
	start(t, w.Umrun(t, dir2spec(dir, 1), "/usr/bin/python3", "-m", "http.server", "8080", "-d", home))
	got := filepath.Join(home, "got")
	c := start(t, w.Umrun(t, dir2spec(dir, 2), "curl", "-sS", "-m60", "--retry", "10", "--retry-delay", "1", "--retry-connrefused",
		"--limit-rate", fmt.Sprint(viewtest.BigSize/3), "-o", got, "http://10.5.0.1:8080/big.bin"))
	viewtest.Eventually(t, 20*time.Second, func() error {
		st, err := os.Stat(got)
		if err == nil && st.Size() < viewtest.BigSize/8 {
			err = fmt.Errorf("%d bytes", st.Size())
		}
		return err
	})
	sw.Stop()
	vdeSwitch(t, w.Host, w, dir)
	if r := c.Result(); r.Status != 0 {
		t.Fatal(r)
	}
	if b, err := os.ReadFile(got); err != nil || !bytes.Equal(b, big.Bytes()) {
		t.Errorf("%d of %d bytes, or others: %v", len(b), big.Len(), err)
	}
	w.NoStrays(t)
}

// TestIntegrationVDEOverSSH: a switch on another host, reached by ssh and nothing else. A
// session that is killed in the middle of a download is made again.
func TestIntegrationVDEOverSSH(t *testing.T) {
	viewtest.Need(t, "vde_switch", "vde_plug", "ssh", "ssh-keygen", "curl", "/usr/bin/python3")
	w := viewtest.New(t)
	home := w.Home()
	g := w.Peers[0].Gate(t)
	g.Start(t, viewtest.PortGateSSH)
	sshHome(t, g, w)
	dir := filepath.Join(home, "sw")
	vdeSwitch(t, g.NS, w, dir)
	big := new(bytes.Buffer)
	io.Copy(big, io.LimitReader(&viewtest.Pattern{}, viewtest.BigSize))
	if err := os.WriteFile(filepath.Join(home, "big.bin"), big.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	start(t, g.Command(longLived(t), viewtest.Binary(t), "-n", dir2spec(dir, 1), "--", "/usr/bin/python3", "-m", "http.server", "8080", "-d", home).AsUser(home))
	got := filepath.Join(home, "got")
	c := start(t, w.Umrun(t, "cmd://ssh gate vde_plug "+dir+",ip=10.5.0.2/24", "curl", "-sS", "-m60", "--retry", "10", "--retry-delay", "1", "--retry-connrefused",
		"--limit-rate", fmt.Sprint(viewtest.BigSize/3), "-o", got, "http://10.5.0.1:8080/big.bin"))
	viewtest.Eventually(t, 20*time.Second, func() error {
		st, err := os.Stat(got)
		if err == nil && st.Size() < viewtest.BigSize/8 {
			err = fmt.Errorf("%d bytes", st.Size())
		}
		if err != nil {
			err = fmt.Errorf("%w; %s", err, c.Errors())
		}
		return err
	})
	g.Stop(viewtest.PortGateSSH)
	g.Start(t, viewtest.PortGateSSH)
	if r := c.Result(); r.Status != 0 {
		t.Fatal(r)
	}
	if b, err := os.ReadFile(got); err != nil || !bytes.Equal(b, big.Bytes()) {
		t.Errorf("%d of %d bytes, or others: %v", len(b), big.Len(), err)
	}
	w.NoStrays(t)
}

func dir2spec(dir string, n int) string { return fmt.Sprintf("vde:%s,ip=10.5.0.%d/24", dir, n) }

// TestIntegrationVDEErrors: what a person is told.
func TestIntegrationVDEErrors(t *testing.T) {
	viewtest.Need(t, "vde_switch")
	w := viewtest.New(t)
	locked := filepath.Join(w.Dir(), "locked")
	c := w.HostCmd(t.Context(), "vde_switch", "-s", locked) // root's
	r, hold, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer hold.Close()
	c.Stdin = r
	start(t, c)
	viewtest.Eventually(t, 10*time.Second, func() error { _, err := os.Stat(locked + "/ctl"); return err })
	for _, tc := range []struct {
		spec   string
		status int
		want   []string
	}{
		{"vde:/tmp/none", 120, []string{"there is no VDE switch at /tmp/none", "try: vde_switch -s /tmp/none -d"}},
		{"vde:" + locked, 120, []string{"permission denied", "lets in those who may write to its socket"}},
		{"agno://k{vde:///x}", 122, []string{"agno:// is not carried here", "WireGuard"}},
		{"vde://x[prot=3]", 122, []string{`unknown option "prot"`, "portgroup"}},
		{"cmd://no-such-command", 120, []string{"executable file not found"}},
		{"hub:///proc/x", 120, []string{"/proc/x"}},
	} {
		r := w.Umrun(t, tc.spec+",ip=10.5.0.1/24", "true").Result()
		for _, want := range tc.want {
			if r.Status != tc.status || !strings.Contains(r.Stderr, want) {
				t.Errorf("want status %d and %q: %v", tc.status, want, r)
			}
		}
	}
}

// TestIntegrationSlirp: slirp:// is a NAT at the end of an Ethernet cable.
func TestIntegrationSlirp(t *testing.T) {
	viewtest.Need(t, "ping", "busybox")
	w := viewtest.New(t)
	r := w.Umrun(t, "slirp://,ip=10.0.2.15/24,gw=10.0.2.2,ip=fd00:2::15/64,gw=fd00:2::2", "sh", "-c",
		"ping -q -n -c1 -W5 10.0.2.2 && ping -q -n -c1 -W5 fd00:2::2 && busybox arping -c1 -I vde0 10.0.2.2").Result()
	if r.Status != 0 || !strings.Contains(strings.ToLower(r.Stdout), "52:55:0a:00:02:02") {
		t.Error(r)
	}
	r = w.Umrun(t, "slirp://,dhcp,slaac", "ip", "-br", "addr", "show", "dev", "vde0").Result()
	if r.Status != 0 || !strings.Contains(r.Stdout, " 10.0.2.15/24 ") || !strings.Contains(r.Stdout, " fd00:2::") {
		t.Error(r)
	}
	w.NoStrays(t)
}
