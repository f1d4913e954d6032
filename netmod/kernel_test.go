// SPDX-License-Identifier: Apache-2.0

// Kernel stacks: what traps, what is refused, and that the rest is native.

package netmod_test

import (
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"umrun/intercept"
	"umrun/netmod"
	"umrun/stacks"
	"umrun/stacks/stacktest"
)

func init() {
	targets["kernel-calls"] = kernelCalls
}

// aNamespace is a kernel stack with the sockets of the namespace that the test is in,
// which may say that they are of another.
type aNamespace struct {
	stacktest.Kernel
	ns    stacks.Namespace
	ready bool // sockets need no waiting for
}

func (a aNamespace) Namespace() stacks.Namespace { return a.ns }

func (a aNamespace) SocketFD(family, typ, proto int) (int, error) {
	return unix.Socket(family, typ|unix.SOCK_CLOEXEC, proto)
}

func (a aNamespace) ReadyFD(family, typ, proto int) (int, bool) {
	if !a.ready {
		return -1, false
	}
	fd, err := a.SocketFD(family, typ, proto)
	return fd, err == nil
}

// shut is a Doorkeeper with one shut door.
type shut string

func (s shut) JudgeFile(int) error { return nil }

func (s shut) Judge(_ *intercept.Task, sa []byte) error {
	if strings.Contains(string(sa), string(s)) {
		return unix.ECONNREFUSED
	}
	return nil
}

// newKernelWorld makes a module on a kernel stack.
func newKernelWorld(t *testing.T, st stacks.KernelStack) *world {
	t.Helper()
	w := &world{meter: new(intercept.Meter)}
	var err error
	if w.mod, err = netmod.New(netmod.Config{Stack: st, Log: slog.New(slog.DiscardHandler), Doors: shut("/run/nscd/socket")}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.mod.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// TestKernelStack runs targets natively and on sockets of a kernel stack: there is no
// difference, and only socket(2), connect(2) and, in a domain, bind(2) trap.
func TestKernelStack(t *testing.T) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/net", &st); err != nil {
		t.Fatal(err)
	}
	here := st.Ino
	for _, tc := range []struct {
		name  string
		stack aNamespace
		traps string
	}{
		{"ready", aNamespace{ns: stacks.Namespace{Inode: 1, Private: true}, ready: true}, "connect connect/AF_UNIX socket"},
		{"made", aNamespace{ns: stacks.Namespace{Inode: 1, Private: true}}, "connect connect/AF_UNIX socket"},
		{"here", aNamespace{ns: stacks.Namespace{Inode: here}}, "connect connect/AF_UNIX"},
	} {
		if intercept.HasDomains() {
			tc.traps = "bind " + tc.traps
		}
		t.Run(tc.name, func(t *testing.T) {
			want := natively(t, "kernel-calls")
			w := newKernelWorld(t, tc.stack)
			got, status := w.run(t, "kernel-calls")
			if status.Signaled() {
				t.Errorf("target ended by %v", status.Signal())
			}
			// Nobody answers there natively, or who does is not asked.
			want = strings.Replace(want, "nscd: ENOENT", "nscd: ECONNREFUSED", 1)
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("transcript differs from the kernel's (-kernel +umrun):\n%s", d)
			}
			if traps := trapped(t, w.meter); traps != tc.traps {
				t.Errorf("trapped: %s, want %s", traps, tc.traps)
			}
			if got, want := runFamilies(t, w), "ok 1, ok 2, ok 10, ok 16, ESOCKTNOSUPPORT 17"; got != want {
				t.Errorf("families: %s, want %s", got, want)
			}
		})
	}
}

// runFamilies says which of all families are not refused as unknown.
func runFamilies(t *testing.T, w *world) string {
	t.Helper()
	out, _ := w.run(t, "families")
	var known []string
	for _, l := range strings.Split(strings.TrimSpace(out), "\n") {
		family, errno, _ := strings.Cut(l, ": ")
		if strings.HasPrefix(family, "pair") || strings.Contains(family, "bits") || errno == "EAFNOSUPPORT" {
			continue
		}
		known = append(known, errno+" "+family)
	}
	return strings.Join(known, ", ")
}

