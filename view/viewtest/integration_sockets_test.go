// SPDX-License-Identifier: Apache-2.0

// The paths of AF_UNIX addresses in a view with mounts: they are the view's.

package viewtest_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"umrun/fsmod/mounttest"
	"umrun/view/viewtest"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// TestIntegrationSocketPaths holds what sockets do in mounts against a plain directory.
func TestIntegrationSocketPaths(t *testing.T) {
	viewtest.Need(t, "/usr/bin/python3")
	w := viewtest.New(t)
	script, err := filepath.Abs("testdata/sockets/names.py")
	if err != nil {
		t.Fatal(err)
	}
	want := w.HostCmd(context.Background(), "/usr/bin/python3", script, filepath.Join(mountTree(t, w, false), "dst")).Result()
	if want.Status != 0 || strings.Count(want.Stdout, "\n") < 20 {
		t.Fatal(want)
	}
	for _, user := range []bool{false, true} {
		for _, engine := range []string{"ns", "trap"} {
			for _, kind := range []string{"bind:DIR/src:DIR/dst", "tmpfs:DIR/dst", "cow::DIR/dst", "hide:DIR/bin"} {
				name := fmt.Sprintf("user=%v/%s/%s", user, engine, kind)
				networks := []string{"none"}
				if kind == "hide:DIR/bin" {
					networks = append(networks, "host") // where other calls trap
				}
				for _, network := range networks {
					t.Run(name+"/"+network, func(t *testing.T) {
						dir := mountTree(t, w, user)
						flags := []string{"-q", "-n", network, "--fs-engine", engine, "-m", strings.ReplaceAll(kind, "DIR", dir)}
						got := umrunAs(t, w, user, append(flags, "--", "/usr/bin/python3", w.File(t, "names.py", readFile(t, script)), dir+"/dst")...).Result()
						if diff := cmp.Diff(want.Stdout, got.Stdout); diff != "" || got.Status != 0 {
							t.Errorf("natively -, in the view +:\n%s%v", diff, got)
						}
					})
				}
			}
		}
	}
	w.NoStrays(t)
}

// TestIntegrationHiddenSockets: what is hidden is not reached by any path that changes while
// it is used. Natively the same program reaches it.
func TestIntegrationHiddenSockets(t *testing.T) {
	viewtest.Need(t, "/usr/bin/python3")
	w := viewtest.New(t)
	script := w.File(t, "race.py", readFile(t, "testdata/sockets/race.py"))
	lab := func(t *testing.T) string {
		dir := mountTree(t, w, false)
		for _, name := range []string{"open", "secret"} {
			if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
				t.Fatal(err)
			}
			ln, err := net.Listen("unix", filepath.Join(dir, name, "sock"))
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() { // ends with its listener
				defer close(done)
				for {
					c, err := ln.Accept()
					if err != nil {
						return
					}
					c.Write([]byte(name))
					c.Close()
				}
			}()
			t.Cleanup(func() {
				ln.Close()
				<-done
			})
		}
		return dir
	}
	reached := func(t *testing.T, r viewtest.Result) (open, secret int) {
		if _, err := fmt.Sscanf(r.Stdout, "open %d secret %d", &open, &secret); err != nil || open == 0 {
			t.Fatal(r)
		}
		return open, secret
	}
	t.Run("native", func(t *testing.T) {
		if _, secret := reached(t, w.HostCmd(context.Background(), "/usr/bin/python3", script, lab(t)).Result()); secret == 0 {
			t.Error("nothing is reached, so that the test tells nothing")
		}
	})
	for _, engine := range []string{"ns", "trap"} {
		for _, network := range []string{"none", "host"} {
			t.Run(engine+"/"+network, func(t *testing.T) {
				dir := lab(t)
				r := umrunAs(t, w, false, "-q", "-n", network, "--fs-engine", engine, "-m", "hide:"+dir+"/secret", "--", "/usr/bin/python3", script, dir).Result()
				if open, secret := reached(t, r); secret > 0 || open < 10 {
					t.Errorf("%d times what is open, %d times what is hidden", open, secret)
				}
			})
		}
	}
}

