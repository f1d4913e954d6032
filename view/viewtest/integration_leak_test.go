// SPDX-License-Identifier: Apache-2.0

// Ways out of a view: each is tried, by an ordinary user and on purpose, and
// must be closed.

package viewtest_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"umrun/view/viewtest"

	"github.com/google/go-cmp/cmp"
)

// refusedFamilies is what the target prints for families and netlink protocols.
const refusedFamilies = `AF_PACKET: ok
AF_PACKET: taken by 2 interfaces
AF_PACKET DGRAM: ok
AF_PACKET DGRAM: taken by 2 interfaces
SOCK_PACKET: EINVAL
AF_VSOCK: EAFNOSUPPORT
AF_ALG: EAFNOSUPPORT
AF_TIPC: EAFNOSUPPORT
AF_BLUETOOTH: EAFNOSUPPORT
AF_XDP: EAFNOSUPPORT
AF_SMC: EAFNOSUPPORT
AF_CAN: EAFNOSUPPORT
AF_QIPCRTR: EAFNOSUPPORT
AF_KEY: EAFNOSUPPORT
AF_RDS: EAFNOSUPPORT
family 45: EAFNOSUPPORT
family -1: EAFNOSUPPORT
AF_UNSPEC: EAFNOSUPPORT
AF_UNIX: ok
socketpair AF_TIPC: EAFNOSUPPORT
NETLINK_ROUTE: ok
NETLINK_USERSOCK: EPROTONOSUPPORT
NETLINK_FIREWALL: EPROTONOSUPPORT
NETLINK_SOCK_DIAG: ok
NETLINK_XFRM: EPROTONOSUPPORT
NETLINK_AUDIT: EPROTONOSUPPORT
NETLINK_NETFILTER: EPROTONOSUPPORT
NETLINK_KOBJECT_UEVENT: ok
NETLINK_GENERIC: EPROTONOSUPPORT
NETLINK_CRYPTO: EPROTONOSUPPORT
plain: made, reaches outside: no
`

// kernelFamilies is the same of a namespace, which has more netlink protocols.
var kernelFamilies = strings.NewReplacer(
	"SOCK_PACKET: EINVAL", "SOCK_PACKET: ok",
	"NETLINK_USERSOCK: EPROTONOSUPPORT", "NETLINK_USERSOCK: ok",
	"NETLINK_XFRM: EPROTONOSUPPORT", "NETLINK_XFRM: ok",
	"NETLINK_NETFILTER: EPROTONOSUPPORT", "NETLINK_NETFILTER: ok",
	"NETLINK_GENERIC: EPROTONOSUPPORT", "NETLINK_GENERIC: ok",
).Replace(refusedFamilies)

// out is what the target says when an attempt got somewhere.
var out = regexp.MustCompile(`\bOUT\b`)