// trapped names what a meter has counted.
func trapped(t *testing.T, m *intercept.Meter) string {
	t.Helper()
	var b strings.Builder
	if _, err := m.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	var names []string
	for l := range strings.Lines(b.String()) {
		f := strings.Split(l, "\t")
		if f[1] != "-" {
			f[0] += "/" + f[1]
		}
		names = append(names, f[0])
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

func kernelCalls(w *transcript) {
	tcp, sa := listener(w)
	c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	w.must("socket", err)
	fl, _ := unix.FcntlInt(uintptr(c), unix.F_GETFL, 0)
	fd, _ := unix.FcntlInt(uintptr(c), unix.F_GETFD, 0)
	w.say("flags %#x %#x", fl&unix.O_NONBLOCK, fd)
	w.result("connect", unix.Connect(c, sa))
	s, _, err := unix.Accept(tcp)
	w.result("accept", err)
	w.result("nodelay", unix.SetsockoptInt(c, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1))
	n, err := unix.Write(s, []byte("hello"))
	w.say("%d", n)
	w.result("write", err)
	p := make([]byte, 9)
	n, _, _, from, err := unix.Recvmsg(c, p, nil, 0)
	w.say("%d from %v", n, from)
	w.result("recvmsg", err)
	w.result("shutdown", unix.Shutdown(c, unix.SHUT_WR))

	u, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM, 0)
	w.must("socket", err)
	w.result("bind", unix.Bind(u, &unix.SockaddrInet6{Addr: [16]byte{15: 1}}))
	name, err := unix.Getsockname(u)
	w.result("getsockname", err)
	w.result("sendto", unix.Sendto(u, []byte("x"), 0, name))
	n, _, err = unix.Recvfrom(u, p, 0)
	w.say("%d", n)
	w.result("recvfrom", err)
	sent, err := unix.IoctlGetInt(u, unix.TIOCOUTQ)
	w.say("unsent %d", sent)
	w.result("ioctl", err)

	kernelBinds(w)

	_, err = unix.Socket(unix.AF_INET, unix.SOCK_SEQPACKET, 0)
	w.result("seqpacket", err)
	_, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 200)
	w.result("protocol 200", err)
	_, err = unix.Socket(unix.AF_INET, 10, 0)
	w.result("type 10", err)
	_, err = unix.Socket(unix.AF_INET, 12, 0)
	w.result("type 12", err)
	_, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|0x100000, 0)
	w.result("flags", err)

	_, _, e := unix.Syscall(unix.SYS_CONNECT, uintptr(c), 8, 16)
	w.result("bad address", asError(e))
	_, _, e = unix.Syscall(unix.SYS_CONNECT, 999, 8, 16)
	w.result("bad descriptor", asError(e))
	_, _, e = unix.Syscall(unix.SYS_CONNECT, 1, 8, 16)
	w.result("no socket", asError(e))
	_, _, e = unix.Syscall(unix.SYS_CONNECT, uintptr(c), 8, ^uintptr(0))
	w.result("bad length", asError(e))

	x, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	w.must("socket", err)
	w.result("nscd", unix.Connect(x, &unix.SockaddrUnix{Name: "/run/nscd/socket"}))
	w.result("elsewhere", unix.Connect(x, &unix.SockaddrUnix{Name: "/run/nobody/is/here"}))
}

// kernelBinds binds in the ways that succeed and fail, by root and then by one who has laid
// down CAP_NET_BIND_SERVICE.
func kernelBinds(w *transcript) {
	loopback := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	for _, typ := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM} {
		s, err := unix.Socket(unix.AF_INET, typ, 0)
		w.must("socket", err)
		w.result("bind elsewhere", unix.Bind(s, &unix.SockaddrInet4{Addr: [4]byte{192, 0, 2, 77}}))
		w.result("bind to the other family", unix.Bind(s, &unix.SockaddrInet6{}))
		w.result("bind", unix.Bind(s, loopback))
		w.result("bind again", unix.Bind(s, loopback))
		_, _, e := unix.Syscall(unix.SYS_BIND, uintptr(s), 8, 16)
		w.result("bind bad address", asError(e))
		_, _, e = unix.Syscall(unix.SYS_BIND, uintptr(s), 8, 500)
		w.result("bind bad length", asError(e))
		name, err := unix.Getsockname(s)
		w.must("getsockname", err)
		other, err := unix.Socket(unix.AF_INET, typ, 0)
		w.must("socket", err)
		w.result("bind taken", unix.Bind(other, name))
		unix.Close(s)
		unix.Close(other)
	}
	_, _, e := unix.Syscall(unix.SYS_BIND, 999, 8, 16)
	w.result("bind bad descriptor", asError(e))
	_, _, e = unix.Syscall(unix.SYS_BIND, 1, 8, 16)
	w.result("bind no socket", asError(e))

	low := func(what string) {
		s, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		w.must("socket", err)
		defer unix.Close(s)
		w.result(what, unix.Bind(s, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 77}))
	}
	low("bind low")
	runtime.LockOSThread() // never unlocked: it has less rights from here on
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	w.must("capget", unix.Capget(&hdr, &caps[0]))
	caps[0].Effective &^= 1 << unix.CAP_NET_BIND_SERVICE
	w.must("capset", unix.Capset(&hdr, &caps[0]))
	low("bind low without the right")
}
