// SPDX-License-Identifier: Apache-2.0

// Views that are changed while they run: umrun ps, and umrun set NAME mount and umount.

package viewtest_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"umrun/view/viewtest"
)

// setEngines are those whose mounts can be changed.
var setEngines = []string{"trap", "ns"}

// eachUser runs a test with each of them, as root and as the ordinary user.
func eachUser(t *testing.T, f func(t *testing.T, w *viewtest.World, engine string, user bool)) {
	w := viewtest.New(t)
	for _, user := range []bool{false, true} {
		for _, engine := range setEngines {
			t.Run(fmt.Sprintf("%s/user=%v", engine, user), func(t *testing.T) { f(t, w, engine, user) })
		}
	}
	w.NoStrays(t)
}

func TestIntegrationSet(t *testing.T) { eachUser(t, runSet) }

// A changed view runs a program that reads commands and says what came of them.
type changedView struct {
	t    *testing.T
	w    *viewtest.World
	user bool
	dir  string
	in   *os.File
	u    *viewtest.Cmd
	seen int
}

// startChanged starts one with the name lab.
func startChanged(t *testing.T, w *viewtest.World, user bool, flags ...string) *changedView {
	t.Helper()
	v := &changedView{t: t, w: w, user: user, dir: mountTree(t, w, user)}
	r, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	v.in = in
	t.Cleanup(func() { in.Close() })
	args := []string{"--name", "lab", "-n", "none", "--no-proc"}
	for _, f := range flags {
		args = append(args, strings.ReplaceAll(f, "DIR", v.dir))
	}
	v.u = umrunAs(t, w, user, append(args, "--", "sh", "-c", `while read -r line; do eval "$line" 2>&1; echo .; done`)...)
	v.place(v.u)
	v.u.Stdin = r
	if err := v.u.Start(); err != nil {
		t.Fatal(err)
	}
	r.Close()
	t.Cleanup(v.u.Stop)
	v.says("echo ready", "ready\n")
	return v
}

// place gives a command the directory of sockets and that of the test.
func (v *changedView) place(c *viewtest.Cmd) {
	c.Dir = filepath.Join(v.dir, "dst")
	c.Env = append(c.Env, "XDG_RUNTIME_DIR="+v.dir, "PWD="+c.Dir, "LC_ALL=C")
}

// says has the program run a command and looks at what that prints.
func (v *changedView) says(command, want string) {
	v.t.Helper()
	fmt.Fprintln(v.in, strings.ReplaceAll(command, "DIR", v.dir))
	var got string
	viewtest.Eventually(v.t, 20*time.Second, func() error {
		got = v.u.Output()[v.seen:]
		if !strings.HasSuffix(got, ".\n") || got != ".\n" && !strings.HasSuffix(got, "\n.\n") {
			return fmt.Errorf("%s: no answer, but %q; %s", command, got, v.u.Errors())
		}
		return nil
	})
	v.seen += len(got)
	if got = strings.TrimSuffix(got, ".\n"); got != strings.ReplaceAll(want, "DIR", v.dir) {
		v.t.Errorf("%s: want %q, got %q", command, want, got)
	}
}

// set runs umrun set lab, or another command of umrun, which is to end with a status.
func (v *changedView) set(status int, message string, args ...string) string {
	v.t.Helper()
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "DIR", v.dir)
	}
	c := umrunAs(v.t, v.w, v.user, args...)
	v.place(c)
	r := c.Result()
	if r.Status != status || !strings.Contains(r.Stderr, strings.ReplaceAll(message, "DIR", v.dir)) || message == "" && r.Stderr != "" {
		v.t.Errorf("umrun %s: want status %d and %q, got %v", strings.Join(args, " "), status, message, r)
	}
	return r.Stdout
}

