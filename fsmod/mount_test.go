// SPDX-License-Identifier: Apache-2.0

// Tests of mounts with real programs.

package fsmod_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"umrun/fsmod"
	"umrun/fsmod/mounttest"
	"umrun/intercept"
)

// mountedIn runs a program in a directory of a view with mounts and the tree of run, and
// returns what it printed.
func mountedIn(t *testing.T, dir string, mounts []fsmod.Mount, argv ...string) string {
	t.Helper()
	return mountedWith(t, mountedConfig{dir: dir, mounts: mounts}, argv...)
}

type mountedConfig struct {
	dir     string
	mounts  []fsmod.Mount
	inherit []int
	env     []string
	open    func(fsmod.Mount) (fsmod.FS, error) // nil: OpenBuiltin
}

func mountedWith(t *testing.T, mc mountedConfig, argv ...string) string {
	t.Helper()
	conf := fsmod.Config{Trees: map[string]fsmod.Tree{"/proc/net": tree{}}, Log: slog.New(slog.NewTextHandler(testLog{t}, nil))}
	open := mc.open
	if open == nil {
		open = fsmod.OpenBuiltin
	}
	for _, mt := range mc.mounts {
		fs, err := open(mt)
		if err != nil {
			t.Fatal(err)
		}
		conf.Mounts = append(conf.Mounts, fsmod.Mounted{Mount: mt, FS: fs})
	}
	env := append(append(os.Environ(), "LC_ALL=C"), mc.env...)
	return supervise(t, conf, intercept.Config{Argv: argv, Env: env, Dir: mc.dir, Inherited: mc.inherit})
}

// testLog writes log lines to a test's log.
type testLog struct{ t *testing.T }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// A lab is a directory with a source, a place to mount it, and something that is covered:
//
//	src/file    "source"          at/file     "covered"
//	src/sub/x   "x"               at/hidden   "hidden"
//	src/out  -> ../other          link     -> at/sub
//	src/abs  -> LAB/other         other       "other"
//	src/up   -> ../at/file
type lab struct{ dir, src, at string }

