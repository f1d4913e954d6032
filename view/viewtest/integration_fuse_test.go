// SPDX-License-Identifier: Apache-2.0

// FUSE file systems that a command brings, unmodified ones of Debian, by either engine. Each
// case runs as root and as an ordinary user.

package viewtest_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"umrun/view/viewtest"
)

// A fuseCase is a script in a view where a command serves DIR/dst.
type fuseCase struct {
	name    string
	before  string // a script on the host, in DIR
	command string
	flags   string // more of them
	mountCase
}

var fuseCases = []fuseCase{
	{name: "read and written", command: "bindfs --no-allow-other -f DIR/src", mountCase: mountCase{
		script: `cd DIR/dst; cat a; cp a b; ln b c; mv c sub; ln -s b d; chmod 700 b; stat -c %a b; printf '#!/bin/sh\necho ran $0\n' >p; chmod 755 p; ./p; rm a; pwd; ls; mkdir -p x/y; rmdir x/y`,
		want:   "source a\n700\nran ./p\nDIR/dst\nb\nd\np\nsub\n",
		after:  `cd DIR; cat src/b; ls src/sub; stat -c %h src/b`, left: "source a\nc\ndeep\n2\n"}},
	{name: "a name that the command tells where", command: "bindfs {} -f --no-allow-other DIR/src {} 2>/dev/null || exec bindfs --no-allow-other -f DIR/src {}", mountCase: mountCase{
		script: `cat DIR/dst/a`, want: "source a\n"}},
	{name: "one that goes to the background", command: "squashfuse DIR/fs.squash", before: "PATH=$PATH:/usr/sbin; mksquashfs src fs.squash -quiet -no-progress", mountCase: mountCase{
		script: `ls DIR/dst; cat DIR/dst/sub/deep; echo x >DIR/dst/a || echo $?`, want: "a\nsub\ndeep\n2\n"}},
	{name: "written back at the end", command: "fuse-zip -o uid=$(id -u),gid=$(id -g) DIR/x.zip", before: "cd src; zip -qr ../x.zip a", mountCase: mountCase{
		script: `cat DIR/dst/a; echo new >DIR/dst/n`, want: "source a\n",
		after: `cd DIR; unzip -p x.zip n`, left: "new\n"}},
	{name: "an archive", command: "archivemount -f -o readonly DIR/x.tar", before: "tar -cf x.tar -C src .", mountCase: mountCase{
		script: `cat DIR/dst/sub/deep`, want: "deep\n"}},
	{name: "sftp", command: "sshfs -f -o ssh_command=DIR/ssh host:DIR/src", before: `printf '#!/bin/sh\nexec /usr/lib/openssh/sftp-server\n' >ssh; chmod 755 ssh`, mountCase: mountCase{
		script: `cat DIR/dst/a; echo more >>DIR/dst/a; ls DIR/dst`, want: "source a\na\nsub\n",
		after: `cat DIR/src/a`, left: "source a\nmore\n"}},
	{name: "on the host's network, with the host's files", flags: "-m tmpfs:DIR/src", command: "readlink /proc/self/ns/net >DIR/net; bindfs --no-allow-other -f DIR/src", mountCase: mountCase{
		script: `cat DIR/dst/a; ls DIR/src`, want: "source a\n", after: `readlink /proc/self/ns/net | cmp - DIR/net && echo the same`, left: "the same\n"}},
	{name: "a place that is not there", flags: "-m bind:DIR/dst:DIR/dst2", command: "bindfs --no-allow-other -f DIR/src", mountCase: mountCase{
		script: `cat DIR/dst/a DIR/dst2/b`, want: "source a\ntarget b\n"}},
	{name: "without a shebang", command: "bindfs --no-allow-other -f DIR/src", before: "echo 'echo no shebang' >path/bare; chmod 755 path/bare", mountCase: mountCase{
		script: `DIR/path/bare`, want: "no shebang\n"}},
	{name: "the command dies", command: "bindfs --no-allow-other -f DIR/src {} & while ! [ -e DIR/die ]; do sleep 0.02; done; kill -9 $!; wait $!; rm DIR/die", mountCase: mountCase{
		script: `cat DIR/dst/a; touch DIR/die; while [ -e DIR/die ]; do sleep 0.02; done; cat DIR/dst/a 2>&1`, want: "source a\ncat: DIR/dst/a: Transport endpoint is not connected\n"}},
}

// ownMemory gives the host a /dev/shm of its own.
func ownMemory(t *testing.T, w *viewtest.World) {
	t.Helper()
	var err error
	w.Host.Do(func() { err = unix.Mount("tmpfs", "/dev/shm", "tmpfs", 0, "mode=1777") })
	if err != nil {
		t.Fatal(err)
	}
}

// emptyMemory fails the test if something is there.
func emptyMemory(t *testing.T, w *viewtest.World) {
	t.Helper()
	if left := w.Host.MustRun(t, "ls", "/dev/shm"); left != "" {
		t.Errorf("left in memory: %s", left)
	}
}

