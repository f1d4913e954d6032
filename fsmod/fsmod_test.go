// SPDX-License-Identifier: Apache-2.0

// Tests with real programs: what they read, by every way that leads to a file.

package fsmod_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"umrun/fsmod"
	"umrun/intercept"
)

func TestMain(m *testing.M) {
	intercept.ChildMain()
	targetMain()
	goleak.VerifyTestMain(m)
}

// A tree with a file, a directory with a file, and one of the host's.
type tree struct{}

func (tree) Has(name string) bool {
	return map[string]bool{"dev": true, "unix": true, "gone": true, "sub": true, "inner": true}[name]
}

func (tree) Open(path string) (fsmod.Node, error) {
	switch path {
	case "":
		return fsmod.Node{Dir: true, Entries: []fsmod.Entry{{Name: "dev"}, {Name: "sub", Dir: true}}}, nil
	case "dev":
		return fsmod.Node{Content: []byte("the view's\n")}, nil
	case "unix":
		return fsmod.Node{}, fsmod.ErrHost
	case "sub":
		return fsmod.Node{Dir: true, Entries: []fsmod.Entry{{Name: "inner"}}}, nil
	case "sub/inner":
		return fsmod.Node{Content: []byte("inside\n")}, nil
	}
	if strings.HasPrefix(path, "dev/") {
		return fsmod.Node{}, unix.ENOTDIR
	}
	return fsmod.Node{}, unix.ENOENT
}

// run runs a program under the module and returns what it printed.
func run(t *testing.T, argv ...string) string {
	t.Helper()
	return runWith(t, fsmod.Config{Trees: map[string]fsmod.Tree{"/proc/net": tree{}, "/sys/class/net": tree{}}}, argv...)
}

// runWith runs a program under a module and returns what it printed.
func runWith(t *testing.T, conf fsmod.Config, argv ...string) string {
	t.Helper()
	conf.Log = slog.New(slog.DiscardHandler)
	return supervise(t, conf, intercept.Config{Argv: argv})
}