func newLab(t *testing.T) lab {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	l := lab{dir, dir + "/src", dir + "/at"}
	for _, d := range []string{"src/sub", "at/sub"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"src/file": "source\n", "src/sub/x": "x\n", "at/file": "covered\n", "at/hidden": "hidden\n", "at/sub/covered": "covered\n", "other": "other\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{"src/out": "../other", "src/abs": dir + "/other", "src/up": "../at/file", "link": "at/sub", "absat": dir + "/at"} {
		if err := os.Symlink(text, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func (l lab) bind() []fsmod.Mount {
	return []fsmod.Mount{{Kind: fsmod.Bind, Source: l.src, Target: l.at}}
}

func TestBindLook(t *testing.T) {
	tests := []struct{ name, script, want string }{
		{"file", "cat at/file", "source\n"},
		{"list", "ls at at/sub", "at:\nabs\nfile\nout\nsub\nup\n\nat/sub:\nx\n"},
		{"link into it", "cat link/x absat/file absat/sub/x", "x\nsource\nx\n"},
		{"links out of it", "cat at/out at/abs at/up", "other\nother\nsource\n"},
		{"dots", "cat at/../at/sub/../file at/sub/../../other ./at/./file", "source\nother\nsource\n"},
		{"stat", "stat -c %F at/file at/sub at/out at/gone", "regular file\ndirectory\nsymbolic link\nstat: cannot statx 'at/gone': No such file or directory\n"},
		{"access", "test -r at/file && test -d at/sub/ && test ! -e at/hidden && echo ok", "ok\n"},
		{"readlink", "readlink at/out", "../other\n"},
		{"slash", "cat at/file/; cat at/sub/x/y", "cat: at/file/: Not a directory\ncat: at/sub/x/y: Not a directory\n"},
		{"generated", "cat /proc/net/dev", "the view's\n"},
		{"proc self", "head -c3 /proc/self/comm; head -c3 /proc/thread-self/comm", "heahea"},
		{"fd", "exec 5<at/file; cat /proc/self/fd/5 /dev/fd/5; readlink /proc/self/fd/5", "source\nsource\nLAB/at/file\n"},
		{"covered fd", "cat <at/file; cat /dev/stdin <at/sub/x", "source\nx\n"},
		{"loop", "ln -s loop loop; cat loop; rm loop", "cat: loop: Too many levels of symbolic links\n"},
	}
	l := newLab(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := strings.ReplaceAll(tt.want, "LAB", l.dir)
			if got := mountedIn(t, l.dir, l.bind(), "sh", "-c", tt.script); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func TestBindChange(t *testing.T) {
	const script = `
set -e
echo new >at/new; cat at/new
mkdir at/d at/d/e at/d/e/f; rmdir at/d/e/f; mv at/d at/d2; ls at/d2
ln -s file at/l; ln at/new at/hard; stat -c %h at/new
chmod 600 at/new; touch -d @1000 at/new; stat -c '%a %Y' at/new
truncate -s 2 at/new; cat at/new; echo
mv at/new other2 2>&1; ls other2; rm other2 at/hard
ln at/file lnk 2>&1 || true
rmdir at 2>&1 || true
mv at at2 2>&1 || true
mkfifo at/p; (echo through >at/p &) ; cat at/p; rm at/p
rm -r at/d2 at/l; ls at
cp -a at/sub at/sub2; rm -r at/sub2
`
	l := newLab(t)
	want := strings.Join([]string{
		"new", "e", "2", "600 1000", "ne", "other2",
		"ln: failed to create hard link 'lnk' => 'at/file': Invalid cross-device link",
		"rmdir: failed to remove 'at': Device or resource busy",
		"mv: cannot move 'at' to 'at2': Device or resource busy",
		"through", "abs", "file", "out", "sub", "up", ""}, "\n")
	if got := mountedIn(t, l.dir, l.bind(), "sh", "-c", script); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if b, err := os.ReadFile(l.at + "/file"); string(b) != "covered\n" {
		t.Errorf("the covered file: %q, %v", b, err)
	}
}

func TestBindCwd(t *testing.T) {
	tests := []struct{ name, script, want string }{
		{"cd", "cd at && pwd -P && cat file && cd sub && cat x ../file && cd ../.. && cat other && pwd -P", "LAB/at\nsource\nx\nsource\nother\nLAB\n"},
		{"link", "cd link && pwd -P && ls && cd .. && pwd -P", "LAB/at/sub\nx\nLAB\n"},
		{"fork", "cd at/sub && (cd .. && cat file) && cat x && sh -c 'cat x; cd ..; ls'", "source\nx\nx\nabs\nfile\nout\nsub\nup\n"},
		{"proc", "cd at/sub && readlink /proc/self/cwd && ls /proc/self/cwd /proc/self/cwd/.. && cat /proc/self/root/LAB/at/file", "LAB/at/sub\n/proc/self/cwd:\nx\n\n/proc/self/cwd/..:\nabs\nfile\nout\nsub\nup\nsource\n"},
		{"gone", "mkdir at/d && cd at/d && rmdir ../d && cat x; ls -d .", "cat: x: No such file or directory\n.\n"},
		{"mkdir -p", "mkdir -p at/a/b/c && rmdir -p at/a/b/c 2>&1", "rmdir: failed to remove directory 'at': Device or resource busy\n"},
		{"errors", "cd at/file; cd at/gone", "sh: 1: cd: can't cd to at/file\nsh: 1: cd: can't cd to at/gone\n"},
	}
	l := newLab(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := strings.ReplaceAll(tt.want, "LAB", l.dir)
			if got := mountedIn(t, l.dir, l.bind(), "sh", "-c", strings.ReplaceAll(tt.script, "LAB", l.dir)); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func TestBindExec(t *testing.T) {
	l := newLab(t)
	sh, err := os.ReadFile("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"prog":   string(sh),
		"script": "#! " + l.at + "/prog -e\necho \"$0 $1 $#\"; readlink /proc/$$/exe\n",
		"nested": "#!" + l.at + "/script two words\n",
		"noexec": "",
	} {
		if err := os.WriteFile(l.src+"/"+name, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(l.src+"/file", 0o644); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, script, want string }{
		{"program", "at/prog -c 'echo $0 $1; readlink /proc/$$/exe' a b", "a b\nLAB/at/prog\n"},
		{"script", "at/script a b", "at/script a 2\nLAB/at/prog\n"},
		{"nested", "cd at; ./nested a", "LAB/at/script two words 3\nLAB/at/prog\n"},
		{"by PATH", "PATH=LAB/at:$PATH; script", "LAB/at/script  0\nLAB/at/prog\n"},
		{"errors", "at/file; at/gone; at/sub; at/hidden", "sh: 1: at/file: Permission denied\nsh: 1: at/gone: not found\nsh: 1: at/sub: Permission denied\nsh: 1: at/hidden: not found\n"},
		{"host's", "/bin/echo yes; env true && echo ok", "yes\nok\n"},
		{"signals", "trap 'echo usr1' USR1; kill -USR1 $$; sh -c 'kill -TERM $$'; echo $?", "usr1\n143\n"},
		{"comm", "at/prog -c 'cat /proc/$$/comm'", "prog\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := strings.ReplaceAll(tt.want, "LAB", l.dir)
			got := mountedIn(t, l.dir, l.bind(), "sh", "-c", strings.ReplaceAll(tt.script, "LAB", l.dir))
			if got = strings.ReplaceAll(got, "Terminated\n", ""); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// TestCredentials has root's program become another user, who has that user's rights and
// umask.
func TestCredentials(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become somebody else")
	}
	l := newLab(t)
	mounttest.Public(t, l.dir)
	if err := os.Chmod(l.src, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(l.src+"/secret", []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := mountedIn(t, l.dir, l.bind(), "setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "sh", "-c",
		"cat at/secret; cat at/file; umask 077; echo mine >at/mine; stat -c '%u %a' at/mine; chmod 777 at/file")
	want := "cat: at/secret: Permission denied\nsource\n65534 600\nchmod: changing permissions of 'at/file': Operation not permitted\n"
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestCores has programs die that want their core: it would be written past the mount.
func TestCores(t *testing.T) {
	if b, err := os.ReadFile("/proc/sys/kernel/core_pattern"); err != nil || b[0] == '|' || b[0] == '/' {
		t.Skipf("cores are not written to the working directory: %s, %v", b, err)
	}
	const script = `cd at; ulimit -c; ulimit -S -c 0 && echo lowered; ulimit -c unlimited || echo kept; sh -c 'kill -QUIT $$'; ls`
	l := newLab(t)
	mounts := l.bind()
	mounts[0].ReadOnly = true
	got := mountedIn(t, l.dir, mounts, "bash", "-c", script)
	for _, line := range []string{"0\nlowered\n", "kept\n", "Quit"} {
		if !strings.Contains(got, line) || strings.Contains(got, "dumped") {
			t.Errorf("no %q in %q", line, got)
		}
	}
	if cores, err := filepath.Glob(l.dir + "/*/core*"); err != nil || len(cores) > 0 {
		t.Errorf("there are %v, %v", cores, err)
	}
}

// TestAbsent mounts things where the host has nothing.
func TestAbsent(t *testing.T) {
	l := newLab(t)
	mounts := []fsmod.Mount{
		{Kind: fsmod.Bind, Source: l.src, Target: l.dir + "/new/way/place"},
		{Kind: fsmod.Tmpfs, Target: l.dir + "/new/way/memory"},
		{Kind: fsmod.Bind, Source: l.src + "/file", Target: l.at + "/single"},
		{Kind: fsmod.Bind, Source: l.src, Target: l.dir + "/link/below"}, // at/sub
	}
	const script = `ls . new new/way at link; cat new/way/place/file at/single link/below/file; find . -name x
touch here && ls; touch new/no; mkdir new; rmdir new at/single
ls -i at | grep single | cut -d' ' -f1 | grep -c "^$(stat -c %i at/single)$"; ls -U | sort -u | wc -l; test -d new/way && cd new/way && pwd -P && ls ..`
	want := `.:
absat
at
link
new
other
src

at:
file
hidden
single
sub

link:
below
covered

new:
way

new/way:
memory
place
source
source
source
./new/way/place/sub/x
./at/sub/below/sub/x
./src/sub/x
absat
at
here
link
new
other
src
touch: cannot touch 'new/no': Read-only file system
mkdir: cannot create directory 'new': File exists
rmdir: failed to remove 'new': Device or resource busy
rmdir: failed to remove 'at/single': Not a directory
1
7
LAB/new/way
way
`
	sorted := func(s string) string {
		lines := strings.Split(s, "\n")
		slices.Sort(lines)
		return strings.Join(lines, "\n")
	} // find has no order
	if got, want := sorted(mountedIn(t, l.dir, mounts, "sh", "-c", script)), sorted(strings.ReplaceAll(want, "LAB", l.dir)); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if _, err := os.Lstat(l.dir + "/new"); err == nil {
		t.Error("there is a directory on the host")
	}
}

// ownFilter has SIGSYS for some calls (SECCOMP_RET_TRAP), and makes others.
const ownFilter = `
import ctypes, os, signal, struct, sys, errno
libc = ctypes.CDLL(None, use_errno=True)
got = []
signal.signal(signal.SIGSYS, lambda *a: got.append(1))
F = lambda code, jt, jf, k: struct.pack("HBBI", code, jt, jf, k)
before = len(os.listdir("/proc/self/fd"))
nrs = [int(a) for a in sys.argv[2].split(",")]
prog = F(0x20, 0, 0, 0)
for n in nrs: prog += F(0x15, 0, 1, n) + F(0x06, 0, 0, 0x00030000)
prog += F(0x06, 0, 0, 0x7fff0000)
buf = ctypes.create_string_buffer(prog)
fprog = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(prog)//8, ctypes.addressof(buf)))
assert libc.prctl(38,1,0,0,0) == 0
assert libc.prctl(22, 2, fprog, 0, 0) == 0
def tell(name, f):
    try: r = f()
    except OSError as e: r = errno.errorcode.get(e.errno, e.errno)
    print(name, r, len(got), flush=True)
tell("chdir", lambda: os.chdir(sys.argv[1]))
tell("cwd", lambda: os.getcwd())
tell("again", lambda: os.chdir(sys.argv[1]))
tell("fchdir", lambda: libc.syscall(81, 0) and None)
tell("O_PATH", lambda: os.open(sys.argv[1], os.O_PATH) > 0)
tell("descriptors", lambda: len(os.listdir("/proc/self/fd")) - before)
`

// TestOwnFilter has a filter of the program's own stop the calls that it is made to make: its
// handler does not hear of them, and is there for its own.
func TestOwnFilter(t *testing.T) {
	l := newLab(t)
	for _, tc := range []struct{ calls, want string }{
		{fmt.Sprint(unix.SYS_FCHDIR), "chdir EPERM 0\ncwd LAB 0\nagain EPERM 0\nfchdir None 1\nO_PATH True 1\ndescriptors 1 1\n"},
		{fmt.Sprint(unix.SYS_MMAP, ",", unix.SYS_FCHDIR), "chdir EPERM 0\ncwd LAB 0\nagain EPERM 0\nfchdir None 1\nO_PATH EPERM 1\ndescriptors 0 1\n"},
		{fmt.Sprint(unix.SYS_DUP3), "chdir None 0\ncwd LAB/at 0\nagain None 0\nfchdir None 0\nO_PATH EPERM 0\ndescriptors 0 0\n"},
	} {
		got := mountedIn(t, l.dir, l.bind(), "/usr/bin/python3", "-c", ownFilter, l.at, strings.ReplaceAll(tc.calls, " ", ""))
		if want := strings.ReplaceAll(tc.want, "LAB", l.dir); got != want {
			t.Errorf("SIGSYS for %s: got\n%s\nwant\n%s", tc.calls, got, want)
		}
	}
}

// TestVforkPages starts scripts as posix_spawn(3) does, from a program whose memory they
// have for a moment, which must not grow by each.
func TestVforkPages(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "script"), []byte("#!/bin/sh\necho \"$1\" >/dev/null\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	const program = `
import os, sys
def spawn(n, arg):
    for i in range(n):
        pid = os.posix_spawn(sys.argv[1], ["script", arg], os.environ)
        if os.waitpid(pid, 0)[1]: sys.exit("a script failed")
def pages(): return int(open("/proc/self/statm").read().split()[0])
spawn(3, "x")
before = pages()
spawn(30, "x")
print("few" if pages() - before < 10 else "one for each")
`
	mounts := []fsmod.Mount{{Kind: fsmod.Bind, Source: dir, Target: t.TempDir()}}
	if got := mountedIn(t, dir, mounts, "/usr/bin/python3", "-c", program, mounts[0].Target+"/script"); got != "few\n" {
		t.Errorf("memory grew by pages: %q", got)
	}
}
