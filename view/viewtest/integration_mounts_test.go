// SPDX-License-Identifier: Apache-2.0

// Mounts of a view, made by the kernel: what the program sees, what the host keeps, and
// that no path call is trapped. Each case runs as root and as an ordinary user.

package viewtest_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"umrun/view/viewtest"
)

// A mountCase is a script in a view. DIR in flags, script and want is a directory that
// the one who runs it owns; see mountTree.
type mountCase struct {
	name   string
	flags  string
	script string
	want   string // of stdout; a regular expression for the whole
	after  string // a script on the host, afterwards
	left   string // what that prints
	user   string // want, where it is another for the ordinary user
	ns     bool   // not of the trap engine, see docs/limits.md
}

var mountCases = []mountCase{
	{name: "bind", flags: "-m bind:DIR/src:DIR/dst",
		script: `cat DIR/dst/a; echo new >DIR/dst/n; ls DIR/dst`, want: "source a\na\nn\nsub\n",
		after: `cat DIR/src/n; ls DIR/dst`, left: "new\na\nb\n"},
	{name: "bind ro", flags: "-m bind:DIR/src:DIR/dst:ro",
		script: `cat DIR/dst/sub/deep; echo x >DIR/dst/a || echo $?`, want: "deep\n2\n",
		after: `cat DIR/src/a`, left: "source a\n"},
	{name: "bind file", flags: "-m bind:DIR/src/a:DIR/dst/b",
		script: `cat DIR/dst/b; ls DIR/dst; echo more >>DIR/dst/b`, want: "source a\na\nb\n",
		after: `cat DIR/src/a DIR/dst/b`, left: "source a\nmore\ntarget b\n"},
	{name: "tmpfs", flags: "-m tmpfs:DIR/dst",
		script: `ls DIR/dst; echo x >DIR/dst/x; cat DIR/dst/x; stat -c '%a %u' DIR/dst`, want: "x\n750 (0|61234)\n",
		after: `ls DIR/dst`, left: "a\nb\n"},
	{name: "hide directory", flags: "-m hide:DIR/dst",
		script: `cat DIR/dst/a; stat -c %a DIR/dst; ls DIR/dst; touch DIR/dst/x; chmod 755 DIR/dst`, want: "0\n",
		after: `ls DIR/dst`, left: "a\nb\n"},
	{name: "hide file", flags: "-m hide:DIR/dst/a",
		script: `stat -c '%a %s' DIR/dst/a; cat DIR/dst/a 2>&1; rm -f DIR/dst/a || echo kept`, want: "0 0\nkept\n",
		user:  "0 0\ncat: DIR/dst/a: Permission denied\nkept\n",
		after: `cat DIR/dst/a`, left: "target a\n"},
	{name: "file", flags: "-m file:DIR/src/a:DIR/dst/b",
		script: `cat DIR/dst/b; echo mine >DIR/dst/b; cat DIR/dst/b`, want: "source a\nmine\n",
		after: `cat DIR/src/a DIR/dst/b`, left: "source a\ntarget b\n"},
	{name: "cow", flags: "-m cow:DIR/up:DIR/dst",
		script: `cd DIR/dst; echo changed >a; rm b; mkdir d; echo x >d/x; mv d e; ln a link; ls -R; cat a`, want: ".:\na\ne\nlink\n\n./e:\nx\nchanged\n",
		after: `cat DIR/dst/*; ls DIR/dst; cat DIR/up/upper/a DIR/up/upper/e/x`, left: "target a\ntarget b\na\nb\nchanged\nx\n"},
	{name: "cow thrown away", flags: "-m cow::DIR/dst",
		script: `echo changed >DIR/dst/a; rm DIR/dst/b; ls DIR/dst; cat DIR/dst/a`, want: "a\nchanged\n",
		after: `cat DIR/dst/*`, left: "target a\ntarget b\n"},
	{name: "merge", flags: "-m merge:DIR/src:DIR/dst",
		script: `ls DIR/dst; cat DIR/dst/a DIR/dst/b; echo x >DIR/dst/b || echo $?`, want: "a\nb\nsub\nsource a\ntarget b\n2\n"},
	{name: "cow over a bind", flags: "-m bind:DIR/src:DIR/dst -m cow:DIR/up:DIR/dst",
		script: `cd DIR/dst; echo changed >a; ls; cat a sub/deep; cd sub; pwd; cat DIR/src/a; cd DIR/src/sub; pwd`,
		want:   "a\nsub\nchanged\ndeep\nDIR/dst/sub\nsource a\nDIR/src/sub\n",
		after:  `cat DIR/src/a DIR/up/upper/a; ls DIR/dst`, left: "source a\nchanged\na\nb\n"},
	{name: "cow of what is in a bind", flags: "-m bind:DIR/src:DIR/dst -m cow::DIR/dst/sub",
		script: `cd DIR/dst; echo changed >sub/deep; cat sub/deep; echo x >new; cat DIR/src/sub/deep`, want: "changed\ndeep\n",
		after: `cat DIR/src/sub/deep DIR/src/new`, left: "deep\nx\n"},
	{name: "cow over a tmpfs", flags: "-m tmpfs:DIR/dst -m cow::DIR/dst", script: `ls DIR/dst; echo x >DIR/dst/x; ls DIR/dst`, want: "x\n",
		after: `ls DIR/dst`, left: "a\nb\n"},
	{name: "cow over one that is thrown away", flags: "-m cow::DIR -m cow:DIR/up:DIR/dst", script: `echo x >DIR/dst/a; echo x >DIR/src/a`,
		after: `cat DIR/dst/a DIR/src/a DIR/up/upper/a`, left: "target a\nsource a\nx\n"},
	{name: "cow over a merge", flags: "-m merge:DIR/src:DIR/dst -m cow:DIR/up:DIR/dst",
		script: `cd DIR/dst; echo changed >a; rm b; echo new >sub/new; ls -R; cat a; cd sub; pwd; mv deep DIR/dst; cat ../deep DIR/src/sub/deep`,
		want:   ".:\na\nsub\n\n./sub:\ndeep\nnew\nchanged\nDIR/dst/sub\ndeep\ndeep\n",
		after:  `cat DIR/src/a DIR/dst/* DIR/up/upper/a DIR/up/upper/sub/new`, left: "source a\ntarget a\ntarget b\nchanged\nnew\n"},
	{name: "cow over a cow that is kept", flags: "-m cow:DIR/up/1:DIR/dst -m cow:DIR/up/2:DIR/dst",
		script: `cd DIR/dst; echo changed >a; rm b; ls; cat a`, want: "a\nchanged\n",
		after: `cat DIR/dst/* DIR/up/2/upper/a; ls DIR/up/1/upper`, left: "target a\ntarget b\nchanged\n"},
	{name: "merge over a cow that is kept", flags: "-m cow:DIR/up:DIR/dst -m merge:DIR/src:DIR/dst",
		script: `ls DIR/dst; cat DIR/dst/a DIR/dst/b; echo x >DIR/dst/b || echo $?`, want: "a\nb\nsub\nsource a\ntarget b\n2\n"},
	{name: "cow of what is in a merge", flags: "-m merge:DIR/src:DIR/dst -m cow:DIR/up:DIR/dst/sub",
		script: `cd DIR/dst; echo changed >sub/deep; cat sub/deep a; echo x >b || echo $?`, want: "changed\nsource a\n2\n",
		after: `cat DIR/src/sub/deep DIR/up/upper/deep`, left: "deep\nchanged\n"},
	{name: "merge over a merge", flags: "-m merge:DIR/src:DIR/dst -m merge:DIR/path:DIR/dst",
		script: `ls DIR/dst; cat DIR/dst/sub/deep`, want: "a\nb\nsub\nx\ndeep\n"},
	{name: "merge over a bind", flags: "-m bind:DIR/path:DIR/dst -m merge:DIR/src:DIR/dst",
		script: `ls DIR/dst; cd DIR/dst/sub; pwd; cd DIR/src/sub; pwd`, want: "a\nsub\nx\nDIR/dst/sub\nDIR/src/sub\n"},
	{name: "devices", flags: "-m dev:null:DIR/dst/a -m dev:zero:DIR/dst/b",
		script: `echo gone >DIR/dst/a; wc -c <DIR/dst/a; head -c 3 DIR/dst/b | od -An -tx1`, want: "0\n 00 00 00\n"},
	{name: "nested, the inner one first", flags: "-m bind:DIR/src:DIR/dst/in/side -m tmpfs:DIR/dst/in -m tmpfs:DIR/dst",
		script: `ls DIR/dst DIR/dst/in/side`, want: "DIR/dst:\nin\n\nDIR/dst/in/side:\na\nsub\n",
		after: `ls DIR/dst`, left: "a\nb\n"},
	{name: "sources are the host's", flags: "-m tmpfs:DIR/src -m bind:DIR/src/sub:DIR/dst",
		script: `ls DIR/src; cat DIR/dst/deep`, want: "deep\n"},
	{name: "a place that is not there", ns: true, flags: "-m bind:DIR/src:DIR/dst/new/place -m bind:DIR/src/a:DIR/dst/other",
		script: `cat DIR/dst/new/place/a DIR/dst/other; echo kept >>DIR/dst/a; ls DIR/dst; touch DIR/dst/x || echo $?; rm -f DIR/dst/b || echo $?`,
		want:   "source a\nsource a\na\nb\nnew\nother\n1\n1\n",
		after:  `ls DIR/dst; cat DIR/dst/a`, left: "a\nb\ntarget a\nkept\n"},
	{name: "a place at the top", ns: true, flags: "-m bind:DIR/src:/umrun-lab/deep/er",
		script: `cat /umrun-lab/deep/er/a; echo through >DIR/dst/a; touch /umrun-lab-x || echo $?; pwd`, want: "source a\n1\nDIR/dst\n",
		after: `ls -d /umrun-lab || cat DIR/dst/a`, left: "through\n"},
	{name: "the directory one is in", flags: "-m bind:DIR/src:DIR/dst",
		script: `pwd; cat a`, want: "DIR/dst\nsource a\n"},
	{name: "a program of the view alone", flags: "-m bind:DIR/bin:DIR/path",
		script: `only-here`, want: "it ran\n"},
	{name: "names", flags: "--hosts db.example=192.0.2.7 --hosts six.example=2001:db8::7 --hostname box.example",
		script: `hostname; uname -n; cat /etc/hostname /proc/sys/kernel/hostname; linux32 uname -nm; getent hosts db.example; getent hosts six.example; getent hosts box.example`,
		want:   "box.example\nbox.example\nbox.example\nbox.example\nbox.example i686\n192.0.2.7 +db.example\n2001:db8::7 +six.example\n127.0.1.1 +box.example\n",
		after:  `grep -c db.example /etc/hosts`, left: "0\n"},
	{name: "cow of everything", flags: "-m cow::/",
		script: `pwd; rm -rf DIR/src DIR/dst/*; echo x >/tmp/umrun-lab-x; cat /tmp/umrun-lab-x; ls DIR DIR/dst; echo gone >/dev/null; head -c 2 /dev/zero | wc -c; touch /dev/shm/umrun-lab-x`,
		want:   "DIR/dst\nx\nDIR:\nbin\ndst\npath\ntraps\n\nDIR/dst:\n2\n",
		after:  `cat DIR/dst/* DIR/src/a; ls -d /tmp/umrun-lab-x /dev/shm/umrun-lab-x || true`, left: "target a\ntarget b\nsource a\n"},
	{name: "without /proc", ns: true, flags: "-m tmpfs:/proc -m tmpfs:DIR/dst -m cow::DIR/src -m file:/etc/hostname:DIR/path/x -m bind:DIR/bin:DIR/src/sub",
		script: `ls /proc; stat -c %a DIR/dst; echo new >DIR/src/a; cat DIR/src/a; cmp DIR/path/x /etc/hostname; ls DIR/src/sub`, want: "750\nnew\nonly-here\n",
		after: `cat DIR/src/a`, left: "source a\n"},
	{name: "several", flags: "-m cow::/ -m hide:/etc/hostname -m bind:DIR/src:/umrun-lab/x -m tmpfs:/var",
		script: `ls /var; cat /umrun-lab/x/a; stat -c %s /etc/hostname`, want: "source a\n0\n"},
}