// end closes the program's input and looks at what is left.
func (v *changedView) end() {
	v.t.Helper()
	v.in.Close()
	if err := v.u.Wait(); err != nil {
		v.t.Errorf("%v; %s", err, v.u.Errors())
	}
	if left, _ := filepath.Glob(v.dir + "/umrun/*"); len(left) > 0 {
		v.t.Errorf("left behind: %v", left)
	}
}

func runSet(t *testing.T, w *viewtest.World, engine string, user bool) {
	openFUSE(t, w)
	v := startChanged(t, w, user, "--fs-engine", engine)
	v.says("cat DIR/dst/a", "target a\n")
	v.set(0, "", "set", "lab", "mount", "bind:../src:.")
	v.says("cat DIR/dst/a DIR/dst/sub/deep", "source a\ndeep\n")
	v.says("cd DIR/dst/sub; cat deep ../a", "deep\nsource a\n")
	v.set(125, "device or resource busy", "set", "lab", "umount", "DIR/dst")
	v.set(125, "umrun set lab umount --lazy DIR/dst", "set", "lab", "umount", "DIR/dst")
	v.set(0, "", "set", "lab", "umount", "-l", "DIR/dst")
	v.says("cat deep ../a ../../a; readlink /proc/self/cwd; cat DIR/dst/a", "deep\nsource a\nsource a\n/sub\ntarget a\n")
	v.says("cd DIR/dst; cat a", "target a\n")
	v.set(0, "", "set", "lab", "mount", "cow:DIR/up:DIR/dst")
	v.says("cd DIR/src; echo changed >../dst/a; echo new >../dst/n; ls ../dst; cat ../dst/a", "a\nb\nn\nchanged\n")
	v.set(0, "", "set", "lab", "umount", "DIR/dst")
	v.says("ls ../dst; cat ../dst/a", "a\nb\ntarget a\n")
	if got := readFile(t, v.dir+"/up/upper/a"); got != "changed\n" {
		t.Errorf("UPPER has %q", got)
	}
	v.set(0, "", "set", "lab", "mount", "cow:DIR/up:DIR/dst")
	v.set(0, "", "set", "lab", "mount", "hide:DIR/dst/b")
	v.set(0, "", "set", "lab", "mount", "file:DIR/src/a:DIR/path/x")
	v.says("cat ../dst/a; stat -c '%a %s' ../dst/b; cat ../path/x", "changed\n0 0\nsource a\n")
	v.set(125, "device or resource busy", "set", "lab", "umount", "DIR/dst")
	v.set(122, "no such file or directory", "set", "lab", "mount", "bind:DIR/nowhere:DIR/dst")
	v.set(122, "there is no mount of the view's", "set", "lab", "umount", "DIR/bin")
	v.set(122, "unknown kind", "set", "lab", "mount", "bnd:DIR/src:DIR/dst")
	if got := v.set(0, "", "ps", "--json"); !strings.Contains(got, `"hide:`+v.dir+`/dst/b"`) || !strings.Contains(got, `"name": "lab"`) {
		t.Errorf("ps: %s", got)
	}
	if got := v.set(0, "", "ps"); !strings.Contains(got, "\nlab ") {
		t.Errorf("ps: %s", got)
	}
	// The program cannot do it, though it is of the same user.
	v.says(viewtest.Binary(t)+" set lab umount DIR/dst/b 2>&1 | grep -c 'not permitted'; stat -c %s DIR/dst/b", "1\n0\n")
	if engine == "ns" {
		v.set(122, "no such file or directory\n  try: mkdir -p ", "set", "lab", "mount", "tmpfs:DIR/nowhere/in")
		v.set(125, "is not built yet", "set", "lab", "mount", "bind:DIR/src:/")
	} else {
		v.set(0, "", "set", "lab", "mount", "tmpfs:DIR/nowhere/in")
		v.says("ls DIR | grep nowhere; ls DIR/nowhere", "nowhere\nin\n")
		v.set(0, "", "set", "lab", "umount", "DIR/nowhere/in")
		v.says("ls DIR | grep nowhere; ls DIR/nowhere", "ls: cannot access 'DIR/nowhere': No such file or directory\n")
	}
	v.set(0, "", "set", "lab", "mount", "image:"+smallImage(t, v)+":DIR/bin")
	v.says("cat DIR/bin/in", "in the image\n")
	// Who is in a cow that has gone may write there.
	v.set(0, "", "set", "lab", "mount", "cow:DIR/left:DIR/src")
	v.says("cd DIR/src/sub", "")
	v.set(0, "", "set", "lab", "umount", "--lazy", "DIR/src")
	v.set(122, "another view is writing there", "-n", "none", "--fs-engine", engine, "-m", "cow:DIR/left:DIR/src", "true")
	v.says("echo late >late; cd /", "")
	if got := readFile(t, v.dir+"/left/upper/sub/late"); got != "late\n" {
		t.Errorf("UPPER has %q", got)
	}
	v.end()
	if got := readFile(t, v.dir+"/dst/a"); got != "target a\n" {
		t.Errorf("the host's file is %q", got)
	}
}