// listenSecret has sockets in dir, and returns what they were told by when they are asked.
func listenSecret(t *testing.T, dir string) (heard func() string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: dir + "/stream"})
	if err != nil {
		t.Fatal(err)
	}
	dgram, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: dir + "/dgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ln.Close()
		dgram.Close()
	})
	var all sync.Map
	hear := func(c net.Conn) error {
		b := make([]byte, 64)
		n, err := c.Read(b)
		if n > 0 {
			all.Store(string(b[:n]), true)
		} else if c != net.Conn(dgram) {
			all.Store("(silence)", true)
		}
		return err
	}
	var wg sync.WaitGroup
	wg.Go(func() { // both end when they are asked
		for c, err := ln.Accept(); err == nil; c, err = ln.Accept() {
			hear(c)
			c.Close()
		}
	})
	wg.Go(func() {
		for hear(dgram) == nil {
		}
	})
	return func() string {
		soon := time.Now().Add(50 * time.Millisecond) // it is there
		ln.SetDeadline(soon)
		dgram.SetReadDeadline(soon)
		wg.Wait()
		var names []string
		all.Range(func(k, _ any) bool {
			names = append(names, k.(string))
			return true
		})
		bound, _ := filepath.Glob(dir + "/bind.*")
		for _, path := range bound {
			names = append(names, filepath.Base(path))
		}
		slices.Sort(names)
		return strings.Join(names, " ")
	}
}