// pathCalls are what a view with mounts of the kernel's must not trap.
var pathCalls = regexp.MustCompile(`(?m)^(open|stat|lstat|newfstatat|statx|access|faccessat|readlink|getdents|mkdir|mknod|unlink|rename|link|symlink|chmod|fchmod|chown|fchown|utime|truncate|setxattr|getxattr|listxattr|statfs|chdir|fchdir|getcwd|chroot|execve)`)

func TestIntegrationMounts(t *testing.T) {
	w := viewtest.New(t)
	for _, user := range []bool{false, true} {
		who := map[bool]string{false: "root", true: "user"}[user]
		for _, engine := range []string{"ns", "trap"} {
			for _, tc := range mountCases {
				if tc.ns && engine == "trap" {
					continue
				}
				t.Run(who+"/"+engine+"/"+tc.name, func(t *testing.T) { tc.run(t, w, user, engine) })
			}
		}
	}
	w.NoStrays(t)
}

// mountTree makes what the cases look at.
func mountTree(t testing.TB, w *viewtest.World, user bool) string {
	t.Helper()
	dir, err := os.MkdirTemp(w.Dir(), "mounts-")
	if err != nil {
		t.Fatal(err)
	}
	writeFiles(t, dir, map[string]string{
		"src/a": "source a\n", "src/sub/deep": "deep\n", "dst/a": "target a\n", "dst/b": "target b\n",
		"bin/only-here": "#!/bin/sh\necho it ran\n", "path/x": "",
	})
	if err := os.Chmod(filepath.Join(dir, "dst"), 0o750); err != nil {
		t.Fatal(err)
	}
	if user {
		give(t, dir)
	}
	return dir
}

