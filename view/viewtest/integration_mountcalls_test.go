// SPDX-License-Identifier: Apache-2.0

// mount(2) and umount2(2) by programs, with either engine.

package viewtest_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"umrun/fsmod/mounttest"
	"umrun/view/viewtest"
)

// scriptTree makes the tree that the scripts of package mounttest have.
func scriptTree(t testing.TB, w *viewtest.World, user bool) string {
	t.Helper()
	dir, err := os.MkdirTemp(filepath.Dir(mountTree(t, w, user)), "lab")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	writeFiles(t, dir, map[string]string{
		"src/file": "source\n", "src/sub/x": "x\n", "at/file": "covered\n", "at/hidden": "hidden\n", "at/sub/covered": "covered\n",
		"deep/secret/f": "hidden\n", "open/f": "open\n", "other/f": "other\n",
	})
	for _, name := range []string{"free", "free2"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("at/sub", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if user {
		give(t, dir)
	}
	return dir
}

// TestIntegrationMountScripts runs each script in a user and mount namespace of its own, or as
// root in a mount namespace, and in views.
func TestIntegrationMountScripts(t *testing.T) {
	viewtest.Need(t, "/usr/bin/python3", "unshare", "findmnt")
	w := viewtest.New(t)
	for _, user := range []bool{false, true} {
		unshare := []string{"unshare", "-m", "--propagation", "private"}
		if user {
			unshare = []string{"unshare", "-Ucm", "--keep-caps", "--propagation", "private"}
		}
		for _, tc := range mounttest.Calls {
			script := mounttest.Prelude + tc.Script
			dir := scriptTree(t, w, user)
			native := w.HostCmd(context.Background(), append(unshare, "/usr/bin/python3", "-c", script, dir)...)
			if user {
				native = native.AsUser(w.Home())
			}
			native.Env = append(native.Env, "LC_ALL=C")
			want := native.Result()
			if want.Status != 0 {
				t.Fatal(want)
			}
			for _, engine := range setEngines {
				t.Run(fmt.Sprintf("%s/%s/user=%v", tc.Name, engine, user), func(t *testing.T) {
					there := scriptTree(t, w, user)
					u := umrunAs(t, w, user, "-n", "none", "--no-proc", "--fs-engine", engine, "--", "/usr/bin/python3", "-c", script, there)
					u.Env = append(u.Env, "LC_ALL=C")
					r := u.Result()
					wanted, said := strings.ReplaceAll(want.Stdout, dir, "DIR"), 0
					if other, ok := mounttest.TrapUserDiffers[tc.Name]; ok && engine == "trap" && user {
						wanted, said = other, 1 // and the log says so, once
					}
					if diff := cmp.Diff(wanted, strings.ReplaceAll(r.Stdout, there, "DIR")); diff != "" || strings.Count(r.Stderr, "\n") != said {
						t.Errorf("natively -, in the view +:\n%s\n%s", diff, r.Stderr)
					}
				})
			}
		}
	}
	w.NoStrays(t)
}

// TestIntegrationMountLocked: what was mounted by others than the program stays, and hides what
// it hides.
func TestIntegrationMountLocked(t *testing.T) {
	viewtest.Need(t, "/usr/bin/python3")
	eachUser(t, func(t *testing.T, w *viewtest.World, engine string, user bool) {
		dir := scriptTree(t, w, user)
		want := mounttest.LockedWant
		if user {
			want = mounttest.LockedWantUser
			if engine == "trap" { // who is in a directory that is covered goes on in what covers it
				want = strings.Replace(want, "ok EACCES ENOENT ok EINVAL", "ok ENOENT ENOENT ok EINVAL", 1)
			}
		}
		r := umrunAs(t, w, user, "-n", "none", "--no-proc", "--fs-engine", engine, "-m", "hide:"+dir+"/deep/secret", "-m", "bind:"+dir+"/open:"+dir+"/other:ro", "--",
			"/usr/bin/python3", "-c", mounttest.Locked, dir).Result()
		if diff := cmp.Diff(want, r.Stdout); diff != "" || r.Stderr != "" {
			t.Errorf("wanted -, got +:\n%s\n%s", diff, r.Stderr)
		}
	})
}

// hostileScript looks for ways to what is hidden at DIR/deep/secret, and to what else was mounted by
// others. It prints what it has found.
const hostileScript = mounttest.Prelude + `
import threading, time
free, free2, secret = d + "/free", d + "/free2", d + "/deep/secret"
def look(where):
    for p in (free, free + "/secret", free + "/deep/secret", secret, "secret", "deep/secret", "."):
        if read(p + "/f") == "hidden": print("found:", where, p)
def clean():
    os.chdir(d)
    for p in (free, free2, d + "/deep", free + "/secret", secret, d + "/there/secret", d + "/flip/secret"):
        while umount(p, DETACH) == "ok": pass
# Descriptors and links in place of names.
for source in (d + "/deep", "/proc/self/cwd/deep", "/proc/thread-self/root" + d + "/deep", "/dev/fd/%d" % os.open(d + "/deep", os.O_PATH)):
    for flags in (BIND, BIND | REC):
        mount(source, free, None, flags); look((source, flags)); os.chdir(free); umount(free, DETACH); look((source, flags, "lazily")); clean()
f = os.open(secret, os.O_PATH)
print(umount("/proc/self/fd/%d" % f), umount("/proc/self/fd/%d" % f, DETACH), mount("/proc/self/fd/%d/.." % f, free, None, BIND), mount(None, "/proc/self/fd/%d" % f, None, REMOUNT | BIND))
os.symlink(secret, "tosecret"); print(umount("tosecret"), umount(d + "/free/../tosecret/.", DETACH), mount("tosecret/..", free, None, BIND)); look("a link")
# What is moved, stacked, or comes along.
print(mount(secret, free, None, MOVE), mount("tmpfs", secret, "tmpfs"), umount(secret), umount(secret), umount(secret, DETACH)); look("stacked")
print(mount("/", free, None, BIND | REC), umount(free + secret), umount(free + secret, DETACH)); os.chdir(free + d + "/deep"); umount(free, DETACH); look("all of it"); clean()
mount(d + "/deep", free, None, BIND | REC); mount(free, free2, None, BIND | REC); os.chdir(free2); umount(free2, DETACH); look("a bind of a bind"); clean()
mount("tmpfs", free, "tmpfs"); os.mkdir(free + "/in"); mount(d + "/deep", free + "/in", None, BIND | REC); os.chdir(free + "/in"); umount(free, DETACH); look("in a tmpfs"); clean()
mount(d + "/deep", d + "/deep", None, BIND | REC); os.chdir("deep"); umount(d + "/deep", DETACH); look("itself"); os.chdir(d); umount(d + "/deep", DETACH); look("itself"); clean()
# Another thread changes what names mean.
os.mkdir("flip"); os.mkdir("flip/secret"); os.mkdir("there"); os.mkdir("there/secret"); open("there/secret/f", "w").write("mine")
stop = False
def flip():
    while not stop:
        for a, b in (("flip", "was"), ("deep", "flip"), ("flip", "deep"), ("was", "flip")):
            do(os.rename, a, b)
        do(os.symlink, "deep", "way"); do(os.unlink, "way"); do(os.symlink, "there", "way"); do(os.unlink, "way")
t = threading.Thread(target=flip); t.start()
end = time.time() + 4
while time.time() < end:
    for source, at in (("way", free), ("flip", free), (d + "/flip/../way", free)):
        mount(source, at, None, BIND); look((source, "flipped")) ; umount(at)
    mount("there", d + "/flip/secret", None, BIND); umount("flip/secret"); umount("way/secret"); umount("flip/secret", DETACH)
    mount("there", d + "/way", None, BIND | REC); umount("way", DETACH)
stop = True; t.join()
for a, b in (("flip", "deep"), ("was", "flip")):
    if not os.path.exists(b): do(os.rename, a, b)
clean(); look("at the end")
print(open("/proc/self/mountinfo").read().count(" " + secret + " "))
`

// TestIntegrationMountHostile has a program try to undo what hides something from it.
func TestIntegrationMountHostile(t *testing.T) {
	viewtest.Need(t, "/usr/bin/python3")
	eachUser(t, func(t *testing.T, w *viewtest.World, engine string, user bool) {
		dir := scriptTree(t, w, user)
		r := umrunAs(t, w, user, "-n", "none", "--no-proc", "--fs-engine", engine, "-m", "hide:"+dir+"/deep/secret", "--", "/usr/bin/python3", "-c", hostileScript, dir).Result()
		way := "EPERM EPERM EINVAL EPERM\nEPERM EPERM EINVAL\n"
		if engine == "ns" && user { // who may not search what is hidden does not come out of it
			way = "EPERM EPERM EACCES EPERM\nEPERM EACCES EACCES\n"
		}
		if engine == "trap" && user { // but "." of it is what it is
			way = "EPERM EPERM EACCES EPERM\nEPERM EPERM EACCES\n"
		}
		want := way + `EINVAL ok ok EPERM EPERM
ok EPERM EPERM
1
`
		if diff := cmp.Diff(want, r.Stdout); diff != "" || r.Stderr != "" {
			t.Errorf("wanted -, got +:\n%s\n%s", diff, r.Stderr)
		}
	})
}

// movedScript moves what is above mounts, to have what they cover elsewhere: into a directory that is
// bound a second time. It writes to all files that it finds.
const movedScript = mounttest.Prelude + `
def exchange(a, b): return name(libc.renameat2(-100, a.encode(), -100, b.encode(), 2))
mount("open", "free", None, BIND)
for dir in ("deep", "one", "one/two", "one/two/three", "one/cow", "sticky", "sticky/in", "files"):
    print(dir, do(os.rename, dir, "open/moved"), do(os.rename, dir, dir + "2"), exchange(dir, "open"), exchange("free2", dir), do(os.rmdir, dir))
print(do(os.rename, "beside", "beside2"), do(os.rename, "beside2", "beside"), do(os.rename, "one/f", "f"), do(os.rename, "f", "one/f"), do(os.link, "one/f", "linked"), do(os.unlink, "linked"), do(os.rename, "tmp/a", "tmp/c"), do(os.rmdir, "tmp/a"))
for lower in ("deep", "one", "one/two", "one/cow", "sticky"):
    libc.mount(b"overlay", (d + "/free2").encode(), b"overlay", 0, b"userxattr,lowerdir=" + lower.encode())
for top, _, names in os.walk(d):
    for n in names:
        if read(top + "/" + n) == "secret": print("found:", top, n)
        do(lambda: open(top + "/" + n, "w").write("changed"))
def pinned(): return " ".join([do(os.rename, "late", "open/late") or "moved", do(os.rename, "open/late", "late") or "back"])
print(pinned(), mount("none", "late/a/b", "umrun.hide" if sys.argv[2:] else "tmpfs"), pinned(), umount("late/a/b"), pinned())
sys.stdout.flush()
if sys.argv[2:]: os.execvp("unshare", ["unshare", sys.argv[3], sys.executable, "-c", sys.argv[2], d])
`

// TestIntegrationMountMoved: no directory above a mount is moved, and so nothing that is covered is
// found elsewhere, by a program of the view or one in namespaces below it.
func TestIntegrationMountMoved(t *testing.T) {
	viewtest.Need(t, "/usr/bin/python3", "unshare")
	w := viewtest.New(t)
	files := map[string]string{
		"deep/secret/f": "secret\n", "one/two/three/secret/f": "secret\n", "one/cow/proj/f": "as it was\n", "sticky/in/secret/f": "secret\n", "files/f": "secret\n",
	}
	var held strings.Builder
	for _, dir := range []string{"deep", "one", "one/two", "one/two/three", "one/cow", "sticky", "sticky/in", "files"} {
		held.WriteString(dir + " EBUSY EBUSY EBUSY EBUSY EBUSY\n")
	}
	held.WriteString("None None None None None None EBUSY EBUSY\n")
	for _, engine := range setEngines {
		t.Run(engine, func(t *testing.T) {
			dir := scriptTree(t, w, true)
			writeFiles(t, dir, files)
			writeFiles(t, dir, map[string]string{"one/f": "", "late/a/b/f": "", "beside/f": "", "tmp/f": ""})
			give(t, dir)
			if err := errors.Join(os.Chown(dir+"/sticky", 0, 0), os.Chmod(dir+"/sticky", 0o1777)); err != nil {
				t.Fatal(err)
			}
			want := held.String() + "moved back ok EBUSY ENOENT ok moved back\n" + held.String()
			below := "-Urm"
			if engine == "ns" {
				want += "moved back ok moved back ok moved back\n" // over its own mounts, there it may
			} else { // nobody mounts in a namespace below
				below, want = "-Ur", want+"moved back EPERM moved back EPERM moved back\n"
			}
			args := []string{"-q", "-n", "none", "--no-proc", "--fs-engine", engine}
			for _, m := range []string{"hide:deep/secret", "tmpfs:one/two/three/secret", "cow::one/cow/proj", "hide:sticky/in/secret", "hide:files/f", "tmpfs:tmp", "tmpfs:tmp/a/b"} {
				at := strings.LastIndex(m, ":") + 1
				args = append(args, "-m", m[:at]+dir+"/"+m[at:])
			}
			u := umrunAs(t, w, true, append(args, "--", "/usr/bin/python3", "-c", movedScript, dir, movedScript, below)...)
			r := u.Result()
			if diff := cmp.Diff(want, r.Stdout); diff != "" || r.Stderr != "" {
				t.Errorf("wanted -, got +:\n%s\n%s", diff, r.Stderr)
			}
			for name, content := range files {
				if b, err := os.ReadFile(filepath.Join(dir, name)); string(b) != content {
					t.Errorf("%s: %q, %v", name, b, err)
				}
			}
		})
	}
	w.NoStrays(t)
}

// TestIntegrationMountMovedLater: so it is with mounts that are made, and until they are removed,
// while a program runs.
func TestIntegrationMountMovedLater(t *testing.T) {
	w := viewtest.New(t)
	for _, engine := range setEngines {
		t.Run(engine, func(t *testing.T) {
			v := startChanged(t, w, true, "--fs-engine", engine, "-m", "hide:DIR/src")
			const moved = "mv DIR/p DIR/moved && mv DIR/moved/q DIR/moved/there && mv DIR/moved/there DIR/moved/q && mv DIR/moved DIR/p && echo moved || echo held"
			const busy = "mv: cannot move 'DIR/p' to 'DIR/moved': Device or resource busy\nheld\n"
			v.says("mkdir -p DIR/p/q/r DIR/p/s; echo x >DIR/p/q/r/f; "+moved, "moved\n")
			v.set(0, "", "set", "lab", "mount", "hide:DIR/p/q/r/f")
			v.says(moved, busy)
			v.set(0, "", "set", "lab", "mount", "tmpfs:DIR/p/s")
			v.set(0, "", "set", "lab", "umount", "DIR/p/q/r/f")
			v.says(moved, busy)
			v.says("mv DIR/p/q DIR/p/there && mv DIR/p/there DIR/p/q", "")
			v.set(0, "", "set", "lab", "umount", "--lazy", "DIR/p/s")
			v.says(moved, "moved\n")
			v.end()
		})
	}
	w.NoStrays(t)
}

// newerScript asks for the calls of the new mount API, and mounts while signals come.
const newerScript = mounttest.Prelude + `
import signal
def call(nr, *a):
    r = libc.syscall(nr, *a); return errno.errorcode[ctypes.get_errno()] if r < 0 else "ok"
print(call(428, -100, b"/", 0x8001), call(430, b"tmpfs", 0), call(433, -100, b"/", 0), call(429, -1, b"", -100, b"/", 0), call(442, -100, b"/", 0, 0, 0), call(428, -100, b"/", 0))
print(call(428, -100, b"/", 2), call(432, -1, 2, 0), call(272, 0x00100000), call(435, 0, 0))
came = 0
def on(*a): global came; came += 1
if "signals" in sys.argv: signal.signal(signal.SIGALRM, on); signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
said = set()
while came < 5: said |= {mount("none", at, "tmpfs"), umount(at)}; came += "signals" not in sys.argv
signal.setitimer(signal.ITIMER_REAL, 0); print(said, os.listdir("at") != [])
`

// TestIntegrationMountNewer: with the engine ns programs go back from the new mount API, but not
// those in namespaces of their own, for whom it is the kernel's.
func TestIntegrationMountNewer(t *testing.T) {
	viewtest.Need(t, "/usr/bin/python3", "unshare")
	w := viewtest.New(t)
	for _, user := range []bool{false, true} {
		t.Run(fmt.Sprintf("user=%v", user), func(t *testing.T) {
			dir := scriptTree(t, w, user)
			python := []string{"/usr/bin/python3", "-c", newerScript, dir}
			const refused = "EINVAL EINVAL EINVAL ENOSYS\n"
			mounted := "{'ok'} True\n"
			for _, tc := range []struct {
				in   []string
				more string // what the script is told: the kernel's own calls may say EINTR
				want string
			}{
				{nil, "signals", "ENOSYS ENOSYS ENOSYS ENOSYS ENOSYS ok\n" + refused + mounted},
				{[]string{"unshare", "-Urm", "--propagation", "private"}, "", "ok ok ok ENOENT EINVAL ok\n" + refused + mounted},
			} {
				args := append([]string{"-n", "none", "--no-proc", "--fs-engine", "ns", "--"}, append(tc.in, append(python, tc.more)...)...)
				if r := umrunAs(t, w, user, args...).Result(); r.Stdout != tc.want || r.Stderr != "" {
					t.Errorf("%v: want %q, got %v", tc.in, tc.want, r)
				}
			}
		})
	}
	w.NoStrays(t)
}

// linksScript mounts by links of /proc: those of the process whose number is its argument, those under a name that
// is as the program's own, and those.
const linksScript = mounttest.Prelude + `
other, me = "/proc/" + sys.argv[2], "/proc/%d" % os.getpid()
os.makedirs("names" + me + "/fd"); open("empty", "w").close()
free, empty = d + "/free", d + "/empty"
def tries(p):
    print(mount(p + "/cwd/open", free, None, BIND), mount(p + "/root" + d, free, None, BIND), mount(p + "/fd/0", empty, None, BIND),
        mount("none", p + "/cwd/free", "tmpfs"), mount(p + "/fd/0", free, "xfs"), mount(p + "/cwd/open/f", free, "xfs"), umount(p + "/cwd"))
    for q in (free, empty):
        while umount(q, DETACH) == "ok": pass
tries(other)
print(mount(other + "/fd", d + "/names" + me + "/fd", None, BIND), mount("names" + me + "/fd/0", empty, None, BIND))
tries("/proc/self"); tries("/proc/thread-self"); tries(me)
`

// TestIntegrationMountLinks: root's program mounts by no link of a process outside of the view. Natively
// it may: only another mount namespace is EINVAL, and that is what the program's own standard input is on, too.
func TestIntegrationMountLinks(t *testing.T) {
	viewtest.Need(t, "root", "/usr/bin/python3", "unshare", "domains")
	w := viewtest.New(t)
	dir := scriptTree(t, w, false)
	in, err := os.Open(filepath.Join(dir, "open/f"))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	outside := w.HostCmd(context.Background(), "sleep", "60")
	outside.Dir, outside.Stdin = dir, in
	start(t, outside)
	own := strings.Repeat("ok ok EINVAL ok ENOTBLK ENOTBLK EINVAL\n", 3)
	for _, tc := range []struct {
		in   func(args ...string) *viewtest.Cmd
		want string
	}{
		{func(args ...string) *viewtest.Cmd {
			return w.HostCmd(context.Background(), append([]string{"unshare", "-m", "--propagation", "private"}, args...)...)
		}, "EINVAL EINVAL EINVAL EINVAL ENOTBLK ENOTBLK EINVAL\nok EINVAL\n" + own},
		{func(args ...string) *viewtest.Cmd {
			return umrunAs(t, w, false, append([]string{"-n", "none", "--no-proc", "--fs-engine", "ns", "--"}, args...)...)
		}, "EACCES EACCES EACCES EACCES EACCES EACCES EACCES\nok EACCES\n" + own},
	} {
		there := scriptTree(t, w, false)
		c := tc.in("/usr/bin/python3", "-c", linksScript, there, strconv.Itoa(outside.Process.Pid))
		own, err := os.Open(filepath.Join(there, "open/f"))
		if err != nil {
			t.Fatal(err)
		}
		c.Stdin = own
		r := c.Result()
		own.Close()
		if diff := cmp.Diff(tc.want, r.Stdout); diff != "" || r.Stderr != "" {
			t.Errorf("wanted -, got +:\n%s\n%s", diff, r.Stderr)
		}
	}
	w.NoStrays(t)
}

// fewScript mounts as a user who has CAP_SYS_ADMIN and no other capability, and looks for what only root may
// look for: in DIR/vault.
const fewScript = mounttest.Prelude + `
import struct
os.makedirs("vault/pub"); os.makedirs("vault/at"); open("vault/pub/f", "w").write("in the vault"); open("image", "w").close()
os.chmod("vault", 0o700); os.chmod("image", 0o600)
libc.prctl(8, 1, 0, 0, 0)
uid, gid = map(int, sys.argv[2:4]); os.setgroups([]); os.setresgid(gid, gid, gid); os.setresuid(uid, uid, uid)
caps = [1 << 21, 1 << 21, 0, 0, 0, 0]
print(libc.capset(struct.pack("Ii", 0x20080522, 0), struct.pack("6I", *caps)))
print(read("vault/pub/f"), mount("vault/pub", at, None, BIND), mount("none", "vault/at", "tmpfs"), umount("vault/at"), mount(d + "/vault/../src", at, None, BIND))
print(mount("none", at, "tmpfs"), os.stat(at).st_uid == uid, os.stat(at).st_gid == gid, umount(at))
print(mount("/proc/self/cwd/src", at, None, BIND), read("at/file"), umount("/proc/thread-self/cwd/at"))
if "view" in sys.argv: print(mount("image", at, "umrun.image", RDONLY))
`

// TestIntegrationMountFew: root's program that has changed its user mounts what it may look up.
func TestIntegrationMountFew(t *testing.T) {
	viewtest.Need(t, "root", "/usr/bin/python3", "unshare")
	w := viewtest.New(t)
	python := func(more ...string) []string {
		return append([]string{"/usr/bin/python3", "-c", fewScript, scriptTree(t, w, true), strconv.Itoa(viewtest.UID), strconv.Itoa(viewtest.GID)}, more...)
	}
	want := w.HostCmd(t.Context(), append([]string{"unshare", "-m", "--propagation", "private"}, python()...)...).Result()
	if want.Status != 0 || want.Stdout != "0\nEACCES EACCES EACCES EACCES EACCES\nok True True ok\nok source ok\n" {
		t.Fatal(want)
	}
	for _, engine := range setEngines {
		args := append([]string{"-n", "none", "--no-proc", "--fs-engine", engine, "--"}, python("view")...)
		if r := umrunAs(t, w, false, args...).Result(); r.Stdout != want.Stdout+"EACCES\n" || r.Stderr != "" {
			t.Errorf("%s: want %q, got %v", engine, want.Stdout, r)
		}
	}
	w.NoStrays(t)
}

// TestIntegrationMountFUSE: with the engine ns root's program is the server of a FUSE file system, too.
func TestIntegrationMountFUSE(t *testing.T) {
	viewtest.Need(t, "root", "bindfs")
	w := viewtest.New(t)
	openFUSE(t, w)
	const script = `cd "$1" && bindfs src free && ls free && echo x >free/new && umount free && ls free src`
	for _, in := range [][]string{{"unshare", "-m", "--propagation", "private"}, {viewtest.Binary(t), "-n", "none", "--no-proc", "--fs-engine", "ns", "--"}} {
		r := w.HostCmd(t.Context(), append(in, "/bin/sh", "-c", script, "sh", scriptTree(t, w, false))...).Result()
		if r.Stdout != "file\nsub\nfree:\n\nsrc:\nfile\nnew\nsub\n" || r.Stderr != "" {
			t.Errorf("%v: %v", in, r)
		}
	}
	w.NoStrays(t)
}

// TestIntegrationMountBlock: for root the kernel mounts a block device, of a type that umrun serves
// where the source is a file.
func TestIntegrationMountBlock(t *testing.T) {
	viewtest.Need(t, "root", "losetup", "mke2fs")
	w := viewtest.New(t)
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mke2fs", "-q", image).CombinedOutput(); err != nil {
		t.Fatalf("mke2fs: %v: %s", err, out)
	}
	out, err := exec.Command("losetup", "-f", "--show", image).CombinedOutput()
	if err != nil {
		t.Skipf("the kernel makes no loop device: %v: %s", err, out)
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "-d", device).CombinedOutput(); err != nil {
			t.Errorf("losetup: %v: %s", err, out)
		}
	})
	const script = `cd "$1" && mount -i -t ext2 "$2" free && echo x >free/new && umount free && mount -i -t ext2 -o ro "$2" free2 && cat free2/new && umount free2`
	for _, in := range [][]string{{"unshare", "-m", "--propagation", "private"}, {viewtest.Binary(t), "-n", "none", "--no-proc", "--fs-engine", "ns", "--"}} {
		dir := scriptTree(t, w, false)
		r := w.HostCmd(t.Context(), append(in, "/bin/sh", "-c", script, "sh", dir, device)...).Result()
		if r.Status != 0 || r.Stderr != "" || r.Stdout != "x\n" {
			t.Errorf("%v: %v", in, r)
		}
	}
	w.NoStrays(t)
}