// TestIntegrationSetOver: what is mounted later covers what was mounted there and below, as it
// is then, and gives it back.
func TestIntegrationSetOver(t *testing.T) {
	eachUser(t, func(t *testing.T, w *viewtest.World, engine string, user bool) {
		v := startChanged(t, w, user, "--fs-engine", engine, "-m", "cow::DIR/dst", "-m", "hide:DIR/src/a", "-m", "bind:DIR/bin:DIR/src/sub")
		v.says("echo one >DIR/dst/a; rm DIR/dst/b", "")
		v.set(0, "", "set", "lab", "mount", "cow:DIR/up:DIR/dst")
		v.says("cd DIR/dst; cat a; ls; echo two >a; echo two >b; cat *", "one\na\ntwo\ntwo\n")
		v.says("cd /", "")
		v.set(0, "", "set", "lab", "umount", "DIR/dst")
		v.says("cat DIR/dst/*", "one\n")
		v.set(0, "", "set", "lab", "mount", "merge:DIR/path:DIR/dst")
		v.says("ls DIR/dst; cat DIR/dst/a", "a\nx\none\n")
		// What is hidden stays so, and what is bound is written to no more.
		v.set(0, "", "set", "lab", "mount", "cow:DIR/upsrc:DIR/src")
		v.says("stat -c %s DIR/src/a; ls DIR/src/sub; echo x >DIR/src/sub/new; ls DIR/src/sub DIR/bin", "0\nonly-here\nDIR/bin:\nonly-here\n\nDIR/src/sub:\nnew\nonly-here\n")
		v.set(122, "there is no mount of the view's", "set", "lab", "umount", "DIR/src/sub") // it is covered
		v.end()
		if got := readFile(t, v.dir+"/upsrc/sub/sub/upper/new"); got != "x\n" {
			t.Errorf("UPPER has %q", got)
		}
		if got := readFile(t, v.dir+"/up/upper/a"); got != "two\n" {
			t.Errorf("UPPER has %q", got)
		}
	})
}

// smallImage makes an image with one file.
func smallImage(t *testing.T, v *changedView) string {
	t.Helper()
	image := filepath.Join(v.dir, "image.tar")
	script := `mkdir "$1/img" && echo in the image >"$1/img/in" && tar -C "$1/img" -cf "$2" in`
	if r := v.w.HostCmd(context.Background(), "sh", "-c", script, "sh", v.dir, image).Result(); r.Status != 0 {
		t.Fatal(r)
	}
	return image
}

