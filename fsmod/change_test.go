// SPDX-License-Identifier: Apache-2.0

// Tests of mounts that come and go while a program runs: what the kernel's do, by the same
// script, is what ours do.

package fsmod_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"umrun/fsmod"
	"umrun/intercept"
)

// A changing script says domount SPEC, and doumount PATH or doumount -l PATH. These are the
// kernel's, and those that ask the test.
const (
	kernelChanges = `
domount() { case $1 in
	tmpfs:*) mount -t tmpfs -o mode=755 none "${1#tmpfs:}" ;;
	bind:*:ro) s=${1#bind:}; s=${s%:ro}; mount --bind "${s%%:*}" "${s#*:}" && mount -o remount,bind,ro "${s#*:}" ;;
	bind:*) s=${1#bind:}; mount --bind "${s%%:*}" "${s#*:}" ;;
	esac || echo failed; }
doumount() { umount "$@" 2>/dev/null || echo failed; }
`
	ourChanges = `
domount() { echo "@mount $1"; read r; test "$r" = ok || echo failed; }
doumount() { echo "@umount $*"; read r; test "$r" = ok || echo failed; }
`
)

var changes = []struct{ name, script, want string }{
	{"a mount comes and goes", `
		cat at/file; domount bind:DIR/src:DIR/at; cat at/file at/sub/x; cat at/hidden
		doumount DIR/at; cat at/file; doumount DIR/at; doumount DIR`,
		"covered\nsource\nx\ncat: at/hidden: No such file or directory\ncovered\nfailed\nfailed\n"},
	{"one over another", `
		domount bind:DIR/src:DIR/at; domount tmpfs:DIR/at; ls at; echo new >at/n; cat at/n; doumount DIR/at; cat at/file; doumount DIR/at; cat at/file`,
		"new\nsource\ncovered\n"},
	{"one over what has one in it", `
		domount tmpfs:DIR/at/sub; echo deep >at/sub/f; domount bind:DIR/src:DIR/at; ls at/sub; cat at/sub/f; doumount DIR/at/sub
		doumount DIR/at; cat at/sub/f; doumount DIR/at/sub; ls at/sub`,
		"x\ncat: at/sub/f: No such file or directory\nfailed\ndeep\ncovered\n"},
	{"one in another", `
		domount tmpfs:DIR/at; mkdir at/in; domount bind:DIR/src:DIR/at/in; cat at/in/file; doumount DIR/at; doumount -l DIR/at; cat at/file; ls at/in`,
		"source\nfailed\ncovered\nls: cannot access 'at/in': No such file or directory\n"},
	{"busy by a descriptor", `
		domount tmpfs:DIR/at; echo text >at/f; exec 5<at/f; doumount DIR/at; exec 5<&-; doumount DIR/at; ls at/f`,
		"failed\nls: cannot access 'at/f': No such file or directory\n"},
	{"busy by a descriptor of a bind", `
		domount bind:DIR/src:DIR/at; exec 5<at/file 6<src/file; doumount DIR/at; exec 5<&-; doumount DIR/at; exec 6<&-; cat at/file`,
		"failed\ncovered\n"},
	{"busy by a working directory", `
		domount bind:DIR/src:DIR/at; cd at/sub; doumount DIR/at; cd DIR/src/sub; doumount DIR/at; cat DIR/at/file`,
		"failed\ncovered\n"},
	{"busy by another's working directory", `
		domount tmpfs:DIR/at; (cd at; exec sleep 60) & sleep 0.3; doumount DIR/at; kill $!; wait $! 2>/dev/null; doumount DIR/at; cat at/file`,
		"failed\ncovered\n"},
	{"busy by a program", `
		domount tmpfs:DIR/at; cp /bin/sleep at/; at/sleep 60 & sleep 0.3; doumount DIR/at; kill $!; wait $! 2>/dev/null; doumount DIR/at; cat at/file`,
		"failed\ncovered\n"},
	{"lazily", `
		domount tmpfs:DIR/at; mkdir at/s; echo in >at/s/f; echo top >at/f; cd at/s; exec 5<f; doumount -l DIR/at
		cat f ../f ../../f ../../../etc/../f ../s/f; cat <&5; cat DIR/at/file; ls DIR/at/s
		readlink /proc/self/cwd; readlink /proc/self/fd/5; cat /proc/self/cwd/f /proc/$$/cwd/../f
		ls .. ../.. ../../..; echo new >../new; cat ../new; mkdir d; mv d ../e; rm ../new; ls ..; ln -s /etc/hostname l; cmp l /etc/hostname; ln -s ../f m; cat m
		cd -P ..; ls; readlink /proc/self/cwd; cd -P ..; ls f; cd DIR; cat at/file`,
		`in
top
top
cat: ../../../etc/../f: No such file or directory
in
in
covered
ls: cannot access 'DIR/at/s': No such file or directory
/s
/s/f
in
top
..:
f
s

../..:
f
s

../../..:
f
s
new
e
f
s
top
sh: 1: cd: getcwd() failed: No such file or directory
e
f
s
/
sh: 1: cd: getcwd() failed: No such file or directory
f
covered
`},
	{"a bind lazily", `
		domount bind:DIR/src:DIR/at; cd at/sub; doumount -l DIR/at; cat x ../file ../../file; cat ../../other ../at/file; ls ../..; readlink /proc/self/cwd
		cat ../out; echo more >x; cat DIR/src/sub/x; cat DIR/at/file; cd DIR/src/sub; readlink /proc/self/cwd; cat ../../other`,
		`x
source
source
cat: ../../other: No such file or directory
cat: ../at/file: No such file or directory
abs
file
out
sub
up
/sub
cat: ../out: No such file or directory
more
covered
DIR/src/sub
other
`},
	{"read-only", `
		domount bind:DIR/src:DIR/at:ro; exec 5<at; cd at; doumount -l DIR/at; echo x >file; mkdir d; chmod 600 file; touch -c file; rm file; cat file; echo ok >DIR/src/n; cat n`,
		`sh: 1: cannot create file: Read-only file system
mkdir: cannot create directory 'd': Read-only file system
chmod: changing permissions of 'file': Read-only file system
touch: setting times of 'file': Read-only file system
rm: cannot remove 'file': Read-only file system
source
ok
`},
	{"many in turn", `
		i=0; while test $i -lt 150; do domount tmpfs:DIR/at; echo $i >at/n; doumount DIR/at; i=$((i+1)); done; ls at/n; cat at/file`,
		"ls: cannot access 'at/n': No such file or directory\ncovered\n"},
	{"what was taken away and is open", `
		i=0; while test $i -lt 3; do domount tmpfs:DIR/at; echo $i >at/n; (cd at; exec sleep 60) & sleep 0.2; doumount -l DIR/at; domount bind:DIR/src:DIR/at
		cat /proc/$!/cwd/n; cat at/file; doumount DIR/at; kill $!; i=$((i+1)); done`,
		"0\nsource\n1\nsource\n2\nsource\n"},
}