// supervise runs a program under a module and returns what it printed.
func supervise(t *testing.T, conf fsmod.Config, ic intercept.Config) string {
	t.Helper()
	m, err := fsmod.New(conf)
	if err != nil {
		t.Fatal(err)
	}
	if ic.Path, err = exec.LookPath(ic.Argv[0]); err != nil {
		t.Skip(err)
	}
	if ic.Path == "/proc/self/exe" { // this binary, as a target
		if ic.Path, err = os.Executable(); err != nil {
			t.Fatal(err)
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	ic.Rules, ic.Stdout, ic.Stderr, ic.Log = m.Rules(), w, w, conf.Log
	s, err := intercept.Start(ctx, ic)
	w.Close()
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skipf("programs cannot be supervised here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Signal(9) })
	defer stop()
	out, err := io.ReadAll(r)
	if err != nil {
		t.Error(err)
	}
	if _, err := s.Wait(); err != nil {
		t.Error(err)
	}
	made := places(t)
	for _, f := range []func() error{s.Close, m.Close, m.Close} {
		if err := f(); err != nil {
			t.Error(err)
		}
	}
	for _, dir := range made {
		if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left behind: %v", dir, err)
		}
	}
	return string(out)
}

// places are the private places of this process, which holds a lock on each.
func places(t *testing.T) (dirs []string) {
	t.Helper()
	fds, err := filepath.Glob("/proc/self/fd/*")
	if err != nil || len(fds) == 0 {
		t.Fatal("no descriptors", err)
	}
	for _, fd := range fds {
		if dir, err := os.Readlink(fd); err == nil && strings.HasPrefix(filepath.Base(dir), "umrun-files-") {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

func TestShell(t *testing.T) {
	tests := []struct{ name, script, want string }{
		{"absolute", "cat /proc/net/dev", "the view's\n"},
		{"self", "cat /proc/self/net/dev /proc/thread-self/net/dev /proc/$$/net/dev /proc/$$/task/$$/net/dev", strings.Repeat("the view's\n", 4)},
		{"odd spelling", "cat /proc//net/./dev /proc/self/../net/dev", strings.Repeat("the view's\n", 2)},
		{"cwd", "cd /proc/self/net && cat dev ./dev ../net/dev", strings.Repeat("the view's\n", 3)},
		{"directory", "ls /proc/net/", "dev\nsub\n"},
		{"below", "cat /proc/net/sub/inner", "inside\n"},
		{"sysfs", "cat /sys/class/net/dev /sys/devices/virtual/net/dev", strings.Repeat("the view's\n", 2)},
		{"two opens, two positions", "exec 3</proc/net/dev 4</proc/net/dev; head -c3 <&3; head -c3 <&4", "thethe"},
		{"not there", "cat /proc/net/gone", "cat: /proc/net/gone: No such file or directory\n"},
		{"no directory", "cat /proc/net/dev/dev", "cat: /proc/net/dev/dev: Not a directory\n"},
		{"others", "dir=$(mktemp -d); echo mine >$dir/dev; cat $dir/dev; cd $dir; cat dev; rm -r $dir", "mine\nmine\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := run(t, "sh", "-c", tt.script); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	t.Run("the host's", func(t *testing.T) {
		if got := run(t, "sh", "-c", "head -n1 /proc/net/unix"); !strings.HasPrefix(got, "Num ") {
			t.Errorf("got %q", got)
		}
	})
}

// TestCalls makes the calls themselves, with the flags that decide.
func TestCalls(t *testing.T) {
	const script = `
import os, errno, mmap, fcntl, ctypes, stat
def name(f):
    try: return f()
    except OSError as e: return errno.errorcode[e.errno]
p = "/proc/net/dev"
fd = os.open(p, os.O_RDONLY)
print(os.read(fd, 100), fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE, fcntl.fcntl(fd, fcntl.F_GETFD), oct(os.fstat(fd).st_mode & 0o777))
print(name(lambda: os.write(fd, b"x")), mmap.mmap(fd, 0, prot=mmap.PROT_READ)[:3])
print(name(lambda: mmap.mmap(fd, 0, prot=mmap.PROT_READ|mmap.PROT_WRITE)))
print(name(lambda: os.ftruncate(fd, 0)))
print(name(lambda: os.open(p, os.O_RDWR)))
print(name(lambda: os.open(p, os.O_RDONLY|os.O_CREAT|os.O_EXCL)))
print(name(lambda: os.open(p, os.O_RDONLY|os.O_DIRECTORY)))
print(name(lambda: os.open("/proc/net/gone", os.O_RDONLY|os.O_CREAT)))
o = os.open(p, os.O_PATH)
print(open("/proc/self/fd/%d" % o).read().strip())
d = os.open("/proc/net", os.O_RDONLY|os.O_DIRECTORY)
print(sorted(os.listdir(d)), os.open("dev", os.O_RDONLY, dir_fd=d) > 0, os.read(os.open("sub/inner", os.O_RDONLY, dir_fd=d), 100))
print(os.read(os.open("../dev", os.O_RDONLY, dir_fd=os.open("sub", os.O_RDONLY, dir_fd=d)), 100))
how = (ctypes.c_uint64 * 3)(os.O_RDONLY, 0, 0)
libc = ctypes.CDLL(None, use_errno=True)
n = libc.syscall(437, -100, p.encode(), how, 24)
print(os.read(n, 100))
`
	want := strings.Join([]string{
		`b"the view's\n" 0 1 0o444`,
		`EBADF b'the'`,
		`EACCES`,
		`EINVAL`,
		`EACCES`,
		`EEXIST`,
		`ENOTDIR`,
		`EACCES`,
		`the view's`,
		`['dev', 'sub'] True b'inside\n'`,
		`b"the view's\n"`,
		`b"the view's\n"`,
		``,
	}, "\n")
	if got := run(t, "/usr/bin/python3", "-c", script); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
