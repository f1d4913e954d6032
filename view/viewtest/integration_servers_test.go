// SPDX-License-Identifier: Apache-2.0

// Servers in a view, reached from behind the peer; and two views at once.

package viewtest_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"umrun/view/viewtest"
)

// fetch gets a page from behind the peer.
func fetch(p *viewtest.Peer, url string) (string, error) {
	tr := &http.Transport{DialContext: p.DialContext, DisableKeepAlives: true}
	c := http.Client{Transport: tr, Timeout: 20 * time.Second}
	r, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	return string(b), err
}

// lab makes a world and a client.
func lab(t *testing.T) (*viewtest.World, *viewtest.Peer, *viewtest.Client) {
	t.Helper()
	w := viewtest.New(t)
	return w, w.Peers[0], w.Peers[0].Client(t)
}

// start starts a command that is stopped with the test.
func start(t testing.TB, c *viewtest.Cmd) *viewtest.Cmd {
	t.Helper()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Stop()
		if t.Failed() {
			t.Logf("%s\n-- stdout\n%s\n-- stderr\n%s", strings.Join(c.Args, " "), c.Output(), c.Errors())
		}
	})
	return c
}

func hostport(ip fmt.Stringer, port int) string {
	return net.JoinHostPort(ip.String(), fmt.Sprint(port))
}

// TestIntegrationServers: pages of servers in the view, over IPv4 and IPv6.
func TestIntegrationServers(t *testing.T) {
	w, p, _ := lab(t)
	dir := w.Home()
	big := filepath.Join(dir, "big.bin")
	b := new(bytes.Buffer)
	io.Copy(b, io.LimitReader(&viewtest.Pattern{}, viewtest.BigSize))
	if err := os.WriteFile(big, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "page"), []byte("served from a view\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	nginx := filepath.Join(w.Dir(), "nginx.conf")
	if err := os.WriteFile(nginx, fmt.Appendf(nil, `daemon off; worker_processes 2; error_log stderr; pid %[1]s/nginx.pid;
events {}
http { access_log off; client_body_temp_path %[1]s/t1; proxy_temp_path %[1]s/t2; fastcgi_temp_path %[1]s/t3;
uwsgi_temp_path %[1]s/t4; scgi_temp_path %[1]s/t5;
server { listen 8080; listen [::]:8080; root %[1]s; } }
`, dir), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		need string
		args []string
		v6   bool
	}{
		{"python", "/usr/bin/python3", []string{"/usr/bin/python3", "-m", "http.server", "8080", "--bind", "::", "-d", dir}, true},
		{"nginx", "nginx", []string{"nginx", "-e", "stderr", "-p", dir, "-c", nginx}, true},
		{"busybox", "busybox", []string{"busybox", "httpd", "-f", "-p", "8080", "-h", dir}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			viewtest.Need(t, tc.need)
			me := p.Client(t)
			u := start(t, w.Umrun(t, me.Conf, tc.args...))
			urls := []string{"http://" + hostport(me.IP4, 8080)}
			if tc.v6 {
				urls = append(urls, "http://"+hostport(me.IP6, 8080))
			}
			for _, url := range urls {
				viewtest.Eventually(t, 20*time.Second, func() error {
					page, err := fetch(p, url+"/page")
					if err == nil && page != "served from a view\n" {
						err = fmt.Errorf("got %q", page)
					}
					return err
				})
				got, err := fetch(p, url+"/big.bin")
				if err != nil || got != b.String() {
					t.Errorf("%s/big.bin: %d of %d bytes, %v", url, len(got), b.Len(), err)
				}
				errs := make(chan error, 20) // one for each request
				for range cap(errs) {
					go func() {
						page, err := fetch(p, url+"/page")
						if err == nil && page != "served from a view\n" {
							err = fmt.Errorf("got %q", page)
						}
						errs <- err
					}()
				}
				for range cap(errs) {
					if err := <-errs; err != nil {
						t.Errorf("20 at once: %v", err)
					}
				}
			}
			u.Stop()
			// The port is gone with the view, and the host never had it.
			if c, err := w.Host.DialContext(t.Context(), "tcp", "127.0.0.1:8080"); err == nil {
				c.Close()
				t.Error("the server's port was open on the host")
			}
		})
	}
	w.NoStrays(t)
}

// TestIntegrationGoServer: the runtime's poller accepts on a placeholder.
func TestIntegrationGoServer(t *testing.T) {
	w, p, me := lab(t)
	start(t, w.Umrun(t, me.Conf, viewtest.Target(t, "gonet", viewtest.Static), "serve", ":8080"))
	for _, at := range []string{hostport(me.IP4, 8080), hostport(me.IP6, 8080)} {
		viewtest.Eventually(t, 20*time.Second, func() error {
			page, err := fetch(p, "http://"+at)
			if err == nil && !regexp.MustCompile(`^served (10\.77\.0\.|fd77::)[12]\n$`).MatchString(page) {
				err = fmt.Errorf("got %q", page)
			}
			return err
		})
	}
	w.NoStrays(t)
}