// writeFiles makes files of mode 755 in dir, and the directories that they are in.
func writeFiles(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// give makes a tree the ordinary user's.
func give(t testing.TB, dir string) {
	t.Helper()
	if err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, viewtest.UID, viewtest.GID)
	}); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
}

// umrunAs prepares umrun for one of the two.
func umrunAs(t testing.TB, w *viewtest.World, user bool, args ...string) *viewtest.Cmd {
	c := w.UmrunFlags(t, args...)
	if user {
		c = c.AsUser(w.Home())
	}
	return c
}

func (tc mountCase) run(t *testing.T, w *viewtest.World, user bool, engine string) {
	dir := mountTree(t, w, user)
	in := func(s string) string { return strings.ReplaceAll(s, "DIR", dir) }
	mounts := w.Host.MustRun(t, "cat", "/proc/self/mountinfo")
	traps := filepath.Join(dir, "traps")
	args := append([]string{"-q", "-n", "none", "--no-proc", "--fs-engine", engine, "--traps", traps}, strings.Fields(in(tc.flags))...)
	prog := []string{"sh", "-c", in(tc.script)}
	if tc.script == "only-here" {
		prog = []string{tc.script}
	}
	u := umrunAs(t, w, user, append(append(args, "--"), prog...)...)
	u.Dir = filepath.Join(dir, "dst")
	u.Env = append(u.Env, "PWD="+u.Dir, "PATH="+dir+"/path:"+os.Getenv("PATH"))
	r := u.Result()
	want := tc.want
	if user && tc.user != "" {
		want = tc.user
	}
	if !regexp.MustCompile("^(?:" + in(want) + ")$").MatchString(r.Stdout) {
		t.Errorf("want %q, got %v", in(want), r)
	}
	if got := pathCalls.FindString(readFile(t, traps)); got != "" && engine == "ns" {
		t.Errorf("%s was trapped:\n%s", got, readFile(t, traps))
	}
	if tc.after != "" {
		r := w.HostCmd(context.Background(), "sh", "-c", in(tc.after)).Result()
		if r.Stdout != in(tc.left) {
			t.Errorf("on the host: want %q, got %v", in(tc.left), r)
		}
	}
	if now := w.Host.MustRun(t, "cat", "/proc/self/mountinfo"); now != mounts {
		t.Errorf("the host's mounts were\n%s\nand are\n%s", mounts, now)
	}
}