// TestIntegrationSetServed: what a command serves comes and goes.
func TestIntegrationSetServed(t *testing.T) {
	viewtest.Need(t, "bindfs", "/sbin/mkfs.ext4", "fuse2fs", "e2fsck")
	eachUser(t, func(t *testing.T, w *viewtest.World, engine string, user bool) {
		openFUSE(t, w)
		v := startChanged(t, w, user, "--fs-engine", engine)
		v.set(0, "", "set", "lab", "mount", "fuse:bindfs --no-allow-other -f DIR/src:DIR/dst")
		v.says("cat DIR/dst/a; echo more >>DIR/dst/a; cat DIR/src/a; exec 5<DIR/dst/a", "source a\nsource a\nmore\n")
		v.set(125, "device or resource busy", "set", "lab", "umount", "DIR/dst")
		v.says("exec 5<&-", "")
		v.set(0, "", "set", "lab", "umount", "DIR/dst")
		v.says("cat DIR/dst/a", "target a\n")
		v.set(122, "the command has mounted nothing, and ended with exit status 3", "set", "lab", "mount", "fuse:exit 3 #:DIR/dst")
		v.says("cat DIR/dst/a; truncate -s 4M DIR/img; mkfs.ext4 -q DIR/img", "target a\n")
		for i := range 2 {
			v.set(0, "", "set", "lab", "mount", "image:DIR/img:DIR/dst:rw")
			v.says("mkdir DIR/dst/new && ls DIR/dst", []string{"lost+found\nnew\n", "mkdir: cannot create directory 'DIR/dst/new': File exists\n"}[i])
			v.set(0, "", "set", "lab", "umount", "DIR/dst")
		}
		// What the program has bound elsewhere stays, is waited for by nobody, and is written back
		// when it goes.
		v.set(0, "", "set", "lab", "mount", "image:DIR/img:DIR/dst:rw")
		v.says("mount --bind DIR/dst/new DIR/path && exec 6>DIR/path/bound", "")
		began := time.Now()
		v.set(0, "", "set", "lab", "umount", "DIR/dst")
		if d := time.Since(began); d > 15*time.Second {
			t.Errorf("umount took %v", d)
		}
		v.says("echo bound >&6; exec 6>&-; cat DIR/path/bound DIR/dst/a; umount DIR/path", "bound\ntarget a\n")
		// Who is in it goes on with it.
		v.set(0, "", "set", "lab", "mount", "image:DIR/img:DIR/dst:rw")
		v.says("cd DIR/dst/new", "")
		v.set(0, "", "set", "lab", "umount", "--lazy", "DIR/dst")
		v.says("echo late >late; cat late DIR/dst/a; cd DIR", "late\ntarget a\n")
		if engine == "ns" { // and it is free when nobody is; with trap it is given up with the next change
			viewtest.Eventually(t, 20*time.Second, func() error {
				c := umrunAs(t, w, user, "set", "lab", "mount", "image:"+v.dir+"/img:"+v.dir+"/dst:rw")
				v.place(c)
				if r := c.Result(); r.Status != 0 {
					return fmt.Errorf("it is mounted still: %v", r)
				}
				return nil
			})
		}
		v.end()
		for _, name := range []string{"late", "bound"} {
			r := w.HostCmd(context.Background(), "/sbin/debugfs", "-R", "cat /new/"+name, v.dir+"/img").Result()
			if r.Stdout != name+"\n" {
				t.Errorf("the image has %v", r)
			}
		}
	})
}

// TestIntegrationSetUnarmed: a view without mounts has no path call trapped, and says what
// would help.
func TestIntegrationSetUnarmed(t *testing.T) {
	w := viewtest.New(t)
	v := startChanged(t, w, false)
	v.set(122, "was started without mounts", "set", "lab", "mount", "tmpfs:DIR/dst")
	v.set(122, "--fs-engine trap", "set", "lab", "umount", "DIR/dst")
	v.set(122, "a view of that name is running", "--name", "lab", "-n", "none", "--no-proc", "--", "touch", "DIR/begun")
	if _, err := os.Stat(v.dir + "/begun"); err == nil {
		t.Error("the program of a second view with the name began")
	}
	v.end()
	w.NoStrays(t)
}

