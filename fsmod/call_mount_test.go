// SPDX-License-Identifier: Apache-2.0

// Tests of mount(2) and umount2(2) by a program: the same script with the kernel and with us.

package fsmod_test

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"umrun/fsmod"
	"umrun/fsmod/cow"
	"umrun/fsmod/mounttest"
)

// TestMountCalls runs each script with the kernel's mounts and with ours.
func TestMountCalls(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mount(2) takes root")
	}
	for _, tc := range mounttest.Calls {
		t.Run(tc.Name, func(t *testing.T) {
			// In a process group of its own: one of the scripts signals all of it.
			script := mounttest.Prelude + "os.setpgid(0, 0)\n" + tc.Script
			native := newLab(t).dir
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
			defer cancel()
			c := exec.CommandContext(ctx, "unshare", "-m", "--propagation", "private", "/usr/bin/python3", "-c", script, native)
			c.Env = append(os.Environ(), "LC_ALL=C")
			want, err := c.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, want)
			}
			wanted := strings.ReplaceAll(string(want), native, "DIR")
			dir := newLab(t).dir
			got := changed(t, "/usr/bin/python3", "-c", script, dir)
			t.Log(got)
			if diff := cmp.Diff(wanted, strings.ReplaceAll(got, dir, "DIR")); diff != "" {
				t.Errorf("natively -, in the view +:\n%s", diff)
			}
		})
	}
}

// TestMountLocked: what others than the program have mounted stays, and hides what it hides.
func TestMountLocked(t *testing.T) {
	dir, _ := secretLab(t)
	mounts := []fsmod.Mount{{Kind: fsmod.Hide, Target: dir + "/deep/secret"}, {Kind: fsmod.Bind, Source: dir + "/open", Target: dir + "/other", ReadOnly: true}}
	for _, name := range []string{"other", "free", "free2"} {
		if err := os.MkdirAll(dir+"/"+name, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	got := mountedWith(t, mountedConfig{mounts: mounts}, "/usr/bin/python3", "-c", mounttest.Locked+`
print(mount("proc", free, "proc"), mount("/dev/loop0", free, "ext4", RDONLY))
if os.fork() == 0:
    print(name(libc.unshare(0x20000)), mount("tmpfs", free, "tmpfs"), umount(free), flush=True); os._exit(0)
os.wait()
`, dir)
	if os.Geteuid() != 0 {
		t.Skip("what a user may not open says EACCES, which TestIntegrationMountCalls looks at")
	}
	if diff := cmp.Diff(mounttest.LockedWant+"EPERM EPERM\nok EPERM EPERM\n", got); diff != "" {
		t.Errorf("wanted -, got +:\n%s", diff)
	}
}

// TestMountLater: what others mount in a mount of the program's stays, too.
func TestMountLater(t *testing.T) {
	dir := newLab(t).dir
	got := changed(t, "/usr/bin/python3", "-c", mounttest.Prelude+`
def ask(what): print("@" + what, flush=True); return sys.stdin.readline().strip()
print(mount(at, at, None, BIND), ask("mount hide:" + at + "/hidden"), ask("mount bind:" + src + ":" + at + "/sub:ro"))
print(umount(at), umount(at, DETACH), read("at/hidden") != "hidden", do(os.mkdir, "at/sub/n"), read("at/file"))
print(ask("umount " + at + "/hidden"), umount(at, DETACH), ask("umount " + at + "/sub"), umount(at), read("at/hidden"))
`, dir)
	if want := "ok ok ok\nEBUSY EPERM True EROFS covered\nok EPERM ok ok hidden\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// counted is a cow that counts what it was asked to prepare.
type counted struct {
	*cow.FS
	prepared *atomic.Int32
}

func (c counted) Prepare(name string, use fsmod.Use, flags int) func(context.Context) error {
	wait := c.FS.Prepare(name, use, flags)
	if wait != nil {
		c.prepared.Add(1)
	}
	return wait
}

// TestBindOfCow: what the program binds of a cow can do what the cow can.
func TestBindOfCow(t *testing.T) {
	l := newLab(t)
	if err := os.WriteFile(l.src+"/sub/large", make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	upper := t.TempDir()
	var prepared atomic.Int32
	got := mountedWith(t, mountedConfig{
		mounts: []fsmod.Mount{{Kind: fsmod.Cow, Source: upper, Target: l.src}},
		open: func(m fsmod.Mount) (fsmod.FS, error) {
			fs, err := cow.New(cow.Config{Lower: cow.Host(m.Target), Upper: m.Source, Volatile: true})
			return counted{fs, &prepared}, err
		},
	}, "/usr/bin/python3", "-c", mounttest.Prelude+`
print(mount(src + "/sub", at, None, BIND))
f = os.open(at, os.O_TMPFILE | os.O_RDWR); os.write(f, b"named")
print(name(libc.linkat(-100, b"/proc/self/fd/%d" % f, -100, (at + "/n").encode(), 0x400)), read(src + "/sub/n"))
os.close(f)
f = os.open(at + "/large", os.O_WRONLY); os.write(f, b"x"); os.close(f)
print(open(src + "/sub/large", "rb").read(2))
`, l.dir)
	if want := "ok\nok named\nb'x\\x00'\n"; got != want || prepared.Load() != 1 {
		t.Errorf("got %q, want %q; prepared %d times", got, want, prepared.Load())
	}
}

// TestParents: the mounts that mountinfo has the view's in are among those that it lists.
func TestParents(t *testing.T) {
	l := newLab(t)
	got := mountedWith(t, mountedConfig{mounts: []fsmod.Mount{
		{Kind: fsmod.Bind, Source: l.src, Target: l.dir + "/none/x/y"}, {Kind: fsmod.Tmpfs, Target: l.dir + "/none/x/y/sub"},
	}}, "/usr/bin/python3", "-c", mounttest.Prelude+`
rows = [l.split() for l in open("/proc/self/mountinfo")]
ids = {r[0]: r[4] for r in rows}
for r in rows:
    if r[4].startswith(d): print(r[4][len(d):], ids[r[1]][len(d):] if ids.get(r[1], "?").startswith(d) else r[1] in ids)
`, l.dir)
	if want := "/none/x/y True\n/none/x/y/sub /none/x/y\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestLeased: a file that is opened while it is leased is one of the mount, too.
func TestLeased(t *testing.T) {
	l := newLab(t)
	got := mountedWith(t, mountedConfig{mounts: []fsmod.Mount{{Kind: fsmod.Bind, Source: l.src, Target: l.at, ReadOnly: true}}}, "/usr/bin/python3", "-c", mounttest.Prelude+`
import fcntl, signal
f = os.open("src/file", os.O_RDONLY)
signal.signal(signal.SIGIO, lambda *a: fcntl.fcntl(f, fcntl.F_SETLEASE, fcntl.F_UNLCK))
fcntl.fcntl(f, fcntl.F_SETLEASE, fcntl.F_WRLCK)
pid = os.fork()
if pid == 0:
    g = os.open("at/file", os.O_RDONLY)
    print(os.read(g, 10), do(os.fchmod, g, 0o600), do(os.utime, g, (1, 1)), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
`, l.dir)
	if want := "b'source\\n' EROFS EROFS\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
