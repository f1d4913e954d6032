// SPDX-License-Identifier: Apache-2.0

// Attempts to get at what a mount covers.

package fsmod_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"umrun/fsmod"
)

// targetEnv tells the test binary that it is a target, and which one.
const targetEnv = "FSMOD_TEST_TARGET"

// targetMain runs a target and does not return from it.
func targetMain() {
	f, ok := map[string]func(dir string){"hammer": hammer, "lasting": lasting, "moving": moving}[os.Getenv(targetEnv)]
	if !ok {
		return
	}
	f(os.Args[1])
	os.Exit(0)
}

// secretLab is a directory with something to cover, and ways that lead there:
//
//	deep/secret/f  "hidden"     open/f "open"     ln -> deep/secret
//	deep/secret/l  -> hidden
func secretLab(t *testing.T) (dir string, mounts []fsmod.Mount) {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"deep/secret/f": "hidden\n", "open/f": "open\n", "other/f": "other\n", "alias/x": ""} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{"ln": "deep/secret", "deep/secret/l": "hidden"} {
		if err := os.Symlink(text, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir, []fsmod.Mount{
		{Kind: fsmod.Hide, Target: dir + "/deep/secret"},
		{Kind: fsmod.Bind, Source: dir + "/open", Target: dir + "/alias"},
	}
}

// TestEscapes tries each way once.
func TestEscapes(t *testing.T) {
	dir, mounts := secretLab(t)
	// Descriptors of the covered directory, one inherited, and one of O_PATH that lies in a
	// socket, as such are not inherited.
	covered, err := unix.Open(dir+"/deep/secret", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(covered)
	path, err := unix.Open(dir+"/deep/secret", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(path)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	if err := unix.Sendmsg(pair[0], []byte{0}, unix.UnixRights(path), nil, 0); err != nil {
		t.Fatal(err)
	}
	const script = `
import os, sys, errno, ctypes, socket, array
d = sys.argv[1]; sup = os.getppid(); covered = int(sys.argv[2])
opath = socket.recv_fds(socket.socket(fileno=int(sys.argv[3])), 1, 1)[1][0]
libc = ctypes.CDLL(None, use_errno=True)
def attempt(name, f):
    try: r = f()
    except OSError as e: r = errno.errorcode.get(e.errno, e.errno)
    if isinstance(r, bytes): r = r.decode()
    print(name, "ESCAPED" if "hidden" in str(r) else r)
def rd(p, dir_fd=None):
    fd = os.open(p, os.O_RDONLY, dir_fd=dir_fd)
    try: return os.read(fd, 100)
    finally: os.close(fd)
s = d + "/deep/secret"
def call(n, *a):
    if libc.syscall(n, *a) < 0: raise OSError(ctypes.get_errno(), "")
    return "done"
attempt("name", lambda: rd(s + "/f"))
attempt("link", lambda: rd(d + "/ln/f"))
attempt("dots", lambda: rd(d + "/deep/../deep/./secret/../secret/f"))
attempt("above", lambda: rd(d + "/alias/../deep/secret/f"))
attempt("dirfd", lambda: rd("secret/f", os.open(d + "/deep", os.O_RDONLY)))
attempt("self root", lambda: rd("/proc/self/root" + s + "/f"))
attempt("self cwd", lambda: (os.chdir(d + "/deep"), rd("/proc/self/cwd/secret/f"))[1])
attempt("init root", lambda: rd("/proc/1/root" + s + "/f"))
attempt("supervisor root", lambda: rd("/proc/%d/root%s/f" % (sup, s)))
attempt("supervisor mem", lambda: rd("/proc/%d/mem" % sup))
attempt("supervisor environ", lambda: rd("/proc/%d/environ" % sup))
attempt("supervisor fd", lambda: os.listdir("/proc/%d/fd" % sup) and "".join(rd("/proc/%d/fd/%d/f" % (sup, n)).decode() for n in range(3, 40)))
attempt("covered fd", lambda: rd("f", covered))
attempt("covered O_PATH", lambda: rd("f", opath))
attempt("covered fd by proc", lambda: rd("/proc/self/fd/%d/f" % covered))
attempt("covered fd reopened", lambda: rd("f", os.open("/proc/self/fd/%d" % covered, os.O_RDONLY)))
a, b = socket.socketpair()
socket.send_fds(a, [b"x"], [covered]); _, fds, _, _ = socket.recv_fds(b, 1, 1)
attempt("SCM_RIGHTS", lambda: rd("f", fds[0]))
attempt("fchdir", lambda: (os.fchdir(covered), rd("f"))[1])
attempt("fchdir and up", lambda: (os.fchdir(covered), rd("../secret/f"))[1])
os.chdir("/")
attempt("stat", lambda: os.stat(s + "/f").st_size)
attempt("readlink", lambda: os.readlink(s + "/l"))
attempt("readlink by a link", lambda: os.readlink(d + "/ln/l"))
attempt("readlink below", lambda: os.readlink("secret/l", dir_fd=os.open(d + "/deep", os.O_RDONLY)))
attempt("truncate", lambda: os.truncate(s + "/f", 0))
attempt("hard link", lambda: (os.link(s + "/f", d + "/hard"), rd(d + "/hard"))[1])
attempt("move it", lambda: (os.rename(s, d + "/moved"), rd(d + "/moved/f"))[1])
attempt("move above it", lambda: (os.rename(d + "/deep", d + "/moved"), rd(d + "/moved/secret/f"))[1])
attempt("mount", lambda: call(165, b"none", s.encode(), b"tmpfs", 0, 0))
attempt("umount", lambda: call(166, s.encode(), 2))
attempt("umount what hides", lambda: call(166, s.encode(), 2))
attempt("open_tree", lambda: call(428, -100, s.encode(), 0))
attempt("by handle", lambda: call(304, -100, ctypes.create_string_buffer(200), 0))
attempt("name to handle", lambda: call(303, -100, s.encode(), ctypes.create_string_buffer(200), ctypes.create_string_buffer(8), 0))
attempt("io_uring", lambda: call(425, 8, ctypes.create_string_buffer(200)))
attempt("F_SETSIG", lambda: __import__("fcntl").fcntl(os.open(d + "/alias", os.O_RDONLY), 10, 0))
import struct, subprocess
other = subprocess.Popen(["sleep", "20"], cwd=d + "/deep")
attempt("another's cwd", lambda: rd("/proc/%d/cwd/secret/f" % other.pid))
attempt("another's root", lambda: rd("/proc/%d/root%s/f" % (other.pid, s)))
other.kill(); other.wait()
attempt("supervisor cwd", lambda: rd("/proc/%d/cwd%s/f" % (sup, s)))
attempt("supervisor map_files", lambda: os.listdir("/proc/%d/map_files" % sup))
for n in 1, 2, 4, 8, 16:
    how = struct.pack("QQQ", 0, 0, n)
    for p in s + "/f", "deep/secret/f", "ln/f":
        attempt("openat2 %d" % n, lambda: os.read(call(437, os.open(d, os.O_RDONLY), p.encode(), how, 24), 100))
attempt("linkat of O_PATH", lambda: (call(265, os.open(s, os.O_PATH), b"", -100, (d + "/hard").encode(), 0x1000), rd(d + "/hard/f"))[1])
attempt("exchange", lambda: (call(316, -100, (d + "/open").encode(), -100, s.encode(), 2), rd(d + "/open/f"))[1].replace(b"open", b""))
m = os.memfd_create("cat"); os.write(m, open("/bin/cat", "rb").read())
attempt("memfd", lambda: subprocess.run(["/proc/self/fd/%d" % m, s + "/f"], pass_fds=[m], capture_output=True).stdout)
attempt("loader", lambda: subprocess.run(["/lib64/ld-linux-x86-64.so.2", "/bin/cat", s + "/f"], capture_output=True).stdout)
def obj_get(p): return call(321, 7, ctypes.create_string_buffer(struct.pack("QII", ctypes.addressof(p), 0, 0), 128), 128)
for p in s + "/f", s + "/none": attempt("BPF_OBJ_GET of " + p[len(s):], lambda: obj_get(ctypes.create_string_buffer(p.encode())))
attempt("fanotify_mark", lambda: call(301, 0, 1, 0x20, -100, s.encode()))
attempt("acct", lambda: call(163, (s + "/f").encode()))
attempt("setns", lambda: (call(308, os.pidfd_open(sup), 0x20000), rd(s + "/f"))[1])
for flags in 0x20000, 0x10020000:
    pid = os.fork()
    if pid == 0:
        attempt("unshare", lambda: (call(272, flags), rd(s + "/f"))[1])
        attempt("unshare and pivot_root", lambda: (call(155, d.encode(), d.encode()), rd("/deep/secret/f"))[1])
        os._exit(0)
    os.waitpid(pid, 0)
pid = os.fork()
if pid == 0:
    attempt("chroot", lambda: (os.chroot(s), rd("/f"))[1])
    os._exit(0)
os.waitpid(pid, 0)
pid = os.fork()
if pid == 0:
    attempt("chroot above", lambda: (os.chroot(d), os.chdir("/"), rd("/open/f") + rd("deep/../ln/../deep/secret/f"))[2])
    os._exit(0)
os.waitpid(pid, 0)
`
	got := mountedWith(t, mountedConfig{mounts: mounts, inherit: []int{covered, pair[1]}}, "/usr/bin/python3", "-c", script, dir, fmt.Sprint(covered), fmt.Sprint(pair[1]))
	if strings.Contains(got, "ESCAPED") || !strings.Contains(got, "chroot above") {
		t.Errorf("got\n%s", got)
	}
	for _, want := range []string{"name ENOENT", "dirfd ENOENT", "covered fd ENOENT", "covered O_PATH ENOENT", "SCM_RIGHTS ENOENT", "supervisor mem EACCES", "supervisor environ EACCES", "move it EBUSY", "move above it EBUSY", "mount done", "umount done", "umount what hides EPERM", "BPF_OBJ_GET of /f EPERM", "BPF_OBJ_GET of /none EPERM", "F_SETSIG EINVAL"} {
		if os.Geteuid() == 0 && !strings.Contains(got, want+"\n") {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	t.Log(got)
}

// TestMoveByAlias moves what is above a mount by another name that a mount gives it.
func TestMoveByAlias(t *testing.T) {
	dir, mounts := secretLab(t)
	mounts[1].Source = dir // where the host's own secret can be seen, as that of every bind
	want := "mv: cannot move 'DIR/alias/deep' to 'DIR/alias/moved': Device or resource busy\n"
	got := mountedIn(t, dir, mounts, "sh", "-c", "mv "+dir+"/alias/deep "+dir+"/alias/moved; cat "+dir+"/moved/secret/f 2>/dev/null")
	if want = strings.ReplaceAll(want, "DIR", dir); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestHammer opens paths while other threads change what they are.
func TestHammer(t *testing.T) {
	dir, mounts := secretLab(t)
	got := mountedWith(t, mountedConfig{mounts: mounts, env: []string{targetEnv + "=hammer"}}, "/proc/self/exe", dir)
	if !strings.HasPrefix(got, "ok ") {
		t.Errorf("got %q", got)
	}
	t.Log(strings.TrimSpace(got))
	if b, err := os.ReadFile(dir + "/deep/secret/f"); string(b) != "hidden\n" {
		t.Errorf("the covered file: %q, %v", b, err)
	}
}

// hammer is the target of TestHammer.
func hammer(dir string) {
	var stop atomic.Bool
	var wg sync.WaitGroup
	time.AfterFunc(1500*time.Millisecond, func() { stop.Store(true) })
	var opened, failed, escaped atomic.Int64
	look := func(fd uintptr, errno unix.Errno) {
		if errno != 0 {
			failed.Add(1)
			return
		}
		var b [100]byte
		n, _ := unix.Read(int(fd), b[:])
		unix.Close(int(fd))
		opened.Add(1)
		if bytes.Contains(b[:max(n, 0)], []byte("hidden")) {
			escaped.Add(1)
		}
	}
	loop := func(f func()) {
		wg.Go(func() {
			for !stop.Load() {
				f()
			}
		})
	}
	// The path in memory is one thing, then another.
	good, bad := []byte(dir+"/open/f\x00"), []byte(dir+"/deep/secret/f\x00")
	shared := make([]byte, len(bad))
	copy(shared, good)
	loop(func() {
		for range 100 {
			copy(shared, bad)
			copy(shared, good)
		}
	})
	loop(func() {
		fd, _, errno := unix.Syscall6(unix.SYS_OPENAT, ^uintptr(99), uintptr(unsafe.Pointer(&shared[0])), unix.O_RDONLY, 0, 0, 0)
		look(fd, errno)
	})
	open := func(path string) {
		fd, err := unix.Open(path, unix.O_RDONLY, 0)
		var errno unix.Errno
		if err != nil {
			errno = err.(unix.Errno)
		}
		look(uintptr(fd), errno)
	}
	// A symbolic link leads here, then there.
	loop(func() {
		for _, to := range []string{"open", "deep/secret"} {
			_ = os.Symlink(to, dir+"/new")
			_ = os.Rename(dir+"/new", dir+"/flip")
		}
	})
	loop(func() { open(dir + "/flip/f") })
	loop(func() { open(dir + "/alias/flip/../flip/f") })
	// A directory on the way becomes a link, and a directory again.
	_ = os.MkdirAll(dir+"/way/secret", 0o755)
	_ = os.WriteFile(dir+"/way/secret/f", []byte("open\n"), 0o644)
	_ = os.Symlink("deep", dir+"/way2")
	loop(func() {
		_ = unix.Renameat2(unix.AT_FDCWD, dir+"/way", unix.AT_FDCWD, dir+"/way2", unix.RENAME_EXCHANGE)
	})
	loop(func() { open(dir + "/way/secret/f") })
	loop(func() { open(dir + "/open/../way2/secret/f") })
	// A look alone tells what is there.
	loop(func() {
		for _, way := range []string{"/flip", "/way/secret", "/way2/secret"} {
			var st unix.Stat_t
			if unix.Lstat(dir+way+"/f", &st) == nil && st.Size == int64(len("hidden\n")) {
				escaped.Add(1)
			}
			if _, err := os.Readlink(dir + way + "/l"); err == nil {
				escaped.Add(1)
			}
		}
	})
	// What is above moves.
	loop(func() {
		_ = os.Rename(dir+"/deep", dir+"/gone")
		_ = os.Rename(dir+"/alias/deep", dir+"/alias/gone")
		_ = unix.Renameat2(unix.AT_FDCWD, dir+"/deep", unix.AT_FDCWD, dir+"/other", unix.RENAME_EXCHANGE)
	})
	loop(func() { open(dir + "/gone/secret/f"); open(dir + "/other/secret/f") })
	wg.Wait()
	if escaped.Load() > 0 || opened.Load() < 100 || failed.Load() < 100 {
		fmt.Print("bad ")
	} else {
		fmt.Print("ok ")
	}
	fmt.Printf("%d opened, %d failed, %d escaped\n", opened.Load(), failed.Load(), escaped.Load())
}

// TestSourceGone takes the source of a mount away while it is in use.
func TestSourceGone(t *testing.T) {
	dir, _ := secretLab(t)
	if err := os.MkdirAll(dir+"/at", 0o755); err != nil {
		t.Fatal(err)
	}
	got := mountedWith(t, mountedConfig{
		mounts: []fsmod.Mount{{Kind: fsmod.Bind, Source: dir + "/open", Target: dir + "/at"}},
		env:    []string{targetEnv + "=lasting"},
	}, "/proc/self/exe", dir)
	if want := "open\nopen\nno such file or directory\nno such file or directory\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func lasting(dir string) {
	look := func(path string) {
		b, err := os.ReadFile(path)
		if err != nil {
			fmt.Println(err.(*os.PathError).Err)
			return
		}
		fmt.Print(string(b))
	}
	look(dir + "/at/f")
	_ = os.Rename(dir+"/open", dir+"/else")
	look(dir + "/at/f") // as a mount of the kernel's it stays
	_ = os.RemoveAll(dir + "/else")
	look(dir + "/at/f")
	_, err := os.Create(dir + "/at/new")
	fmt.Println(err.(*os.PathError).Err)
}