// TestIntegrationSetEnds: a view's end does not wait for a mount that is being made.
func TestIntegrationSetEnds(t *testing.T) {
	w := viewtest.New(t)
	openFUSE(t, w)
	v := startChanged(t, w, false, "--fs-engine", "trap", "--wait", "1m")
	c := umrunAs(t, w, false, "set", "lab", "mount", "fuse:echo >"+v.dir+"/began; exec sleep 60 #:"+v.dir+"/path")
	v.place(c)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	viewtest.Eventually(t, 20*time.Second, func() error {
		_, err := os.Stat(v.dir + "/began")
		return err
	})
	began := time.Now()
	v.end()
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("the end took %v", took)
	}
	if err := c.Wait(); err == nil || !strings.Contains(c.Errors(), "the view lab has ended before it answered") {
		t.Errorf("who asked: %v, %s", err, c.Errors())
	}
	w.NoStrays(t)
}

// mountCallScript mounts as a program does that knows nothing of umrun.
const mountCallScript = `
import ctypes, errno, fcntl, os, subprocess, sys, time
libc = ctypes.CDLL(None, use_errno=True)
d = sys.argv[1]
def mount(source, target, fstype=None, flags=0, data=None):
    e = lambda s: None if s is None else s.encode()
    return "ok" if libc.mount(e(source), e(target), e(fstype), flags, e(data)) == 0 else errno.errorcode[ctypes.get_errno()]
def umount(target, flags=0):
    return "ok" if libc.umount2(target.encode(), flags) == 0 else errno.errorcode[ctypes.get_errno()]
def sh(line):
    r = subprocess.run(line, shell=True, cwd=d, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return r.returncode, r.stdout
dst = d + "/dst"
print(mount(d + "/src", dst, None, 4096), os.listdir(dst + "/sub"), umount(dst), umount(dst))
print(mount("none", dst, "tmpfs", 0, "mode=755"), os.listdir(dst)); open(dst + "/x", "w").write("x"); print(os.listdir(dst), umount(dst, 2))
print(mount(d + "/image.tar", dst, "umrun.image", 1 | 0xc0ed0000), open(dst + "/in").read(), umount(dst))
def free(path): # that nobody reads it as an image any more
    f = open(path)
    for i in range(500):
        try: fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB); return True
        except BlockingIOError: time.sleep(0.01)
    return False
print(free(d + "/image.tar"))
print(mount(d + "/image.tar", dst, "ext4", 1), mount(d + "/image.tar", dst, "umrun.image"), mount(d + "/src/a", dst, "squashfs"))
print(sh("/sbin/mkfs.ext4 -q -F -d src /dev/ram0 2>/dev/null"))
print(mount("/dev/ram0", dst, "ext4"), mount("/dev/ram0", d + "/bin", "ext4"), sh("cat dst/a; if test -d dst/lost+found; then echo written >dst/n; fi"), umount(dst))
print(mount("/dev/ram0", dst, "ext4", 1), sh("cat dst/a dst/sub/deep; ls dst | grep -c '^n$'; rm dst/a; grep -c ' " + dst + " ' /proc/mounts"), umount(dst))
print(umount(d + "/path"), umount(d + "/path", 2), mount(d, d + "/bin", None, 4096), mount(d, d + "/bin", None, 4096 | 16384), os.stat(d + "/bin/path").st_mode & 0o777, umount(d + "/bin", 2))
print(sh("mount --bind src dst; cat dst/a; umount dst; ls dst"))
print(sh("mount -t ext4 /dev/ram0 dst 2>/dev/null; cat dst/a; umount dst; ls dst"))
if os.geteuid() == 0:
    print(sh("busybox mount -t tmpfs none dst; touch dst/n; ls dst; busybox umount dst; ls dst"))
`