// TestChange runs each script with the kernel's mounts and with ours.
func TestChange(t *testing.T) {
	for _, tc := range changes {
		t.Run(tc.name, func(t *testing.T) {
			script := func(dir string) string {
				// The line of a shell's message is none of what is compared.
				return "cd " + dir + "\n" + strings.ReplaceAll(tc.script, "DIR", dir)
			}
			normal := func(got, dir string) string {
				var b strings.Builder
				for line := range strings.Lines(strings.ReplaceAll(got, dir, "DIR")) {
					if rest, ok := strings.CutPrefix(strings.TrimPrefix(line, "/bin/"), "sh: "); ok {
						if _, after, ok := strings.Cut(rest, ": "); ok {
							line = "sh: 1: " + after
						}
					}
					b.WriteString(line)
				}
				return b.String()
			}
			t.Run("kernel", func(t *testing.T) {
				if os.Geteuid() != 0 {
					t.Skip("mount(2) takes root")
				}
				dir := newLab(t).dir
				ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
				defer cancel()
				c := exec.CommandContext(ctx, "unshare", "-m", "--propagation", "private", "sh", "-c", kernelChanges+script(dir))
				c.Env = append(os.Environ(), "LC_ALL=C")
				out, _ := c.CombinedOutput() // its status is that of the last command
				if got := normal(string(out), dir); got != tc.want {
					t.Errorf("got\n%s\nwant\n%s", got, tc.want)
				}
			})
			t.Run("umrun", func(t *testing.T) {
				dir := newLab(t).dir
				if got := normal(changed(t, "/bin/sh", "-c", ourChanges+script(dir)), dir); got != tc.want {
					t.Errorf("got\n%s\nwant\n%s", got, tc.want)
				}
			})
		})
	}
}

// TestChangeWhileUsed takes a mount away and puts it back while threads look for files in it,
// by its path, from a directory in it, and by a descriptor: what they find is one of the
// two that they may, and what is hidden stays hidden.
func TestChangeWhileUsed(t *testing.T) {
	dir := newLab(t).dir
	got := changed(t, "/proc/self/exe", dir)
	if !strings.HasPrefix(got, "ok ") {
		t.Errorf("got %q", got)
	}
	t.Log(strings.TrimSpace(got))
}

