// SPDX-License-Identifier: Apache-2.0

// The program as a process in a view: status, streams, signals, what is still
// under way when it ends, and crowds of connections.

package viewtest_test

import (
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"umrun/view/viewtest"
)

// TestIntegrationStatus: the exit status is the program's, and the words of the
// manual for what never ran.
func TestIntegrationStatus(t *testing.T) {
	w, _, me := lab(t)
	plain := w.File(t, "notexecutable", "#!/bin/sh\n")
	for _, tc := range []struct {
		name string
		args []string
		want int
	}{
		{"zero", words("true"), 0},
		{"one", words("false"), 1},
		{"seven", []string{"sh", "-c", "exit 7"}, 7},
		{"term", []string{"sh", "-c", "kill -TERM $$"}, 128 + 15},
		{"kill", []string{"sh", "-c", "kill -KILL $$"}, 128 + 9},
		{"segv", []string{"sh", "-c", "kill -SEGV $$"}, 128 + 11},
		{"not found", words("/nowhere/at/all"), 127},
		{"not in the path", words("no-such-program-anywhere"), 127},
		{"not executable", []string{plain}, 126},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := w.Umrun(t, me.Conf, tc.args...).Result()
			if r.Status != tc.want || r.Stdout != "" {
				t.Errorf("want status %d and no output, got %v", tc.want, r)
			}
			if tc.want < 126 && r.Stderr != "" {
				t.Errorf("umrun added to stderr: %q", r.Stderr)
			}
		})
	}
}

// TestIntegrationStreams: stdin, stdout, stderr, arguments, environment and
// directory reach the program untouched.
func TestIntegrationStreams(t *testing.T) {
	w, _, me := lab(t)
	u := w.Umrun(t, me.Conf, "sh", "-c", `cat; echo "$1|$WORD|$(pwd)|$(umask)" >&2`, "sh", `a "quoted" $arg`)
	u.Stdin = io.LimitReader(&viewtest.Pattern{}, 1<<20)
	u.Env = append(u.Env, "WORD=in the environment")
	u.Dir = "/usr"
	r := u.Result()
	want, _ := io.ReadAll(io.LimitReader(&viewtest.Pattern{}, 1<<20))
	if r.Stdout != string(want) {
		t.Errorf("%d of %d bytes came through cat", len(r.Stdout), len(want))
	}
	if w := "a \"quoted\" $arg|in the environment|/usr|0022\n"; r.Stderr != w || r.Status != 0 {
		t.Errorf("status %d, stderr %q, want %q", r.Status, r.Stderr, w)
	}
}

// TestIntegrationForwarded: signals that somebody sends to umrun are the
// program's.
func TestIntegrationForwarded(t *testing.T) {
	w, _, me := lab(t)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGQUIT} {
		t.Run(sig.String(), func(t *testing.T) {
			n := int(sig)
			u := start(t, w.Umrun(t, me.Conf, "sh", "-c", fmt.Sprintf("trap 'echo got %d; exit 9' %d; echo ready; while :; do sleep 0.05; done", n, n)))
			awaitOutput(t, u, "ready\n")
			syscall.Kill(u.Process.Pid, sig) // to umrun alone
			if r := u.Result(); r.Status != 9 || r.Stdout != fmt.Sprintf("ready\ngot %d\n", n) {
				t.Errorf("got %v", r)
			}
		})
	}
	t.Run("kill of umrun", func(t *testing.T) {
		u := start(t, w.Umrun(t, me.Conf, "sh", "-c", "echo ready; exec sleep 50"))
		awaitOutput(t, u, "ready\n")
		syscall.Kill(u.Process.Pid, syscall.SIGKILL)
		u.Wait()
		gone(t, w, 10*time.Second)
	})
}

// gone waits until nothing of a view is left.
func gone(t testing.TB, w *viewtest.World, within time.Duration) {
	t.Helper()
	viewtest.Eventually(t, within, func() error {
		if left := w.Host.Pids(); len(left) > 0 {
			return fmt.Errorf("still running: %v", left)
		}
		return nil
	})
}

func awaitOutput(t *testing.T, u *viewtest.Cmd, want string) {
	t.Helper()
	viewtest.Eventually(t, 20*time.Second, func() error {
		if got := u.Output(); !strings.Contains(got, want) {
			return fmt.Errorf("stdout %q, stderr %q", got, u.Errors())
		}
		return nil
	})
}

// TestIntegrationDelivery: what was written is delivered, also when the program
// ends at once.
func TestIntegrationDelivery(t *testing.T) {
	viewtest.Need(t, "gcc")
	w, p, _ := lab(t)
	for _, tc := range []delivery{
		{"exit", 1, 0}, {"exit", 100, 0}, {"exit", 200_000, 0}, {"exit", 8 << 20, 0},
		{"close", 3 << 20, 0}, {"shut", 3 << 20, 0}, {"shut", 200_000, 0}, {"kill", 3 << 20, 128 + 9}, {"slow", 6 << 20, 0},
	} {
		tc.run(t, w, p, "", 10)
	}
	w.NoStrays(t)
}

// A delivery is a program that writes size bytes and ends.
type delivery struct {
	how    string
	size   int64
	status int
}