// TestIntegrationLeaks runs the target that tries to get out.
func TestIntegrationLeaks(t *testing.T) {
	viewtest.Need(t, "gcc", "amd64")
	w, _, me := lab(t)

	// Somebody listens where only the host's network reaches, on loopback too.
	var reached atomic.Int32
	for _, at := range []string{"198.51.100.2:99", "127.0.0.1:99"} {
		ln, err := w.Host.Listen("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		count(t, ln, &reached)
	}
	// And a name service cache, at its usual place.
	var asked atomic.Int32
	if err := w.Host.Tmpfs("/run"); err != nil {
		t.Fatal(err)
	}
	var nscd net.Listener
	var err error
	w.Host.Do(func() {
		if err = os.MkdirAll("/run/nscd", 0o755); err == nil {
			nscd, err = net.Listen("unix", "/run/nscd/socket")
			os.Chmod("/run/nscd/socket", 0o666)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	nscd.(*net.UnixListener).SetUnlinkOnClose(false) // it is in another mount namespace
	count(t, nscd, &asked)
	link := filepath.Join(w.Home(), "link")
	if err := os.Symlink("/run/nscd/socket", link); err != nil {
		t.Fatal(err)
	}

	for _, c := range leakers {
		t.Run(c.name, func(t *testing.T) { leak(t, w, me.Conf, link, c) })
	}
	if n := reached.Load(); n > 0 {
		t.Errorf("the host's listeners were reached %d times", n)
	}
	if n := asked.Load(); n > 0 {
		t.Errorf("the name service cache was reached %d times", n)
	}
	w.NoStrays(t)
}

// A leaker is who tries.
type leaker struct {
	name  string
	keys  string // of the network
	root  bool
	kinds []string
}

// leakers: root may steal descriptors and enter namespaces, which is said; nothing of
// what it does without meaning to gets out.
var leakers = []leaker{
	{name: "netstack", kinds: []string{"families", "doors", "interfaces", "namespaces", "inherited", "steal", "unix"}},
	{name: "kernel", keys: ",stack=kernel", kinds: []string{"families", "doors", "interfaces", "namespaces", "inherited", "steal", "unix"}},
	{name: "kernel-root", keys: ",stack=kernel", root: true, kinds: []string{"families", "doors", "interfaces", "inherited", "unix"}},
}

// leak tries the ways out of one view.
func leak(t *testing.T, w *viewtest.World, conf, link string, who leaker) {
	for _, how := range []viewtest.Linking{viewtest.Dynamic, viewtest.I386} {
		for _, kind := range who.kinds {
			for _, at := range []string{"198.51.100.2:99", "127.0.0.1:99"} {
				if at == "127.0.0.1:99" && kind != "doors" {
					continue
				}
				t.Run(fmt.Sprintf("%s-%s-%s", how, kind, at), func(t *testing.T) {
					prog := []string{"-n", conf + who.keys, "--", viewtest.Target(t, "leak", how), kind}
					u := w.UmrunFlags(t, prog...)
					if !who.root {
						u = u.AsUser(w.Home())
					}
					u.Env = append(u.Env, "LAB_OUTSIDE4="+at, "LAB_INHERIT=3", "LAB_LINK="+link)
					inherited, err := w.Host.Listen("tcp", "127.0.0.1:0")
					if err != nil {
						t.Fatal(err)
					}
					defer inherited.Close()
					f, err := inherited.(*net.TCPListener).File()
					if err != nil {
						t.Fatal(err)
					}
					defer f.Close()
					if kind == "inherited" {
						u.ExtraFiles = []*os.File{f}
					}
					r := u.Result()
					if out.MatchString(r.Stdout) {
						t.Errorf("a way out is open: %v", r)
					}
					switch {
					case how == viewtest.I386:
						// 32-bit programs may be refused whole, or be served; not let out.
					case r.Status != 0:
						t.Errorf("got %v", r)
					case kind == "families":
						want := refusedFamilies
						if who.keys != "" {
							want = kernelFamilies
						}
						if d := cmp.Diff(want, r.Stdout); d != "" {
							t.Errorf("(-want +got):\n%s", d)
						}
					case kind == "doors":
						lines := []string{"io_uring_setup: ENOSYS", "io_uring_enter: ENOSYS", "x32 socket: ENOSYS", "int 0x80 AF_PACKET: E", "int 0x80 io_uring_setup: ENOSYS"}
						if who.keys != "" {
							lines[3] = "int 0x80 AF_PACKET: ok" // of the namespace, like all others
						}
						for _, line := range lines {
							if !strings.Contains(r.Stdout, line) {
								t.Errorf("want %q, got %v", line, r)
							}
						}
					case kind == "namespaces" && strings.Contains(r.Stdout, "socket in an own namespace"):
						if !strings.Contains(r.Stdout, "socket in an own namespace: EACCES") {
							t.Errorf("got %v", r)
						}
					}
				})
			}
		}
	}
}

// count accepts until the test ends.
func count(t *testing.T, ln net.Listener, n *atomic.Int32) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			n.Add(1)
			c.Close()
		}
	}()
	t.Cleanup(func() {
		ln.Close()
		<-done
	})
}

// TestIntegrationMurder: a target that kills the supervisor has no network
// afterwards, not even with a listener of its own.
func TestIntegrationMurder(t *testing.T) {
	viewtest.Need(t, "gcc")
	w, _, me := lab(t)
	report := filepath.Join(w.Home(), "report")
	u := w.Umrun(t, me.Conf, viewtest.Target(t, "leak", viewtest.Dynamic), "murder")
	u.Env = append(u.Env, "LAB_OUTSIDE4=198.51.100.2:99", "LAB_REPORT="+report)
	start(t, u)
	u.Wait()
	const want = "socket: ENOSYS\nlistener: EBUSY\nthen: ENOSYS\n"
	viewtest.Eventually(t, 20*time.Second, func() error {
		b, _ := os.ReadFile(report)
		left := w.Host.Pids()
		if string(b) == want || len(b) == 0 && len(left) == 0 {
			return nil // it lived on without a network, or died with the supervisor
		}
		return fmt.Errorf("the target reports %q, still running: %v", b, left)
	})
	w.NoStrays(t)
}
