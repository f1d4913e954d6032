// SPDX-License-Identifier: Apache-2.0

// Published ports: who comes in, and whom the program sees.

package viewtest_test

import (
	"bufio"
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"umrun/view/viewtest"
)

//go:embed testdata/nat/publish.py
var publishProgram string

// A published is a view that serves port 8000 of both protocols.
type published struct {
	*viewtest.Cmd
	in io.Writer
}

// publish starts it in the host's namespace, as the ordinary user.
func publish(t *testing.T, w *viewtest.World, args ...string) published {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	t.Cleanup(cancel)
	args = append(append([]string{viewtest.Binary(t)}, args...), "--", "/usr/bin/python3", w.File(t, "publish.py", publishProgram))
	u := w.HostCmd(ctx, args...).AsUser(w.Home())
	in, err := u.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := u.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.Stop)
	p := published{u, in}
	p.says(t, "serving")
	return p
}

func (p published) says(t *testing.T, what string) {
	t.Helper()
	viewtest.Eventually(t, 20*time.Second, func() error {
		if !strings.HasSuffix(p.Output(), what+"\n") {
			return fmt.Errorf("%q, not %q\n%s", p.Output(), what, p.Errors())
		}
		return nil
	})
}

// whoTCP connects to a published port and returns as whom the program sees the client,
// after it has moved some data both ways and ended one direction.
func whoTCP(n *viewtest.NS, addr string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	nc, err := n.DialContext(ctx, "tcp", addr)
	if err != nil {
		return "", err
	}
	c := nc.(*net.TCPConn)
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	r := bufio.NewReader(c)
	line, err := r.ReadString('\n')
	if err != nil {
		return "", err
	}
	data := make([]byte, 1<<20)
	rand.Read(data)
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(data)
		sent <- errors.Join(err, c.CloseWrite())
	}()
	got, err := io.ReadAll(r)
	if err := errors.Join(err, <-sent); err != nil {
		return "", err
	}
	if string(got) != string(data) {
		return "", fmt.Errorf("%d other bytes came back", len(got))
	}
	return strings.TrimSpace(line), nil
}

// whoUDP asks a published UDP port the same.
func whoUDP(n *viewtest.NS, addr string) (string, error) {
	c, err := n.DialContext(context.Background(), "udp", addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write([]byte("hello")); err != nil {
		return "", err
	}
	b := make([]byte, 200)
	m, err := c.Read(b)
	if err != nil {
		return "", err
	}
	who, rest, _ := strings.Cut(string(b[:m]), " ")
	if rest != "hello" {
		return "", fmt.Errorf("the answer is %q", b[:m])
	}
	return who, nil
}

func TestIntegrationPublish(t *testing.T) {
	viewtest.Need(t, "/usr/bin/python3")
	w := viewtest.New(t)
	p := w.Peers[0]
	me := p.Client(t)
	for _, tc := range []struct {
		name string
		args []string
		from map[string]string // by host address: as whom the peer is seen there
		port int
	}{
		{"nat", []string{"-n", "nat", "-p", "18000:8000", "-p", "18000:8000/udp"}, map[string]string{
			"192.0.2.2": "192.0.2.1",
		}, 18000},
		{"nat-all", []string{"-n", "nat", "--publish-all"}, map[string]string{"192.0.2.2": "192.0.2.1"}, 8000},
		{"wireguard", []string{"-n", me.Conf, "-p", "192.0.2.2:18001:8000", "-p", "192.0.2.2:18001:8000/udp"}, map[string]string{
			"192.0.2.2": me.IP4.String(),
		}, 18001},
		{"wireguard-all", []string{"-n", me.Conf, "--publish-all"}, map[string]string{"192.0.2.2": me.IP4.String()}, 8000},
	} {
		t.Run(tc.name, func(t *testing.T) {
			u := publish(t, w, tc.args...)
			for host, want := range tc.from {
				at := net.JoinHostPort(host, fmt.Sprint(tc.port))
				// A port of --publish-all is there a moment after the program's.
				viewtest.Eventually(t, 10*time.Second, func() error {
					got, err := whoTCP(p.NS, at)
					if err == nil && got != want {
						err = fmt.Errorf("the client is seen as %s, want %s", got, want)
					}
					return err
				})
				viewtest.Eventually(t, 10*time.Second, func() error {
					got, err := whoUDP(p.NS, at)
					if err == nil && got != want {
						err = fmt.Errorf("the client is seen as %s, want %s", got, want)
					}
					return err
				})
			}
			if strings.HasSuffix(tc.name, "-all") {
				// What listens on the view's loopback stays there.
				if _, err := whoTCP(p.NS, "192.0.2.2:8001"); !errors.Is(err, unix.ECONNREFUSED) {
					t.Errorf("a port of the view's loopback is on the host: %v", err)
				}
				fmt.Fprintln(u.in, "close")
				u.says(t, "closed")
				viewtest.Eventually(t, 10*time.Second, func() error {
					if _, err := whoTCP(p.NS, net.JoinHostPort("192.0.2.2", fmt.Sprint(tc.port))); !errors.Is(err, unix.ECONNREFUSED) {
						return fmt.Errorf("the program has closed its port, the host has not: %v", err)
					}
					if _, err := whoUDP(p.NS, net.JoinHostPort("192.0.2.2", fmt.Sprint(tc.port))); !errors.Is(err, unix.ECONNREFUSED) {
						return fmt.Errorf("the program has closed its UDP port, the host has not: %v", err)
					}
					return nil
				})
			}
		})
	}
}

// TestIntegrationPublishTaken: a port that is another's, or for root.
func TestIntegrationPublishTaken(t *testing.T) {
	w := viewtest.New(t)
	ln, err := w.Host.Listen("tcp", "0.0.0.0:18000")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for _, tc := range []struct{ publish, want string }{
		{"18000:80", "umrun: -p 18000:80/tcp: port 18000/tcp of the host is in use\n"},
		{"80", "umrun: -p 80:80/tcp: port 80 of the host is for privileged programs\n"},
		{"192.0.2.77:18001:80", "umrun: -p 192.0.2.77:18001:80/tcp: 192.0.2.77 is no address of this host\n"},
	} {
		for _, n := range []string{"nat", "none"} {
			r := w.HostCmd(t.Context(), viewtest.Binary(t), "-n", n, "-p", tc.publish, "--", "echo", "ran").AsUser(w.Home()).Result()
			if r.Status != 125 || !strings.HasPrefix(r.Stderr, tc.want) || r.Stdout != "" {
				t.Errorf("-n %s -p %s: %v", n, tc.publish, r)
			}
		}
	}
}