// TestIntegrationSSHServer: a login from behind the peer into a view.
func TestIntegrationSSHServer(t *testing.T) {
	viewtest.Need(t, "ssh", "ssh-keygen")
	w, p, me := lab(t)
	conf, mine := sshd(t, w)
	start(t, w.Umrun(t, me.Conf, "/usr/sbin/sshd", "-D", "-e", "-f", conf))
	args := append([]string{"ssh"}, words(strings.ReplaceAll(sshOpts, "KEY", mine)+" -p 2222 lab@"+me.IP4.String()+" id -u; echo $SSH_CONNECTION; cat")...)
	viewtest.Eventually(t, 20*time.Second, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		c := p.Cmd(ctx, args...)
		c.Stdin = strings.NewReader("in and out\n")
		r := c.Result()
		want := fmt.Sprintf("%d\n10.77.0.1 ", viewtest.UID)
		if r.Status != 0 || !strings.HasPrefix(r.Stdout, want) || !strings.HasSuffix(r.Stdout, me.IP4.String()+" 2222\nin and out\n") {
			return fmt.Errorf("%v", r)
		}
		return nil
	})
	w.NoStrays(t)
}

// sshd writes what an ordinary user's sshd on port 2222 needs, and returns its
// configuration and root's copy of the key that may log in.
func sshd(t testing.TB, w *viewtest.World) (conf, key string) {
	t.Helper()
	dir := filepath.Join(w.Home(), "sshd")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	conf, err := viewtest.SSHDConf(dir, 2222)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"hostkey", "id"} {
		if err := os.Chown(filepath.Join(dir, f), viewtest.UID, viewtest.GID); err != nil {
			t.Fatal(err)
		}
	}
	b, _ := os.ReadFile(filepath.Join(dir, "id"))
	key = filepath.Join(w.Dir(), "rootid") // ssh insists on the owner
	if err := os.WriteFile(key, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return conf, key
}

// TestIntegrationUDPServer: datagrams to a server in the view.
func TestIntegrationUDPServer(t *testing.T) {
	viewtest.Need(t, "/usr/bin/python3")
	w, p, me := lab(t)
	start(t, w.Umrun(t, me.Conf, "/usr/bin/python3", "-c", `
import socket
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.bind(("::", 9999))
while True:
    d, a = s.recvfrom(65536); s.sendto(d.upper(), a)
`))
	for _, at := range []string{hostport(me.IP4, 9999), hostport(me.IP6, 9999)} {
		c, err := p.DialContext(t.Context(), "udp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		viewtest.Eventually(t, 20*time.Second, func() error {
			fmt.Fprint(c, "question")
			c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
			b := make([]byte, 100)
			n, err := c.Read(b)
			if err == nil && string(b[:n]) != "QUESTION" {
				err = fmt.Errorf("got %q", b[:n])
			}
			return err
		})
	}
	w.NoStrays(t)
}

// TestIntegrationTwoTunnels: two views at once, two peers with the same
// addresses; each sees its own.
func TestIntegrationTwoTunnels(t *testing.T) {
	viewtest.Need(t, "curl")
	w, p0, c0 := lab(t)
	p1 := w.AddPeer(t)
	p1.Client(t)
	c1 := p1.Client(t) // another address than c0's
	var views []*viewtest.Cmd
	for _, c := range []*viewtest.Client{c0, c1} {
		views = append(views, start(t, w.Umrun(t, c.Conf, "sh", "-c",
			"for i in 1 2 3 4 5; do curl -4sS -m20 http://www.lab.test/ http://10.77.0.1/addr || exit; done")))
	}
	for i, c := range []*viewtest.Client{c0, c1} {
		want := strings.Repeat(fmt.Sprintf("<title>lab</title>peer %d\n%v\n", i, c.IP4), 5)
		if r := views[i].Result(); r.Status != 0 || r.Stdout != want {
			t.Errorf("want %q, got %v", want, r)
		}
	}
	w.NoStrays(t)
	for i, p := range []*viewtest.Peer{p0, p1} {
		if q := p.Queries(); !strings.Contains(q, viewtest.NameWeb) {
			t.Errorf("peer %d was not asked for %s:\n%s", i, viewtest.NameWeb, q)
		}
	}
	// The host reaches neither.
	if r := w.HostCmd(t.Context(), "curl", "-sS", "-m2", "http://10.77.0.1/").Result(); r.Status == 0 {
		t.Errorf("outside of the views the page came too: %v", r)
	}
}
