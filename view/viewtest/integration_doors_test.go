// SPDX-License-Identifier: Apache-2.0

// Side doors: daemons of the host that would look names up on its network, each
// at its usual place, and what else listens on AF_UNIX sockets.

package viewtest_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"umrun/view/viewtest"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// Where the daemons listen. /var/run is /run.
const (
	doorNSCD     = "/run/nscd/socket"
	doorVarlink  = "/run/systemd/resolve/io.systemd.Resolve"
	doorMonitor  = "/run/systemd/resolve/io.systemd.Resolve.Monitor"
	doorAvahi    = "/run/avahi-daemon/socket"
	doorBus      = "/run/dbus/system_bus_socket"
	openNeighbor = "/run/lab/socket" // no daemon's: programs may talk to it
)

// A visitor is who connected to a socket.
type visitor struct {
	Path string
	PID  int32
	UID  uint32
}

// A porter listens on AF_UNIX sockets of the host and writes down who came.
type porter struct {
	mu       sync.Mutex
	visitors []visitor // guarded by mu
}

func (p *porter) take() []visitor {
	p.mu.Lock()
	defer p.mu.Unlock()
	v := p.visitors
	p.visitors = nil
	return v
}

// listen answers every connection to path by "hello\n".
func (p *porter) listen(t *testing.T, w *viewtest.World, path string) {
	t.Helper()
	var ln *net.UnixListener
	var err error
	w.Host.Do(func() {
		if err = os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return
		}
		if ln, err = net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"}); err == nil && path[0] == '/' {
			err = os.Chmod(path, 0o666)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false) // it is in another mount namespace
	done := make(chan struct{})
	go func() { // ends with its listener
		defer close(done)
		for {
			c, err := ln.AcceptUnix()
			if err != nil {
				return
			}
			v := visitor{Path: path}
			if raw, err := c.SyscallConn(); err == nil {
				raw.Control(func(fd uintptr) {
					if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
						v.PID, v.UID = cred.Pid, cred.Uid
					}
				})
			}
			p.mu.Lock()
			p.visitors = append(p.visitors, v)
			p.mu.Unlock()
			c.Write([]byte("hello\n"))
			c.Close()
		}
	}()
	t.Cleanup(func() {
		ln.Close()
		<-done
	})
}

// knock connects to each argument and prints what it got. A leading "fd:" goes
// there by /proc/self/fd, "rel:" by a name relative to the directory.
const knock = `
import os, socket, sys
for a in sys.argv[1:]:
    how, _, path = a.rpartition(":")
    if how == "fd":
        d = os.open(os.path.dirname(path), os.O_PATH)
        path = "/proc/self/fd/%d/%s" % (d, os.path.basename(path))
    elif how == "rel":
        os.chdir(os.path.dirname(path))
        path = os.path.basename(path)
    elif how == "up":
        os.chdir("/usr/bin")
        path = "../.." + path
    elif how == "abstract":
        path = "\0" + path
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    s.settimeout(10)
    try:
        s.connect(path)
        print(a, s.recv(100).decode().strip(), os.getpid() if a.endswith("lab/socket") else "")
    except OSError as e: print(a, e.strerror)
`

// hostWithDoors is a host with an empty /run and sockets at the daemons' places.
func hostWithDoors(t *testing.T, w *viewtest.World) *porter {
	t.Helper()
	if err := w.Host.Tmpfs("/run"); err != nil {
		t.Fatal(err)
	}
	p := new(porter)
	for _, path := range []string{doorNSCD, doorVarlink, doorMonitor, doorAvahi, doorBus, openNeighbor} {
		p.listen(t, w, path)
	}
	return p
}