// TestIntegrationSwappedSockets: nothing that another thread puts under the number of a
// descriptor, or into a message, brings a call to what is hidden. Natively each call gets there.
func TestIntegrationSwappedSockets(t *testing.T) {
	viewtest.Need(t, "amd64", "gcc")
	w := viewtest.New(t)
	bin := filepath.Join(w.Dir(), "swap")
	for _, bits := range []string{"-m32", "-m64"} {
		if out, err := exec.Command("gcc", bits, "-static", "-pthread", "-o", bin+bits, "testdata/sockets/swap.c").CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	ways := map[string]int{}
	for _, bits := range []string{"-m32", "-m64"} {
		t.Run("native/"+bits, func(t *testing.T) {
			var all string
			missing := func(call string) bool { return !strings.Contains(all, call) }
			calls := []string{"connect/", "bind.", "sendto/", "sendmsg/", "sendmmsg/", "sendmsg/address", "sendmmsg/address"}
			if bits == "-m32" {
				calls = append(calls, "socketcall/address")
			}
			for range 10 { // on a busy machine a thread may not come between the two steps of the other
				dir := mountTree(t, w, false)
				if err := os.Mkdir(dir+"/open", 0o755); err != nil {
					t.Fatal(err)
				}
				heard := listenSecret(t, dir+"/secret")
				r := w.HostCmd(context.Background(), bin+bits, dir).Result()
				all += " " + heard()
				ways[bits] = strings.Count(r.Stdout, "\n")
				if !slices.ContainsFunc(calls, missing) {
					return
				}
			}
			t.Errorf("not all of %q get there: %s", calls, all)
		})
	}
	inView := func(engine, network, bits string, user bool) {
		t.Run(fmt.Sprintf("%s/%s/%s/user=%v", engine, network, bits, user), func(t *testing.T) {
			dir := mountTree(t, w, user)
			if err := os.Mkdir(dir+"/open", 0o777); err != nil {
				t.Fatal(err)
			}
			heard := listenSecret(t, dir+"/secret")
			for _, name := range []string{dir + "/open", dir + "/secret/stream", dir + "/secret/dgram"} {
				if err := os.Chmod(name, 0o777); err != nil {
					t.Fatal(err)
				}
			}
			r := umrunAs(t, w, user, "-q", "-n", network, "--fs-engine", engine, "-m", "hide:"+dir+"/secret", "--", bin+bits, dir).Result()
			reached := heard()
			if reached != "" || r.Status != 0 || ways[bits] < 40 || strings.Count(r.Stdout, "\n") != ways[bits] {
				t.Errorf("reached by %q: %v", reached, r)
			}
		})
	}
	for _, bits := range []string{"-m32", "-m64"} {
		for _, network := range []string{"none", "none,stack=kernel", "host"} {
			inView("ns", network, bits, false)
			inView("trap", network, bits, false)
		}
		inView("ns", "none", bits, true)
		for _, network := range []string{"none", "none,stack=kernel", "host"} {
			inView("trap", network, bits, true)
		}
	}
	w.NoStrays(t)
}

// TestIntegrationPeerCredentials: who is connected to sees the user and groups of a program that
// has other ones than umrun, and whoever connects waits without O_NONBLOCK.
func TestIntegrationPeerCredentials(t *testing.T) {
	viewtest.Need(t, "root", "/usr/bin/python3")
	w := viewtest.New(t)
	script := w.File(t, "peer.py", readFile(t, "testdata/sockets/peer.py"))
	seen := func(args ...string) string {
		dir := mountTree(t, w, false)
		mounttest.Public(t, dir)
		cmd := w.HostCmd(context.Background(), "/usr/bin/python3", script, dir)
		if len(args) > 0 {
			cmd = umrunAs(t, w, false, append(append([]string{"-q", "-m", "hide:" + dir + "/src"}, args...), "--", "/usr/bin/python3", script, dir)...)
		}
		r := cmd.Result()
		if r.Status != 0 {
			t.Fatal(r)
		}
		return r.Stdout
	}
	want := seen()
	if !strings.Contains(want, "uid 2001 gid 3001 groups [3005]") || !strings.Contains(want, "O_NONBLOCK 0") {
		t.Fatal(want)
	}
	for _, engine := range []string{"ns", "trap"} {
		for _, network := range []string{"none", "none,stack=kernel", "host"} {
			if diff := cmp.Diff(want, seen("-n", network, "--fs-engine", engine)); diff != "" {
				t.Errorf("%s/%s: natively -, in the view +:\n%s", engine, network, diff)
			}
		}
	}
	w.NoStrays(t)
}

// TestIntegrationSends holds sends that wait, on sockets of the kernel's, against those that
// nobody makes for the program.
func TestIntegrationSends(t *testing.T) {
	viewtest.Need(t, "/usr/bin/python3")
	w := viewtest.New(t)
	script := w.File(t, "sends.py", readFile(t, "testdata/sockets/sends.py"))
	want := w.HostCmd(context.Background(), "/usr/bin/python3", script).Result()
	if want.Status != 0 || strings.Count(want.Stdout, "\n") < 18 {
		t.Fatal(want)
	}
	for _, user := range []bool{false, true} {
		for _, network := range []string{"host", "none,stack=kernel"} {
			t.Run(fmt.Sprintf("user=%v/%s", user, network), func(t *testing.T) {
				got := umrunAs(t, w, user, "-q", "-n", network, "--fs-engine", "trap", "-m", "hide:/mnt", "--", "/usr/bin/python3", script).Result()
				if diff := cmp.Diff(want.Stdout, got.Stdout); diff != "" || got.Status != 0 {
					t.Errorf("natively -, in the view +:\n%s%v", diff, got)
				}
			})
		}
	}
	w.NoStrays(t)
}

// TestIntegrationSelves holds what messages by connected sockets say of their senders, and how
// they are sent, against those that nobody makes for the program.
func TestIntegrationSelves(t *testing.T) {
	viewtest.Need(t, "/usr/bin/python3")
	w := viewtest.New(t)
	script := w.File(t, "selves.py", readFile(t, "testdata/sockets/selves.py"))
	want := w.HostCmd(context.Background(), "/usr/bin/python3", script).Result()
	if want.Status != 0 || strings.Count(want.Stdout, "\n") < 24 {
		t.Fatal(want)
	}
	for _, user := range []bool{false, true} {
		for _, network := range []string{"none", "none,stack=kernel", "host"} {
			t.Run(fmt.Sprintf("user=%v/%s", user, network), func(t *testing.T) {
				got := umrunAs(t, w, user, "-q", "-n", network, "--fs-engine", "trap", "-m", "hide:/mnt", "--", "/usr/bin/python3", script).Result()
				if diff := cmp.Diff(want.Stdout, got.Stdout); diff != "" || got.Status != 0 {
					t.Errorf("natively -, in the view +:\n%s%v", diff, got)
				}
			})
		}
	}
	w.NoStrays(t)
}

// TestIntegrationHiddenMessages: a message that is not the first does not reach a hidden socket
// by its address. Natively it does.
func TestIntegrationHiddenMessages(t *testing.T) {
	viewtest.Need(t, "amd64", "gcc")
	w := viewtest.New(t)
	bin := t.TempDir() + "/messages"
	for _, bits := range []string{"-m32", "-m64"} {
		if out, err := exec.Command("gcc", bits, "-static", "-o", bin+bits, "testdata/sockets/messages.c").CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	const one = "connect 0\nsent 2\nsent 1 0\n"
	for _, tt := range []struct {
		bits, network, want string
		open, secret        int // messages that came
	}{
		{"-m32", "", "connect 0\nsent 2\nsent 2 0\n", 3, 1},
		{"-m64", "", "connect 0\nsent 2\nsent 2 0\n", 3, 1},
		{"-m32", "none", one, 3, 0}, {"-m32", "host", one, 3, 0},
		{"-m64", "none", one, 3, 0}, {"-m64", "host", one, 3, 0},
	} {
		t.Run(tt.bits+"/"+tt.network, func(t *testing.T) {
			dir := mountTree(t, w, false)
			socks := map[string]*net.UnixConn{}
			for _, name := range []string{"open", "secret"} {
				if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
					t.Fatal(err)
				}
				c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: filepath.Join(dir, name, "sock")})
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				socks[name] = c
			}
			r := w.HostCmd(context.Background(), bin+tt.bits, dir)
			if tt.network != "" {
				r = umrunAs(t, w, false, "-q", "-n", tt.network, "--fs-engine", "trap", "-m", "hide:"+dir+"/secret", "--", bin+tt.bits, dir)
			}
			got := r.Result()
			came := func(name string) (n int) {
				socks[name].SetReadDeadline(time.Now().Add(50 * time.Millisecond)) // they are there
				for {
					if _, err := socks[name].Read(make([]byte, 10)); err != nil {
						return n
					}
					n++
				}
			}
			if open, secret := came("open"), came("secret"); got.Stdout != tt.want || open != tt.open || secret != tt.secret {
				t.Errorf("%d messages to what is open, %d to what is hidden: %v", open, secret, got)
			}
		})
	}
	w.NoStrays(t)
}