func TestIntegrationFuse(t *testing.T) {
	viewtest.Need(t, "bindfs", "squashfuse", "mksquashfs", "fuse-zip", "zip", "unzip", "archivemount", "sshfs")
	w := viewtest.New(t)
	openFUSE(t, w)
	ownMemory(t, w)
	for _, user := range []bool{false, true} {
		who := map[bool]string{false: "root", true: "user"}[user]
		for _, engine := range []string{"ns", "trap"} {
			for _, tc := range fuseCases {
				t.Run(who+"/"+engine+"/"+tc.name, func(t *testing.T) { tc.run(t, w, user, engine) })
			}
		}
	}
	emptyMemory(t, w)
	w.NoStrays(t)
}

func (tc fuseCase) run(t *testing.T, w *viewtest.World, user bool, engine string) {
	dir := mountTree(t, w, user)
	in := func(s string) string { return strings.ReplaceAll(s, "DIR", dir) }
	script := func(s string) viewtest.Result {
		c := w.HostCmd(context.Background(), "sh", "-c", in(s))
		if user {
			c = c.AsUser(w.Home())
		}
		c.Dir = dir
		return c.Result()
	}
	if r := script(tc.before); r.Status != 0 {
		t.Fatal(r)
	}
	mounts := w.Host.MustRun(t, "cat", "/proc/self/mountinfo")
	traps := filepath.Join(dir, "traps")
	args := []string{"-n", "none", "--no-proc", "--fs-engine", engine, "--traps", traps, "-m", in("fuse:" + tc.command + ":DIR/dst")}
	args = append(args, strings.Fields(in(tc.flags))...)
	u := umrunAs(t, w, user, append(args, "--", "sh", "-c", in(tc.script))...)
	u.Dir = filepath.Join(dir, "path")
	r := u.Result()
	if !regexp.MustCompile("^(?:" + in(tc.want) + ")$").MatchString(r.Stdout) {
		t.Errorf("want %q, got %v", in(tc.want), r)
	}
	if got := pathCalls.FindString(readFile(t, traps)); got != "" && engine == "ns" {
		t.Errorf("%s was trapped:\n%s", got, readFile(t, traps))
	}
	if tc.after != "" {
		if r := script(tc.after); r.Stdout != in(tc.left) {
			t.Errorf("on the host: want %q, got %v", in(tc.left), r)
		}
	}
	if now := w.Host.MustRun(t, "cat", "/proc/self/mountinfo"); now != mounts {
		t.Errorf("the host's mounts were\n%s\nand are\n%s", mounts, now)
	}
	if left := w.Host.Pids(); len(left) > 0 {
		t.Errorf("still running: %v", left)
	}
}

// TestIntegrationFuseFails: the error says what the command said, and what to do; nothing is
// left.
func TestIntegrationFuseFails(t *testing.T) {
	viewtest.Need(t, "bindfs")
	w := viewtest.New(t)
	setFUSE(t, w, 0o600)
	refused := umrunAs(t, w, true, "-n", "none", "-m", "fuse:true:/mnt", "--", "true").Result()
	if refused.Status != 123 || !strings.Contains(refused.Stderr, "open /dev/fuse: permission denied\n  try: chmod 666 /dev/fuse, as root    or: umrun doctor\n") {
		t.Errorf("without /dev/fuse: %v", refused)
	}
	openFUSE(t, w)
	plan := umrunAs(t, w, true, "-n", "none", "-m", "fuse:no such thing:/mnt", "--dry-run", "true").Result()
	if plan.Status != 0 || !strings.Contains(plan.Stdout, `"fuse": "namespace"`) || !strings.Contains(plan.Stdout, `"source": "no such thing"`) {
		t.Errorf("the plan: %v", plan)
	}
	for _, c := range []struct{ name, command, want string }{
		{"it fails", "echo first; echo last >&2; exit 3", `the command has mounted nothing, and ended with exit status 3\n  It said last:\n      first\n      last\n`},
		{"it is not there", "umrun-lab-none", `ended with exit status 127\n  It said last:\n .*umrun-lab-none: not found\n`},
		{"it does nothing", "sleep 50; true", `the command has mounted nothing in 1s\n  It has said nothing.\n  try: --wait 1m    or: {} in the command`},
		{"it dies", "kill -KILL $$; true", `ended with exit status 137\n`},
		{"it does not obey", "trap : TERM; sleep 50 & wait; true", `the command has mounted nothing in 1s\n`},
		{"it mounts something else", "mount -t tmpfs none", `it has mounted a tmpfs, which is no FUSE file system`},
		{"allow_other", "bindfs -f -o allow_other /etc", `the command mounts with allow_other, and then the kernel lets in only who is in its user namespace\n  try: the same without allow_other`},
	} {
		for _, engine := range []string{"ns", "trap"} {
			dir := mountTree(t, w, true)
			r := umrunAs(t, w, true, "-q", "-n", "none", "--wait", "1s", "--fs-engine", engine, "-m", "fuse:"+c.command+":"+dir+"/dst", "--", "true").Result()
			if r.Status != 122 || !regexp.MustCompile(c.want).MatchString(r.Stderr) {
				t.Errorf("%s, %s: want %q; got %v", c.name, engine, c.want, r)
			}
			if left := w.Host.Pids(); len(left) > 0 {
				t.Errorf("%s, %s: still running: %v", c.name, engine, left)
			}
		}
	}
	w.NoStrays(t)
}