// TestIntegrationMountCalls: mount(2) and umount2(2) by a program. What they do is held
// against the kernel in package fsmod.
func TestIntegrationMountCalls(t *testing.T) {
	viewtest.Need(t, "/usr/bin/python3", "/sbin/mkfs.ext4", "fuse2fs", "busybox")
	eachUser(t, func(t *testing.T, w *viewtest.World, engine string, user bool) {
		openFUSE(t, w)
		v := &changedView{t: t, w: w, user: user, dir: mountTree(t, w, user)}
		smallImage(t, v)
		mounts := w.Host.MustRun(t, "cat", "/proc/self/mountinfo")
		r := umrunAs(t, w, user, "-q", "-n", "none", "--fs-engine", engine, "-m", "dev:ramdisk:/dev/ram0,size=4M", "-m", "hide:"+v.dir+"/path", "--",
			"/usr/bin/python3", "-c", mountCallScript, v.dir).Result()
		want := `ok ['deep'] ok EINVAL
ok []
['x'] ok
ok in the image
 ok
True
EINVAL EROFS EINVAL
(0, '')
ok EBUSY (0, 'source a\n') ok
ok (0, "source a\ndeep\n1\nrm: cannot remove 'dst/a': Read-only file system\n1\n") ok
EPERM EPERM EINVAL ok 0 ok
`
		want += "(0, 'source a\\na\\nb\\n')\n(0, 'source a\\na\\nb\\n')\n"
		if !user { // busybox looks itself who is asking
			want += "(0, 'n\\na\\nb\\n')\n"
		}
		if r.Stdout != want || r.Status != 0 {
			t.Errorf("want %q, got %v", want, r)
		}
		if now := w.Host.MustRun(t, "cat", "/proc/self/mountinfo"); now != mounts {
			t.Errorf("the host's mounts were\n%s\nand are\n%s", mounts, now)
		}
	})
}

// TestIntegrationRamdiskMount: a disk in memory that has a file system is mounted by mount(8) and
// by umrun set, to be written to where that can be had.
func TestIntegrationRamdiskMount(t *testing.T) {
	viewtest.Need(t, "/usr/bin/python3", "/sbin/mkfs.ext4", "fuse2fs")
	eachUser(t, func(t *testing.T, w *viewtest.World, engine string, user bool) {
		openFUSE(t, w)
		v := startChanged(t, w, user, "-q", "--fs-engine", engine, "-m", "dev:ramdisk:/dev/ram0,size=16M")
		const inUse = `/usr/bin/python3 -c 'import os; os.open("/dev/ram0", os.O_RDONLY | os.O_EXCL)' 2>&1 | grep -c busy; `
		if engine == "trap" { // else a path of a disk is none for stat(2), and mkfs does not ask
			v.says("stat -c '%F %t:%T' /dev/ram0; ls -l /dev/ram0 | cut -c1", "block special file 3c:0\nb\n")
		}
		v.says("/sbin/mkfs.ext4 -q /dev/ram0 2>/dev/null && mount -t ext4 /dev/ram0 DIR/dst && echo x >DIR/dst/f && umount DIR/dst && mount -t ext4 /dev/ram0 DIR/dst && cat DIR/dst/f; ls DIR/dst",
			"x\nf\nlost+found\n")
		if engine == "trap" {
			v.says("/sbin/mkfs.ext4 -q /dev/ram0 2>&1 | grep -c 'in use'", "1\n")
		}
		v.says("umount DIR/dst; for i in $(seq 20); do mount -t ext4 /dev/ram0 DIR/dst && umount DIR/dst || break; done; mount -t ext4 /dev/ram0 DIR/dst; echo $i", "20\n")
		v.says(inUse+"mount -i -o remount,ro DIR/dst; { echo y >DIR/dst/f; } 2>/dev/null || echo ro; mount -i -o remount,rw DIR/dst; echo y >DIR/dst/f; umount DIR/dst; ls DIR/dst",
			"1\nro\na\nb\n")
		v.set(0, "", "set", "lab", "mount", "image:/dev/ram0:DIR/path:rw")
		v.says("cat DIR/path/f; echo z >>DIR/path/f; "+inUse, "y\n1\n")
		v.set(122, "it is mounted", "set", "lab", "mount", "image:/dev/ram0:DIR/dst")
		v.set(0, "", "set", "lab", "umount", "DIR/path")
		v.set(0, "", "set", "lab", "mount", "image:/dev/ram0:DIR/dst")
		v.says("cat DIR/dst/f; { echo z >DIR/dst/f; } 2>/dev/null || echo ro; umount DIR/dst 2>/dev/null || echo kept", "y\nz\nro\nkept\n")
		v.set(0, "", "set", "lab", "umount", "DIR/dst")
		v.says(inUse+"/sbin/e2fsck -fn /dev/ram0 >/dev/null 2>&1; echo $?", "0\n0\n")
		v.end()
		u := umrunAs(t, w, user, "-n", "none", "--no-proc", "--fs-engine", engine, "-m", "dev:ramdisk:/dev/ram0,size=16M", "--", "/bin/sh", "-c",
			"/sbin/mkfs.ext4 -q /dev/ram0 && /bin/mount -t ext4 /dev/ram0 "+v.dir+"/dst; /bin/ls "+v.dir+"/dst; echo x >"+v.dir+"/dst/f || echo ro")
		u.Env = append(u.Env, "PATH=/nowhere", "LC_ALL=C")
		r := u.Result()
		if r.Stdout != "lost+found\nro\n" || !strings.Contains(r.Stderr, "fuse2fs, which is not installed") || !strings.Contains(r.Stderr, "mounted read-only") {
			t.Errorf("without fuse2fs: %v", r)
		}
	})
}