// run does it some times on a network with the keys, since what is lost at the end is
// lost by a race, and asks the peer what it has.
func (d delivery) run(t *testing.T, w *viewtest.World, p *viewtest.Peer, keys string, times int) {
	bin := viewtest.Target(t, "delivery", viewtest.Dynamic)
	t.Run(fmt.Sprintf("%s-%d", d.how, d.size), func(t *testing.T) {
		if d.how == "slow" {
			times = 1
		}
		for range times {
			p.Digests()
			me := p.Client(t)
			u := w.Umrun(t, me.Conf+keys, bin, d.how, fmt.Sprint(d.size))
			u.Env = append(u.Env, labEnv(me.IP4.String(), me.IP6.String())...)
			r := u.Result()
			if r.Status != d.status {
				t.Errorf("want status %d, got %v", d.status, r)
			}
			var got []string
			viewtest.Eventually(t, 10*time.Second, func() error {
				if got = append(got, p.Digests()...); len(got) == 0 {
					return fmt.Errorf("the peer saw no end of the connection; %v", r)
				}
				return nil
			})
			if want := viewtest.PatternSum(d.size); got[0] != want {
				t.Errorf("the peer counted %q, want %q; %v", got[0], want, r)
			}
		}
	})
}

// TestIntegrationStuck: a peer that takes nothing is waited for, a minute long,
// and then umrun says what was lost; the status stays the program's.
func TestIntegrationStuck(t *testing.T) {
	viewtest.Need(t, "gcc")
	w, _, me := lab(t)
	w.Patience = 100 * time.Second
	u := w.Umrun(t, me.Conf, viewtest.Target(t, "delivery", viewtest.Dynamic), "stuck", "1000000")
	u.Env = append(u.Env, labEnv(me.IP4.String(), me.IP6.String())...)
	r := u.Result()
	if r.Status != 0 || r.Took < 50*time.Second || r.Took > 80*time.Second || !strings.Contains(r.Stderr, "not acknowledged") {
		t.Errorf("want status 0 after a minute and a word about it, got %v", r)
	}
}

// TestIntegrationCrowd: 1,000 connections at once, every byte by hash.
func TestIntegrationCrowd(t *testing.T) {
	viewtest.Need(t, "gcc")
	w, _, me := lab(t)
	u := w.Umrun(t, me.Conf, "sh", "-c", `ulimit -n 4096; exec "$0" "$@"`, viewtest.Target(t, "delivery", viewtest.Dynamic), "crowd", "1000")
	u.Env = append(u.Env, labEnv(me.IP4.String(), me.IP6.String())...)
	if r := u.Result(); r.Status != 0 || r.Stdout != "crowd: 1000 right, 0 wrong, 0 without end\n" {
		t.Errorf("got %v", r)
	}
	w.NoStrays(t)
}

// TestIntegrationSeries: 10,000 connections one after the other leave nothing
// behind in umrun.
func TestIntegrationSeries(t *testing.T) {
	viewtest.Need(t, "gcc")
	w, _, me := lab(t)
	const n = 10_000
	w.Patience = 3 * time.Minute
	u := w.Umrun(t, me.Conf, viewtest.Target(t, "delivery", viewtest.Dynamic), "series", fmt.Sprint(n))
	u.Env = append(u.Env, append(labEnv(me.IP4.String(), me.IP6.String()), "LAB_WAIT=1")...)
	in, err := u.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	start(t, u)
	// A few connections are made before anything is counted: pools fill up.
	viewtest.Eventually(t, 20*time.Second, func() error { _, err := held(u.Process.Pid); return err })
	viewtest.Eventually(t, 100*time.Second, func() error {
		if !strings.Contains(u.Output(), "series") {
			return fmt.Errorf("stdout %q, stderr %q", u.Output(), u.Errors())
		}
		return nil
	})
	if want := fmt.Sprintf("series: %d of %d, highest descriptor below 10: yes\n", n, n); u.Output() != want {
		t.Errorf("got %q, want %q", u.Output(), want)
	}
	viewtest.Eventually(t, 10*time.Second, func() error {
		fds, err := held(u.Process.Pid)
		if err == nil && fds > 64 {
			err = fmt.Errorf("umrun holds %d descriptors after %d connections", fds, n)
		}
		return err
	})
	in.Close()
	if r := u.Result(); r.Status != 0 {
		t.Errorf("got %v", r)
	}
	w.NoStrays(t)
}

// held counts the descriptors of a process.
func held(pid int) (int, error) {
	d, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return len(d), err
}

// TestIntegrationDead: networks that do not come up say so, with their status.
func TestIntegrationDead(t *testing.T) {
	w, p, me := lab(t)
	strange := strings.Replace(me.Text, "PrivateKey = "+me.PrivateKey, "PrivateKey = "+strings.Repeat("A", 42)+"8=", 1)
	for _, tc := range []struct {
		name, conf string
		status     int
		stderr     string
	}{
		{"nobody answers", strings.Replace(me.Text, p.Endpoint, "192.0.2.1:51829", 1), 120, "192.0.2.1:51829"},
		{"a key that the peer does not know", strange, 120, p.Endpoint},
		{"a bad key", strings.Replace(me.Text, me.PrivateKey, "nonsense", 1), 122, "wg.conf:2"},
		{"a misspelt word", strings.Replace(me.Text, "Address", "Adress", 1), 122, `"Address"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			conf := w.File(t, "wg.conf", tc.conf)
			r := w.UmrunFlags(t, "-n", conf, "--wait", "2s", "--", "echo", "ran").AsUser(w.Home()).Result()
			if r.Status != tc.status || r.Stdout != "" || !strings.Contains(r.Stderr, tc.stderr) {
				t.Errorf("want status %d and %q, got %v", tc.status, tc.stderr, r)
			}
		})
	}
	t.Run("no such file", func(t *testing.T) {
		if r := w.Umrun(t, "/nowhere/wg.conf", "true").Result(); r.Status != 122 {
			t.Errorf("got %v", r)
		}
	})
	w.NoStrays(t)
}