// TestIntegrationFuseKilled: when umrun is killed the command unmounts, writes back and ends,
// and nothing is left.
func TestIntegrationFuseKilled(t *testing.T) {
	viewtest.Need(t, "fuse-zip", "zip", "unzip")
	w := viewtest.New(t)
	openFUSE(t, w)
	ownMemory(t, w)
	for _, user := range []bool{false, true} {
		for _, engine := range []string{"ns", "trap"} {
			dir := mountTree(t, w, user)
			w.Host.MustRun(t, "sh", "-c", "cd "+dir+"/src && zip -qr ../x.zip a")
			if user {
				give(t, dir)
			}
			u := start(t, umrunAs(t, w, user, "-q", "-n", "none", "--fs-engine", engine, "-m", "fuse:fuse-zip -f -o uid=$(id -u),gid=$(id -g) "+dir+"/x.zip:"+dir+"/dst", "--",
				"sh", "-c", "echo new >"+dir+"/dst/n; echo ready; exec sleep 50"))
			awaitOutput(t, u, "ready\n")
			syscall.Kill(u.Process.Pid, syscall.SIGKILL)
			u.Wait()
			gone(t, w, 10*time.Second)
			if got := w.Host.MustRun(t, "unzip", "-p", dir+"/x.zip", "n"); got != "new\n" {
				t.Errorf("%s: the archive has %q", engine, got)
			}
			emptyMemory(t, w)
		}
	}
}

// TestIntegrationFusermount: where namespaces are refused, the trap engine has the command
// mount by fusermount3, and unmounts at the end, also when umrun was killed.
func TestIntegrationFusermount(t *testing.T) {
	viewtest.Need(t, "bindfs", "fusermount3")
	w := viewtest.New(t)
	openFUSE(t, w)
	ownMemory(t, w)
	dir := mountTree(t, w, true)
	const refuse = `echo 0 >/proc/sys/user/max_user_namespaces; exec setpriv --reuid 61234 --regid 61234 --clear-groups "$@"`
	view := func(args ...string) *viewtest.Cmd {
		umrun := w.UmrunFlags(t, append([]string{"-n", "none"}, args...)...)
		c := w.HostCmd(context.Background(), append([]string{"sh", "-ec", refuse, "sh", "env", "HOME=" + w.Home()}, umrun.Args...)...)
		c.Dir = dir
		all := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1 << 16}}
		c.SysProcAttr.Cloneflags, c.SysProcAttr.UidMappings, c.SysProcAttr.GidMappings = unix.CLONE_NEWUSER|unix.CLONE_NEWNS, all, all
		c.SysProcAttr.GidMappingsEnableSetgroups = true
		return c
	}
	bind := []string{"-m", "fuse:bindfs --no-allow-other src:" + dir + "/dst", "--"}
	r := view(append(bind, "sh", "-c", "cat dst/a; echo new >dst/n; grep -o umrun-fuse.*fuse /proc/self/mounts")...).Result()
	if r.Status != 0 || !regexp.MustCompile(`^source a\numrun-fuse-\d+/mnt fuse\n$`).MatchString(r.Stdout) {
		t.Errorf("%v", r)
	}
	if got := readFile(t, filepath.Join(dir, "src/n")); got != "new\n" {
		t.Errorf("src/n is %q", got)
	}
	if r := view(append([]string{"--fs-engine", "ns"}, bind[:2]...)...).Result(); r.Status == 0 {
		t.Errorf("without namespaces: %v", r)
	}
	if r := view(append([]string{"--dry-run"}, append(bind, "true")...)...).Result(); !strings.Contains(r.Stdout, `"fuse": "fusermount3"`) {
		t.Errorf("%v", r)
	}
	doctor := view()
	doctor.Args = append(doctor.Args[:slices.Index(doctor.Args, "-n")], "doctor")
	if r := doctor.Result(); !regexp.MustCompile(`fuse +FUSE file systems \(-m fuse:\) can be mounted by fusermount3, with --fs-engine trap`).MatchString(r.Stdout) {
		t.Errorf("%v", r)
	}
	u := start(t, view(append(bind, "sh", "-c", "cat dst/a; exec sleep 50")...))
	awaitOutput(t, u, "source a\n")
	for _, pid := range w.Host.Pids() {
		if name, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); name == viewtest.Binary(t) {
			syscall.Kill(pid, syscall.SIGKILL)
			break
		}
	}
	u.Wait()
	gone(t, w, 10*time.Second)
	emptyMemory(t, w)
}