// TestIntegrationClaims: a program that has given its rights away says of itself in messages
// what it may natively, though it is root who sends them.
func TestIntegrationClaims(t *testing.T) {
	viewtest.Need(t, "root", "/usr/bin/python3")
	w := viewtest.New(t)
	script := w.File(t, "claims.py", readFile(t, "testdata/sockets/claims.py"))
	said := func(network string) (out string, heard []string) {
		dir := mountTree(t, w, false)
		c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: dir + "/sock"})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		rc, err := c.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if e := rc.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) }); e != nil || err != nil {
			t.Fatal(e, err)
		}
		mounttest.Public(t, dir)
		if err := os.Chmod(dir+"/sock", 0o777); err != nil {
			t.Fatal(err)
		}
		cmd := w.HostCmd(context.Background(), "/usr/bin/python3", script, dir+"/sock")
		if network != "" {
			cmd = umrunAs(t, w, false, "-q", "-n", network, "--fs-engine", "trap", "-m", "hide:"+dir+"/src", "--", "/usr/bin/python3", script, dir+"/sock")
		}
		r := cmd.Result()
		if r.Status != 0 {
			t.Fatal(r)
		}
		oob := make([]byte, 100)
		c.SetReadDeadline(time.Now().Add(50 * time.Millisecond)) // they are there
		for {
			_, n, _, _, err := c.ReadMsgUnix(make([]byte, 10), oob)
			if err != nil {
				return r.Stdout, heard
			}
			messages, err := unix.ParseSocketControlMessage(oob[:n])
			if err != nil || len(messages) != 1 {
				t.Fatal(messages, err)
			}
			cred, err := unix.ParseUnixCredentials(&messages[0])
			if err != nil {
				t.Fatal(err)
			}
			heard = append(heard, fmt.Sprint(cred.Uid, " ", cred.Gid))
		}
	}
	want, wantHeard := said("")
	if strings.Count(want, "sent") != 3 || len(wantHeard) != 4 {
		t.Fatal(want, wantHeard)
	}
	for _, network := range []string{"none", "host"} {
		got, heard := said(network)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: natively -, in the view +:\n%s", network, diff)
		}
		if diff := cmp.Diff(wantHeard, heard); diff != "" {
			t.Errorf("%s: who is heard, natively -, in the view +:\n%s", network, diff)
		}
	}
	w.NoStrays(t)
}
