// SPDX-License-Identifier: Apache-2.0

// A terminal, and tools that look at a running program: Ctrl-C, Ctrl-Z and fg
// in a shell, strace and gdb on a program that waits in a trapped call.

package viewtest_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"umrun/view/viewtest"
)

// newTerminal starts an interactive shell in the host.
func newTerminal(t *testing.T, w *viewtest.World) *screen {
	t.Helper()
	c := w.HostCmd(t.Context(), "bash", "--norc", "--noprofile", "-i").AsUser(w.Home())
	c.Env = append(c.Env, "PS1=prompt> ", "TERM=dumb")
	x := onTerminal(t, c)
	x.expect("prompt> ")
	return x
}

// TestIntegrationTerminal: job control works through umrun as without it.
func TestIntegrationTerminal(t *testing.T) {
	viewtest.Need(t, "bash", "/usr/bin/python3", "curl")
	w, _, me := lab(t)
	x := newTerminal(t, w)
	umrun := viewtest.Binary(t) + " -n " + me.Conf + " -- "

	x.send(umrun + "sh -c 'tty; stty size; test -t 0 && echo on-a-terminal'\n")
	x.expect("on-a-terminal\r\n")
	x.expect("prompt> ")

	// Not sh: a signal that meets it on the way to its child is natively lost, or
	// stops the child before it is one.
	python := umrun + "/usr/bin/python3 -c 'import time, os; print(\"u\" + \"p\", flush=True); "
	x.send(python + "time.sleep(40)'\n")
	x.expect("up\r\n")
	x.send("\x03")
	x.expect("prompt> ")
	x.send("echo status-$?\n")
	x.expect("status-130\r\n")

	x.send(python + "time.sleep(1); os.system(\"curl -4sS -m20 http://www.lab.test/; echo do\" + \"ne\")'\n")
	x.expect("up\r\n")
	x.send("\x1a")
	x.expect("Stopped")
	x.expect("prompt> ")
	x.send("fg\n")
	x.expect("peer 0\r\n")
	x.expect("done\r\n")
	x.expect("prompt> ")
	x.send("echo status-$?\n")
	x.expect("status-0\r\n")

	// A server that waits in accept is stopped and continued.
	x.send(umrun + viewtest.Target(t, "gonet", viewtest.Static) + " serve :8080\n")
	x.expect("ready\r\n")
	x.send("\x1a")
	x.expect("Stopped")
	x.send("bg\n")
	viewtest.Eventually(t, 20*time.Second, func() error {
		_, err := fetch(w.Peers[0], "http://"+hostport(me.IP4, 8080))
		return err
	})
	x.send("kill %1; wait; echo go\"\"ne\n")
	x.expect("gone\r\n")
	w.NoStrays(t)
}

// TestIntegrationControllingTerminal: who has left the session has no terminal, though umrun has one.
func TestIntegrationControllingTerminal(t *testing.T) {
	viewtest.Need(t, "bash", "setsid")
	w, _, _ := lab(t)
	x := newTerminal(t, w)
	for _, umrun := range []string{"", viewtest.Binary(t) + " -n none --fs-engine trap -m tmpfs:/mnt -- "} {
		x.send(umrun + "sh -c 'echo of the \"session\" >/dev/tty'\n")
		x.expect("of the session\r\n")
		x.expect("prompt> ")
		x.send(umrun + "setsid -w sh -c 'exec 3<>/dev/tty; echo ope\"ned\"'\n")
		x.expect("No such device or address\r\n")
		x.expect("prompt> ")
	}
	w.NoStrays(t)
}

// pidOf finds a process of the host by a word of its command line.
func pidOf(t *testing.T, w *viewtest.World, word string, not ...string) int {
	t.Helper()
	var found int
	viewtest.Eventually(t, 20*time.Second, func() error {
	next:
		for _, pid := range w.Host.Pids() {
			b, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
			args := strings.Split(string(b), "\x00")
			for _, n := range not {
				if strings.Contains(string(b), n) {
					continue next
				}
			}
			for _, a := range args {
				if a == word {
					found = pid
					return nil
				}
			}
		}
		return fmt.Errorf("no process with %q", word)
	})
	return found
}

// TestIntegrationTracers: strace and gdb look at a program that waits in
// accept; it goes on as if nothing had been.
func TestIntegrationTracers(t *testing.T) {
	viewtest.Need(t, "/usr/bin/python3", "strace", "gdb")
	for _, tc := range []struct {
		name string
		args func(pid int) []string
		want string
	}{
		{"strace", func(pid int) []string {
			return []string{"timeout", "-s", "INT", "2", "strace", "-f", "-p", fmt.Sprint(pid)}
		}, "attached"},
		{"gdb", func(pid int) []string {
			return []string{"gdb", "-nx", "-batch", "-p", fmt.Sprint(pid), "-ex", "info registers rip", "-ex", "detach"}
		}, "rip"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w, p, me := lab(t)
			start(t, w.Umrun(t, me.Conf, "/usr/bin/python3", "-c", `
import socket
s = socket.create_server(("", 8080))
while True:
    c, a = s.accept(); c.sendall(b"HTTP/1.0 200 OK\r\n\r\nstill here\n"); c.close()
`, "waiting"))
			page := func() error {
				got, err := fetch(p, "http://"+hostport(me.IP4, 8080))
				if err == nil && got != "still here\n" {
					err = fmt.Errorf("got %q", got)
				}
				return err
			}
			viewtest.Eventually(t, 20*time.Second, page)
			pid := pidOf(t, w, "waiting", "/umrun")
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			r := w.HostCmd(ctx, tc.args(pid)...).Result()
			if r.TimedOut || !strings.Contains(r.Stdout+r.Stderr, tc.want) {
				t.Errorf("got %v", r)
			}
			viewtest.Eventually(t, 10*time.Second, page)
		})
	}
}