// TestIntegrationRamdiskCopies: what is mounted by a program stays as long as anything of it is there, and is
// written back when the last of that goes.
func TestIntegrationRamdiskCopies(t *testing.T) {
	viewtest.Need(t, "/sbin/mkfs.ext4", "fuse2fs", "unshare")
	eachUser(t, func(t *testing.T, w *viewtest.World, engine string, user bool) {
		openFUSE(t, w)
		v := startChanged(t, w, user, "-q", "--fs-engine", engine, "-m", "dev:ramdisk:/dev/ram0,size=16M")
		v.says("/sbin/mkfs.ext4 -q /dev/ram0 2>/dev/null; mount -t ext4 /dev/ram0 DIR/dst && mkdir DIR/dst/d && mount --bind DIR/dst/d DIR/path && umount DIR/dst && ls DIR/dst && echo kept >DIR/path/f && cat DIR/path/f && umount DIR/path", "a\nb\nkept\n")
		v.says("mount -t ext4 /dev/ram0 DIR/dst && cat DIR/dst/d/f && exec 5>DIR/dst/d/g; umount DIR/dst 2>/dev/null || echo busy; umount -l DIR/dst; echo later >&5; exec 5>&-; ls DIR/dst", "kept\nbusy\na\nb\n")
		if engine == "ns" { // with trap it is given up with the next change
			v.says("i=0; until mount -t ext4 /dev/ram0 DIR/dst 2>/dev/null; do i=$((i+1)); [ $i -lt 200 ] || break; sleep 0.05; done; cat DIR/dst/d/g; umount DIR/dst", "later\n")
			v.says("mount -t ext4 /dev/ram0 DIR/dst; unshare -Urm sh -c 'echo >DIR/in; exec sleep 4' 5>&- & while ! [ -e DIR/in ]; do sleep 0.05; done; umount DIR/dst && ls DIR/dst; wait; i=0; until mount -t ext4 /dev/ram0 DIR/dst 2>/dev/null; do i=$((i+1)); [ $i -lt 200 ] || break; sleep 0.05; done; ls DIR/dst/d", "a\nb\nf\ng\n")
			// What another namespace, or nobody by a name, has still, holds up no other umount.
			v.says("sleep 20 <DIR/dst/d/f & umount -l DIR/dst; s=$(date +%s); for i in 1 2 3; do mount -t tmpfs none DIR/dst; umount DIR/dst; done; [ $(($(date +%s)-s)) -lt 4 ] && echo soon; kill $!", "soon\n")
		}
		v.end()
	})
}
