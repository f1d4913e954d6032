// SPDX-License-Identifier: Apache-2.0

// mount(2) and umount2(2) by programs that have put themselves into a sandbox.

package viewtest_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"umrun/fsmod/mounttest"
	"umrun/view/viewtest"
)

// domainPrelude has Landlock's domains for scripts (landlock(7)).
const domainPrelude = mounttest.Prelude + `
import struct, subprocess, threading, time
def domain(files, scoped=0, allow=None):
    attr = ctypes.create_string_buffer(struct.pack("QQQ", files, 0, scoped))
    rules = libc.syscall(444, attr, 24 if scoped else 8, 0)
    if allow:
        f = os.open(allow, os.O_PATH)
        libc.syscall(445, rules, 1, ctypes.create_string_buffer(struct.pack("=Qi", files, f)), 0); os.close(f)
    libc.prctl(38, 1, 0, 0, 0)
    r = name(libc.syscall(446, rules, 0)); os.close(rules)
    return r
def tries():
    made = [mount("none", at, "tmpfs"), mount(src, at, None, BIND)]
    return made + [umount(at) for r in made if r == "ok"]
def child(label, *f):
    sys.stdout.flush()
    if os.fork() == 0:
        print(label, *[g() for g in f], flush=True)
        os._exit(0)
    os.wait()
`

// domainScript mounts in domains, some of which have rules about files.
const domainScript = domainPrelude + `
child("none", tries)
for files, scoped in ((1, 0), (0x1fff, 0), (1 << 13, 0), (0, 1), (4, 1)):
    child("domain %d %d" % (files, scoped), lambda: domain(files, scoped), tries)
child("none", tries)
child("all allowed", lambda: domain(0x3fff, 0, "/"), tries)
child("twice", lambda: domain(0, 1), tries, lambda: domain(0, 2), tries, lambda: domain(1), tries)
def grandchild():
    pid = os.fork()
    if pid: os._exit(os.waitpid(pid, 0)[1])
    return tries()
child("a child", lambda: domain(1), grandchild)
child("mount(8)", lambda: domain(2), lambda: subprocess.run(["mount", "-t", "tmpfs", "none", at], stderr=subprocess.PIPE).returncode)
def threads(): # a domain is a thread's
    said, there, end = [], threading.Event(), threading.Event()
    def one(): said.append(domain(1)); said.append(tries()); there.set(); end.wait()
    t = threading.Thread(target=one); t.start(); there.wait(); said.append(tries()); end.set(); t.join()
    return said
child("threads", threads)
child("in a namespace", lambda: domain(1), lambda: libc.unshare(0x10020000), tries)
child("mounted before", lambda: mount("none", at, "tmpfs"), lambda: domain(1), lambda: umount(at), lambda: umount(at, DETACH), lambda: mount(None, at, None, REMOUNT | RDONLY))
print(umount(at), os.listdir("at") != [])
# What is mounted where something may be read would be read there.
print(mount(d + "/open", d + "/free", None, BIND), umount("free"))
child("read", lambda: domain(0x1fff, 0, src), lambda: read("open/f"), lambda: mount(d + "/open", src + "/sub", None, BIND), lambda: read("src/sub/f"))
# Other threads get at all that this one is given while it mounts.
def swap(stop):
    two = os.open(d + "/two", os.O_PATH)
    known = [f for f in range(64) if libc.fcntl(f, 1) >= 0]
    turn = 0
    while not stop.is_set():
        for f in range(3, 40):
            if f in known or libc.fcntl(f, 1) < 0: continue
            turn += 1
            if turn % 2: libc.dup2(two, f); continue # a file system where it may move a/f to b
            try: os.rmdir("b", dir_fd=f); os.symlink("a", "b", dir_fd=f)
            except OSError: pass
def other():
    os.makedirs("two/a", exist_ok=True); do(os.symlink, "a", "two/b"); open("two/a/f", "w").close()
    stop, said = threading.Event(), set()
    t = threading.Thread(target=swap, args=(stop,)); r = domain(1); t.start()
    end = time.time() + 2
    while time.time() < end:
        said.add(mount("none", at, "tmpfs"))
    stop.set(); t.join()
    return r, "ok" in said
child("another thread", other)
f = len(os.listdir("/proc/self/fd")); tries(); print(len(os.listdir("/proc/self/fd")) == f)
`

// TestIntegrationMountSandboxed: who is in a Landlock domain with rules about files mounts nothing,
// as the kernel has it.
func TestIntegrationMountSandboxed(t *testing.T) {
	viewtest.Need(t, "/usr/bin/python3", "unshare", "domains")
	w := viewtest.New(t)
	for _, user := range []bool{false, true} {
		t.Run(fmt.Sprintf("user=%v", user), func(t *testing.T) {
			unshare := []string{"unshare", "-m", "--propagation", "private"}
			if user {
				unshare = []string{"unshare", "-Ucm", "--keep-caps", "--propagation", "private"}
			}
			python := []string{"/usr/bin/python3", "-c", domainScript}
			native := w.HostCmd(context.Background(), append(append(unshare, python...), scriptTree(t, w, user))...)
			if user {
				native = native.AsUser(w.Home())
			}
			want := native.Result()
			if want.Status != 0 || want.Stderr != "" || strings.Count(want.Stdout, "EPERM") < 20 {
				t.Fatal(want)
			}
			args := append([]string{"-n", "none", "--no-proc", "--fs-engine", "ns", "--"}, python...)
			r := umrunAs(t, w, user, append(args, scriptTree(t, w, user))...).Result()
			if diff := cmp.Diff(want.Stdout, r.Stdout); diff != "" || r.Stderr != "" {
				t.Errorf("natively -, in the view +:\n%s\n%s", diff, r.Stderr)
			}
		})
	}
	w.NoStrays(t)
}

// TestIntegrationMountTraced: who cannot be asked whether it is in such a domain mounts nothing once
// a program of the view is in one.
func TestIntegrationMountTraced(t *testing.T) {
	viewtest.Need(t, "/usr/bin/python3", "strace", "domains")
	w := viewtest.New(t)
	const script = domainPrelude + `
strace = ["strace", "-f", "-qq", "-o", "/dev/null", "mount", "-t", "tmpfs", "none", at]
print(subprocess.run(strace).returncode, umount(at))
child("a domain", lambda: domain(1))
print(subprocess.run(strace, stderr=subprocess.PIPE).returncode, tries())
`
	r := umrunAs(t, w, true, "-n", "none", "--no-proc", "--fs-engine", "ns", "--", "/usr/bin/python3", "-c", script, scriptTree(t, w, true)).Result()
	const warning = "a program with a tracer or filters of its own mounts nothing"
	if r.Stdout != "0 ok\na domain ok\n32 ['ok', 'ok', 'ok', 'ok']\n" || strings.Count(r.Stderr, warning) != 1 {
		t.Error(r)
	}
	w.NoStrays(t)
}