// TestIntegrationDoors knocks at every door, by all of its names. Here and below
// each view has a key of its own: a WireGuard peer drops a handshake that follows
// another one of the same key within 20 ms, and it is repeated after 5 s.
func TestIntegrationDoors(t *testing.T) {
	viewtest.Need(t, "/usr/bin/python3", "getent")
	w, p, _ := lab(t)
	porter := hostWithDoors(t, w)
	var names []string
	doors := make(map[string]string) // by name
	for i, path := range []string{doorNSCD, doorVarlink, doorMonitor, doorAvahi, doorBus} {
		link, dir, hard := fmt.Sprintf("%s/link%d", w.Home(), i), fmt.Sprintf("%s/dir%d", w.Home(), i), fmt.Sprintf("/run/lab/hard%d", i)
		var err error
		w.Host.Do(func() {
			err = errors.Join(os.Symlink(path, link), os.Symlink(filepath.Dir(path), dir), os.Link(path, hard))
		})
		if err != nil {
			t.Fatal(err)
		}
		below := strings.TrimPrefix(path, "/run")
		all := []string{path, "/run/lab/../." + below, "//run/" + below, "/proc/self/root" + path, "up:" + path, "rel:" + path,
			"fd:" + path, link, "rel:" + link, dir + "/" + filepath.Base(path), hard, "rel:" + hard}
		if unix.Access("/var/run/.", unix.F_OK) == nil {
			all = append(all, "/var"+path)
		}
		for _, n := range all {
			doors[n] = path
		}
		names = append(names, all...)
	}
	args := append([]string{"/usr/bin/python3", "-c", knock}, names...)

	// Outside of a view they are open, or a refusal would say nothing.
	if r := w.HostCmd(t.Context(), args...).AsUser(w.Home()).Result(); strings.Count(r.Stdout, " hello") != len(names) {
		t.Fatalf("the doors are not open outside: %v", r)
	}
	if n := len(porter.take()); n != len(names) {
		t.Fatalf("the porter saw %d visitors outside, want %d", n, len(names))
	}
	for _, c := range []struct {
		name string
		args []string
		open string // the door that is not shut
	}{
		{"shut", nil, ""},
		{"dbus-none", []string{"--dbus=none"}, ""},
		{"dbus-host", []string{"--dbus=host"}, doorBus},
	} {
		t.Run(c.name, func(t *testing.T) {
			var want strings.Builder
			opened := 0
			for _, n := range names {
				if doors[n] == c.open {
					fmt.Fprintln(&want, n, "hello ")
					opened++
				} else {
					fmt.Fprintln(&want, n, "Connection refused")
				}
			}
			r := w.UmrunFlags(t, append(append(c.args, "-n", p.Client(t).Conf, "--"), args...)...).AsUser(w.Home()).Result()
			if d := cmp.Diff(want.String(), r.Stdout); d != "" {
				t.Errorf("(-want +got):\n%s\n-- stderr\n%s", d, r.Stderr)
			}
			if got := porter.take(); len(got) != opened {
				t.Errorf("%d connections came through, want %d: %v", len(got), opened, got)
			}
		})
	}
	t.Run("names", func(t *testing.T) {
		me := p.Client(t)
		name := wild("doors", "shut")
		if r := w.Umrun(t, me.Conf, "getent", "ahosts", name).Result(); r.Status != 0 || !strings.Contains(r.Stdout, "10.77.0.1") {
			t.Errorf("got %v", r)
		}
		tunneled(t, p, me, name)
		if got := porter.take(); len(got) > 0 {
			t.Errorf("on the way came %v", got)
		}
	})
	w.NoStrays(t)
}

// TestIntegrationNeighbors: sockets that are no doors work, by path and abstract,
// and whom they see is the program.
func TestIntegrationNeighbors(t *testing.T) {
	viewtest.Need(t, "/usr/bin/python3")
	w, p, _ := lab(t)
	porter := hostWithDoors(t, w)
	abstract := fmt.Sprintf("@umrun-lab-%d", os.Getpid())
	porter.listen(t, w, abstract)
	for _, c := range []struct{ name, dir, arg string }{
		{"path", openNeighbor, openNeighbor},
		{"relative", openNeighbor, "rel:" + openNeighbor},
		{"proc", openNeighbor, "fd:" + openNeighbor},
		{"abstract", abstract, "abstract:" + abstract[1:]},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := w.Umrun(t, p.Client(t).Conf, "/usr/bin/python3", "-c", "import os; print(os.getpid(), os.getuid(), flush=True)"+knock, c.arg)
			r := u.Result()
			var pid int32
			var uid uint32
			if _, err := fmt.Sscan(r.Stdout, &pid, &uid); err != nil || !strings.Contains(r.Stdout, "hello") {
				t.Fatalf("got %v", r)
			}
			want := []visitor{{c.dir, pid, uid}}
			if d := cmp.Diff(want, porter.take()); d != "" || uid != viewtest.UID || int(pid) == u.Process.Pid {
				t.Errorf("the peer saw (-want +got):\n%s", d)
			}
		})
	}
}

