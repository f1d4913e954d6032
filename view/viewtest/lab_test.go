// SPDX-License-Identifier: Apache-2.0

// The laboratory itself: what it promises to the tests that live in it.

package viewtest_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"umrun/view/viewtest"

	"go.uber.org/goleak"
)

// TestMain also holds the laboratory to its word that nothing runs on.
func TestMain(m *testing.M) {
	code := viewtest.Main(m)
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// TestLabNative: the servers answer through a kernel tunnel, by name too.
func TestLabNative(t *testing.T) {
	viewtest.Need(t, "curl", "nginx", "dnsmasq", "dig")
	w := viewtest.New(t)
	n := w.Peers[0].Native(t)
	for _, tc := range []struct {
		name string
		args []string
		want string
	}{
		{"v4", []string{"curl", "-sS", "-m10", "http://10.77.0.1/"}, "<title>lab</title>peer 0\n"},
		{"v6", []string{"curl", "-sS", "-m10", "http://[fd77::1]/addr"}, "fd77::4\n"},
		{"name", []string{"curl", "-4sS", "-m10", "http://www.lab.test/addr"}, "10.77.0.4\n"},
		{"tls", []string{"curl", "-4sS", "-m10", "--cacert", w.Peers[0].CA(), "https://www.lab.test/addr"}, "10.77.0.4\n"},
		{"digest", []string{"curl", "-sS", "-m10", "telnet://10.77.0.1:1004"}, "greet\n"},
		{"txt", []string{"dig", "+short", "+time=2", "+tries=2", "v6.lab.test", "AAAA"}, "fd77::1\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := n.MustRun(t, tc.args...); got != tc.want {
				t.Errorf("%v: got %q, want %q", tc.args, got, tc.want)
			}
		})
	}
	w.NoStrays(t)
}

// TestLabStrays: a packet that leaves the host beside the tunnel is counted,
// whichever way it takes.
func TestLabStrays(t *testing.T) {
	w := viewtest.New(t)
	for _, to := range []string{"198.51.100.1:53", "10.77.0.1:80", "[2001:db8:ffff::1]:53", "[fd77::1]:80", "192.0.2.1:80"} {
		t.Run(to, func(t *testing.T) {
			w.ResetStrays()
			c, err := w.Host.DialContext(context.Background(), "udp", to)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			fmt.Fprint(c, "stray")
			viewtest.Eventually(t, 5*time.Second, func() error {
				n, what := w.Strays()
				if n == 0 {
					return fmt.Errorf("nothing was counted")
				}
				host, _, _ := net.SplitHostPort(to)
				if !strings.Contains(what, host) {
					return fmt.Errorf("the summary does not name %s:\n%s", host, what)
				}
				return nil
			})
		})
	}
}

// TestLabUser: a command runs as an ordinary user, whose files are its own.
func TestLabUser(t *testing.T) {
	w := viewtest.New(t)
	r := w.HostCmd(context.Background(), "sh", "-c", "id -u; touch $HOME/x && echo ok; exit 3").AsUser(w.Home()).Result()
	if r.Stdout != "61234\nok\n" || r.Status != 3 {
		t.Errorf("got %v", r)
	}
}

// TestLabDeadline: a command that hangs is killed with what it started.
func TestLabDeadline(t *testing.T) {
	w := viewtest.New(t)
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	r := w.HostCmd(ctx, "sh", "-c", "sleep 100 & sleep 100").Result()
	if !r.TimedOut || r.Took > 10*time.Second {
		t.Errorf("got %v", r)
	}
	viewtest.Eventually(t, 5*time.Second, func() error {
		if p := w.Host.Pids(); len(p) > 0 {
			return fmt.Errorf("still there: %v", p)
		}
		return nil
	})
}