// moving is the target of TestChangeWhileUsed.
func moving(dir string) {
	answers := bufio.NewReader(os.Stdin)
	do := func(what string) {
		fmt.Println("@" + what)
		if answer, _ := answers.ReadString('\n'); answer != "ok\n" {
			fmt.Printf("%s: %s", what, answer)
		}
	}
	do("mount bind:" + dir + "/src:" + dir + "/at")
	do("mount hide:" + dir + "/other")
	if err := os.Chdir(dir + "/at/sub"); err != nil {
		fmt.Println(err)
	}
	fd, err := unix.Open(dir+"/at", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		fmt.Println(err)
	}
	var stop atomic.Bool
	var wg sync.WaitGroup
	var found, wrong, absent [5]atomic.Int64
	look := func(i, dir int, path string, may ...string) {
		wg.Go(func() {
			for !stop.Load() {
				var b [32]byte
				fd, err := unix.Openat(dir, path, unix.O_RDONLY, 0)
				if err != nil {
					absent[i].Add(1)
					continue
				}
				n, _ := unix.Read(fd, b[:])
				unix.Close(fd)
				found[i].Add(1)
				if !slices.Contains(may, string(b[:n])) {
					wrong[i].Add(1)
				}
			}
		})
	}
	look(0, unix.AT_FDCWD, dir+"/at/file", "source\n", "covered\n")
	look(1, unix.AT_FDCWD, "../file", "source\n")
	look(2, fd, "sub/../sub/x", "x\n")
	look(3, unix.AT_FDCWD, dir+"/other", "")
	look(4, fd, "../at/file", "source\n", "covered\n") // by the path, once it is not the mount's
	for range 40 {
		do("umount -l " + dir + "/at")
		do("mount bind:" + dir + "/src:" + dir + "/at")
		time.Sleep(10 * time.Millisecond)
	}
	stop.Store(true)
	wg.Wait()
	verdict := "ok"
	for i := range found {
		if wrong[i].Load() > 0 || i < 3 && found[i].Load() < 10 || i == 1 && absent[i].Load() > 0 || i == 2 && absent[i].Load() > 0 {
			verdict = "bad"
		}
	}
	fmt.Print(verdict)
	for i := range found {
		fmt.Printf(" %d/%d/%d", found[i].Load(), absent[i].Load(), wrong[i].Load())
	}
	fmt.Println()
}

// changed runs a program that has the test change its mounts, and returns what else it
// printed.
func changed(t *testing.T, argv ...string) string {
	t.Helper()
	var running atomic.Pointer[intercept.Supervisor]
	log := slog.New(slog.NewTextHandler(testLog{t}, nil))
	m, err := fsmod.New(fsmod.Config{Mountable: true, Log: log, Tasks: func() []int {
		if s := running.Load(); s != nil {
			return s.Processes()
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	in, answers, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer answers.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	exe := argv[0]
	if exe == "/proc/self/exe" { // this binary, as a target
		if exe, err = os.Executable(); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	s, err := intercept.Start(ctx, intercept.Config{Path: exe, Argv: argv, Env: append(os.Environ(), "LC_ALL=C", targetEnv+"=moving"),
		Rules: m.Rules(), Stdin: in, Stdout: w, Stderr: w, Log: log})
	w.Close()
	in.Close()
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skipf("programs cannot be supervised here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	running.Store(s)
	stop := context.AfterFunc(ctx, func() { _ = s.Signal(9) })
	defer stop()
	var out strings.Builder
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		request, asked := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "@")
		if !asked {
			out.WriteString(line)
		} else if err := ask(m, request); err != nil {
			t.Logf("%s: %v", request, err)
			fmt.Fprintln(answers, "failed")
		} else {
			fmt.Fprintln(answers, "ok")
		}
		if err == io.EOF {
			break
		}
	}
	_, err = s.Wait()
	if err := errors.Join(err, s.Close(), m.Close(), m.Close()); err != nil {
		t.Error(err)
	}
	if left := places(t); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	return out.String()
}

// ask does what a script asks for.
func ask(m *fsmod.Module, request string) error {
	what, arg, _ := strings.Cut(request, " ")
	if what == "umount" {
		path, lazy := strings.CutPrefix(arg, "-l ")
		return m.Unmount(path, lazy)
	}
	mt, err := fsmod.ParseMount(arg, "/")
	if err != nil {
		return err
	}
	fs, err := fsmod.OpenBuiltin(mt)
	if err != nil {
		return err
	}
	if err := m.Mount(fsmod.Mounted{Mount: mt, FS: fs}); err != nil {
		return errors.Join(err, fs.Close())
	}
	return nil
}