// TestIntegrationNSCD has the real cache daemon on the host: glibc asks it first,
// and it would ask the host's name servers.
func TestIntegrationNSCD(t *testing.T) {
	viewtest.Need(t, "getent")
	viewtest.Optional(t, "nscd")
	w, p, me := lab(t)
	if err := w.Host.Tmpfs("/run"); err != nil {
		t.Fatal(err)
	}
	w.Host.Do(func() { os.Mkdir("/run/nscd", 0o755) })
	conf := filepath.Join(w.Dir(), "nscd.conf")
	if err := os.WriteFile(conf, []byte("debug-level 2\nenable-cache hosts yes\nnegative-time-to-live hosts 3600\nshared hosts no\npersistent hosts no\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	// Names that are in no zone take the host's resolver long: let it give up soon.
	if err := w.Host.WriteFile("/etc/resolv.conf", "nameserver 198.51.100.1\noptions timeout:1 attempts:1\n"); err != nil {
		t.Fatal(err)
	}
	daemon := start(t, w.HostCmd(t.Context(), "nscd", "-d", "-f", conf))
	viewtest.Eventually(t, 10*time.Second, func() (err error) {
		w.Host.Do(func() { _, err = os.Stat(doorNSCD) })
		return err
	})
	outside := wild("nscd", "outside")
	w.ResetStrays()
	w.HostCmd(t.Context(), "getent", "ahostsv4", outside).AsUser(w.Home()).Result()
	seen := func() string { return daemon.Output() + daemon.Errors() }
	viewtest.Eventually(t, 10*time.Second, func() error {
		if n, _ := w.Strays(); n == 0 || !strings.Contains(seen(), outside) {
			return fmt.Errorf("outside of a view nscd is not asked; it says\n%s", seen())
		}
		return nil
	})
	// The sink counts late on a busy machine, and the resolver tries again: only
	// what comes after a silence longer than its timeout is the view's.
	for before := -1; ; time.Sleep(2 * time.Second) {
		n, _ := w.Strays()
		if n == before {
			break
		}
		before = n
	}
	w.ResetStrays()
	inside := wild("nscd", "inside")
	if r := w.Umrun(t, me.Conf, "getent", "ahostsv4", inside).Result(); r.Status != 0 || !strings.HasPrefix(r.Stdout, "10.77.0.1") {
		t.Errorf("got %v", r)
	}
	tunneled(t, p, me, inside)
	if strings.Contains(seen(), inside) {
		t.Errorf("nscd was asked:\n%s", seen())
	}
	w.NoStrays(t)
}

// TestIntegrationSystemBus has a real system bus on the host.
func TestIntegrationSystemBus(t *testing.T) {
	viewtest.Need(t, "dbus-daemon", "dbus-send")
	w, p, me := lab(t)
	if err := w.Host.Tmpfs("/run"); err != nil {
		t.Fatal(err)
	}
	w.Host.Do(func() { os.Mkdir("/run/dbus", 0o755) })
	conf := filepath.Join(w.Dir(), "bus.conf")
	if err := os.WriteFile(conf, []byte(`<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=`+doorBus+`</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/></policy></busconfig>
`), 0o644); err != nil {
		t.Fatal(err)
	}
	daemon := start(t, w.HostCmd(t.Context(), "dbus-daemon", "--nofork", "--nopidfile", "--config-file="+conf))
	call := words("dbus-send --system --print-reply=literal --reply-timeout=5000 --dest=org.freedesktop.DBus / org.freedesktop.DBus.GetConnectionUnixUser string:org.freedesktop.DBus")
	viewtest.Eventually(t, 10*time.Second, func() error {
		if r := w.HostCmd(t.Context(), call...).AsUser(w.Home()).Result(); r.Status != 0 {
			return fmt.Errorf("%v\n%s%s", r, daemon.Output(), daemon.Errors())
		}
		return nil
	})
	if r := w.Umrun(t, me.Conf, call...).Result(); r.Status == 0 || !strings.Contains(r.Stderr, "Connection refused") {
		t.Errorf("want a refusal, got %v", r)
	}
	// The bus takes nobody whose credentials are not what they say: the user's.
	r := w.UmrunFlags(t, append([]string{"--dbus=host", "-n", p.Client(t).Conf, "--"}, call...)...).AsUser(w.Home()).Result()
	if r.Status != 0 || !strings.Contains(r.Stdout, "uint32 0") {
		t.Errorf("want an answer, got %v", r)
	}
}