// treeSum is a hash of all that a tree holds and what is said of it, but when it was read.
func treeSum(t testing.TB, dir string) string {
	t.Helper()
	h := sha256.New()
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := os.Lstat(path)
		if err != nil {
			return err
		}
		sys := st.Sys().(*syscall.Stat_t)
		fmt.Fprintln(h, path, st.Mode(), sys.Uid, sys.Gid, sys.Nlink, sys.Ino, st.Size(), sys.Mtim, sys.Ctim)
		switch {
		case st.Mode().IsRegular():
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			h.Write(b)
		case st.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			fmt.Fprintln(h, to)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// TestIntegrationCowKept: what was written is there in the next view, for which nothing
// of it is new; and two views do not write to the same place at once.
func TestIntegrationCowKept(t *testing.T) {
	w := viewtest.New(t)
	for _, user := range []bool{false, true} {
		dir := mountTree(t, w, user)
		sum := treeSum(t, filepath.Join(dir, "dst"))
		view := func(target, script string) *viewtest.Cmd {
			return umrunAs(t, w, user, "-q", "-n", "none", "-m", "cow:"+dir+"/up:"+target, "--", "sh", "-c", "cd "+dir+"/dst;"+script)
		}
		for _, target := range []string{dir + "/dst", "/"} {
			if r := view(target, "rm -r a; mkdir a; echo one >a/one; rm b").Result(); r.Status != 0 {
				t.Error(r)
			}
			if r := view(target, "ls; ls a; rm -r a; echo file >a; mv a b").Result(); r.Status != 0 || r.Stdout != "a\none\n" {
				t.Error(r)
			}
			if r := view(target, "ls; cat b").Result(); r.Status != 0 || r.Stdout != "b\nfile\n" {
				t.Error(r)
			}
			if got := treeSum(t, filepath.Join(dir, "dst")); got != sum {
				t.Error("the real tree has changed")
			}
			first := start(t, view(target, "echo ready; exec sleep 50"))
			awaitOutput(t, first, "ready\n")
			if r := view(target, "true").Result(); r.Status != 122 || !strings.Contains(r.Stderr, "another view is writing there") {
				t.Error(r)
			}
			first.Stop()
			if err := os.RemoveAll(filepath.Join(dir, "up")); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestIntegrationMountsKilled: of a view whose umrun was killed nothing is left.
func TestIntegrationMountsKilled(t *testing.T) {
	w := viewtest.New(t)
	for _, user := range []bool{false, true} {
		dir := mountTree(t, w, user)
		mounts := w.Host.MustRun(t, "cat", "/proc/self/mountinfo")
		memory := w.Host.MustRun(t, "ls", "/dev/shm", "/run")
		u := start(t, umrunAs(t, w, user, "-q", "-n", "none", "-m", "cow::/", "-m", "tmpfs:"+dir+"/dst", "-m", "file:/etc/passwd:"+dir+"/new",
			"--", "sh", "-c", "echo x >"+dir+"/dst/x; echo x >/tmp/umrun-lab-killed; echo ready; exec sleep 50"))
		awaitOutput(t, u, "ready\n")
		syscall.Kill(u.Process.Pid, syscall.SIGKILL)
		u.Wait()
		gone(t, w, 10*time.Second)
		if now := w.Host.MustRun(t, "cat", "/proc/self/mountinfo"); now != mounts {
			t.Errorf("the host's mounts were\n%s\nand are\n%s", mounts, now)
		}
		if now := w.Host.MustRun(t, "ls", "/dev/shm", "/run"); now != memory {
			t.Errorf("left in memory: %s\nit was %s", now, memory)
		}
		if r := w.HostCmd(context.Background(), "ls", "/tmp/umrun-lab-killed", dir+"/new", dir+"/dst/x").Result(); r.Stdout != "" {
			t.Errorf("the host has %s", r.Stdout)
		}
	}
}

// TestIntegrationMountsSwept: what a killed umrun leaves where the engine is trap, and one that
// was killed with the helper of a FUSE file system, is removed by the next view of the user, of
// whatever kind.
func TestIntegrationMountsSwept(t *testing.T) {
	w := viewtest.New(t)
	ownMemory(t, w)
	for _, user := range []bool{false, true} {
		dir := mountTree(t, w, user)
		u := start(t, umrunAs(t, w, user, "-q", "-n", "none", "--fs-engine", "trap", "-m", "tmpfs:"+dir+"/dst",
			"--", "sh", "-c", "echo x >"+dir+"/dst/x; echo ready; exec sleep 50"))
		awaitOutput(t, u, "ready\n")
		syscall.Kill(u.Process.Pid, syscall.SIGKILL)
		u.Wait()
		gone(t, w, 10*time.Second)
		age := w.HostCmd(context.Background(), "sh", "-ec", "mkdir -p /dev/shm/umrun-fuse-1/mnt; touch -d '2 minutes ago' /dev/shm/umrun-*; ls /dev/shm")
		if user {
			age = age.AsUser(w.Home())
		}
		if got := ok(t, age); !strings.Contains(got, "umrun-files-") {
			t.Errorf("left are %q: there is nothing to sweep", got)
		}
		if r := umrunAs(t, w, user, "-q", "-n", "none", "--", "ls", "/dev/shm").Result(); r.Status != 0 || r.Stdout != "" {
			t.Error(r)
		}
	}
	w.NoStrays(t)
}

// TestIntegrationCowAcross: the engines keep what was written in the same form.
func TestIntegrationCowAcross(t *testing.T) {
	w := viewtest.New(t)
	for _, user := range []bool{false, true} {
		dir := mountTree(t, w, user)
		sum := treeSum(t, filepath.Join(dir, "dst"))
		for i, step := range []struct{ engine, script, want string }{
			{"ns", "rm a; mkdir a; echo 1 >a/1; echo more >>b; ln -s b c", ""},
			{"trap", "ls; cat a/1 c; rm b; mkdir -p e/f; echo 2 >e/f/2; rm -r a; mkdir a; mv e/f a/g", "a\nb\nc\n1\ntarget b\nmore\n"},
			{"ns", "ls -R; cat a/g/2; echo b again >b; rm c", ".:\na\nc\ne\n\n./a:\ng\n\n./a/g:\n2\n\n./e:\n2\n"},
			{"trap", "ls; cat b", "a\nb\ne\nb again\n"},
		} {
			r := umrunAs(t, w, user, "-q", "-n", "none", "--fs-engine", step.engine, "-m", "cow:"+dir+"/up:"+dir+"/dst", "--", "sh", "-c", "cd "+dir+"/dst;"+step.script).Result()
			if r.Status != 0 || r.Stdout != step.want {
				t.Errorf("step %d by %s: want %q, got %v", i, step.engine, step.want, r)
			}
		}
		if treeSum(t, filepath.Join(dir, "dst")) != sum {
			t.Error("the real tree has changed")
		}
	}
}

// TestIntegrationMountsPropagation: what the host mounts later comes in, and nothing
// gets out.
func TestIntegrationMountsPropagation(t *testing.T) {
	viewtest.Need(t, "unshare", "mount")
	w := viewtest.New(t)
	for _, flags := range []string{"-m tmpfs:/opt", "-m cow:" + w.Dir() + "/up:/srv", "-m bind:/etc:/umrun-lab/etc"} {
		dir := mountTree(t, w, false)
		inside := "touch ready; while ! [ -e src/x ]; do sleep 0.02; done; echo came in; mount -t tmpfs none dst; touch dst/x; ls dst"
		script := `mount --make-rshared / && "$0" -q -n none ` + flags + ` -- sh -c '` + inside + `' & while ! [ -e ready ]; do sleep 0.02; done; mount -t tmpfs none src; touch src/x; wait; ls dst`
		c := w.HostCmd(context.Background(), "unshare", "-m", "sh", "-c", script, viewtest.Binary(t))
		c.Dir = dir
		if r := c.Result(); r.Stdout != "came in\nx\na\nb\n" {
			t.Errorf("%s: %v", flags, r)
		}
	}
}

// TestIntegrationReadOnlyLater: what the host mounts later where something is read-only
// does not come in, as it could be written to.
func TestIntegrationReadOnlyLater(t *testing.T) {
	viewtest.Need(t, "unshare", "mount")
	w := viewtest.New(t)
	dir := mountTree(t, w, false)
	inside := "touch ready; while ! [ -e src/sub/x ]; do sleep 0.02; done; touch dst/sub/y && echo written; ls dst/sub"
	script := `mount --make-rshared / && "$0" -q -n none --fs-engine ns -m bind:` + dir + `/src:` + dir + `/dst:ro -- sh -c '` + inside +
		`' & while ! [ -e ready ]; do sleep 0.02; done; mount -t tmpfs none src/sub; touch src/sub/x; wait; ls src/sub`
	c := w.HostCmd(context.Background(), "unshare", "-m", "sh", "-c", script, viewtest.Binary(t))
	c.Dir = dir
	if r := c.Result(); r.Stdout != "deep\nx\n" {
		t.Errorf("got %v", r)
	}
}

// TestIntegrationCowLater: what the host mounts later in what a cow passes through as it is does
// not come in, as no copy of it would be made when it is written to.
func TestIntegrationCowLater(t *testing.T) {
	viewtest.Need(t, "unshare", "mount")
	w := viewtest.New(t)
	dir := mountTree(t, w, false)
	inside := "echo ready >&3; read go; (echo changed >/proc/fs/x) 2>/dev/null; test -e /proc/fs/x || echo not there"
	script := `mount --make-rshared /; mkfifo pipe; exec 3<>pipe; (read ready <&3; mount -t tmpfs none /proc/fs; echo old >/proc/fs/x; echo go) | "$0" -q -n none --fs-engine ns -m cow::/ -- sh -c '` + inside + `'; cat /proc/fs/x`
	c := w.HostCmd(context.Background(), "unshare", "-m", "sh", "-c", script, viewtest.Binary(t))
	c.Dir = dir
	if r := c.Result(); r.Stdout != "not there\nold\n" {
		t.Errorf("got %v", r)
	}
}

// TestIntegrationCowOverOddMounts: a cow waits for no pipe that is mounted in its tree, and
// finds what is mounted where a name has a space that is none for the kernel.
func TestIntegrationCowOverOddMounts(t *testing.T) {
	w := viewtest.New(t)
	dir := mountTree(t, w, false)
	odd := filepath.Join(dir, "dst", "no\u00a0break")
	if err := os.Mkdir(odd, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := w.Host.Tmpfs(odd); err != nil {
		t.Fatal(err)
	}
	w.Host.MustRun(t, "sh", "-c", "echo seen >'"+odd+"/x'; mkfifo "+dir+"/pipe; mount --bind "+dir+"/pipe "+dir+"/dst/b")
	r := umrunAs(t, w, false, "-q", "-n", "none", "--fs-engine", "ns", "-m", "cow::"+dir+"/dst", "--", "sh", "-c",
		"cd "+dir+"/dst; test -p b && echo pipe; cat no*/x; echo changed >no*/x").Result()
	if r.Stdout != "pipe\nseen\n" {
		t.Errorf("got %v", r)
	}
	if got := w.Host.MustRun(t, "cat", odd+"/x"); got != "seen\n" {
		t.Errorf("the host has %q", got)
	}
}

// TestIntegrationCowOverMounts: what is mounted in the tree is copied on write as well.
func TestIntegrationCowOverMounts(t *testing.T) {
	w := viewtest.New(t)
	for _, user := range []bool{false, true} {
		dir := mountTree(t, w, user)
		sub := filepath.Join(dir, "dst", "sub")
		if err := os.Mkdir(sub, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := w.Host.Tmpfs(sub); err != nil {
			t.Fatal(err)
		}
		w.Host.MustRun(t, "sh", "-c", "echo old >"+sub+"/old")
		if user {
			w.Host.MustRun(t, "chown", "-R", fmt.Sprintf("%d:%d", viewtest.UID, viewtest.GID), sub)
		}
		for _, upper := range []string{"", dir + "/up"} {
			script := "cd " + dir + "/dst; touch made 2>/dev/null && echo made; echo new >sub/new; echo changed >sub/old; cat sub/*"
			want := "made\nnew\nchanged\n"
			if user && upper != "" { // docs/limits.md: the mounts are locked
				want = "new\nchanged\n"
			}
			if r := umrunAs(t, w, user, "-q", "-n", "none", "--fs-engine", "ns", "-m", "cow:"+upper+":"+dir+"/dst", "--", "sh", "-c", script).Result(); r.Stdout != want {
				t.Errorf("want %q, got %v", want, r)
			}
			if got := w.Host.MustRun(t, "sh", "-c", "cd "+dir+"/dst; cat sub/*; ls"); got != "old\na\nb\nsub\n" {
				t.Errorf("the host has %q", got)
			}
		}
		if got := readFile(t, filepath.Join(dir, "up/sub/sub/upper/new")); got != "new\n" {
			t.Errorf("kept is %q", got)
		}
	}
}

// TestIntegrationRamdiskTools: programs that make and look at disks do so with a ramdisk, without
// mounts and with those of either engine.
func TestIntegrationRamdiskTools(t *testing.T) {
	viewtest.Need(t, "mke2fs", "e2fsck", "mkfs.vfat", "blockdev", "wipefs")
	w := viewtest.New(t)
	const script = `export PATH=$PATH:/usr/sbin; d=/dev/umrun-lab-disk
blockdev --getsize64 $d; blockdev --getsz $d; blockdev --getss $d; blockdev --getro $d
mke2fs -q -t ext4 $d 2>&1 | grep -v geometry; e2fsck -fn $d >/dev/null 2>&1 && echo clean; wipefs $d | grep -o ext4
mkfs.vfat $d >/dev/null && dd if=$d bs=1 skip=54 count=5 2>/dev/null`
	for _, user := range []bool{false, true} {
		for _, flags := range [][]string{nil, {"--fs-engine", "ns", "-m", "tmpfs:/opt"}, {"--fs-engine", "trap", "-m", "tmpfs:/opt"}} {
			args := append([]string{"-q", "-n", "none", "-m", "dev:ramdisk:/dev/umrun-lab-disk,size=64M"}, flags...)
			r := umrunAs(t, w, user, append(args, "--", "sh", "-c", script)...).Result()
			if want := "67108864\n131072\n512\n0\nclean\next4\nFAT16"; r.Stdout != want {
				t.Errorf("%v: want %q, got %v", flags, want, r)
			}
		}
	}
}
