// SPDX-License-Identifier: Apache-2.0

// Judgements of addresses, in a directory that plays the task's root.

package leak

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A task is a Dirs whose directories are paths of ours.
type task map[string]string

func (t task) OpenDir(what string) (*os.File, error) {
	name, ok := t[what]
	if !ok {
		return nil, fmt.Errorf("open %s: %w", what, unix.EBADF)
	}
	fd, err := unix.Open(name, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// blindTask cannot be looked at.
type blindTask struct{ err error }

func (b blindTask) OpenDir(string) (*os.File, error) { return nil, b.err }

// sockaddr is a sockaddr_un of exactly the bytes of path.
func sockaddr(path string) []byte {
	return append(binary.NativeEndian.AppendUint16(nil, unix.AF_UNIX), path...)
}

// socket makes a socket file; its path may be long.
func socket(t *testing.T, name string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mknod(name, unix.S_IFSOCK|0o666, 0); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, to, name string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(to, name); err != nil {
		t.Fatal(err)
	}
}

// world makes a root:
//
//	/run/...                 the doors
//	/var/run -> /run         absolute, so that it must not leave the root
//	/home/user/sock          no door
//	/home/user/hard          hard link to nscd's socket
//	/home/user/resolve       hard link to a socket of resolved
//	/home/user/link          symbolic link to nscd's socket
//	/home/user/up            symbolic link to ../../run
//	/home/user/loop          symbolic link to itself
func world(t *testing.T) (root string) {
	t.Helper()
	root = t.TempDir()
	for _, s := range []string{
		"run/nscd/socket", "run/nscd/other", "run/systemd/resolve/io.systemd.Resolve", "run/systemd/resolve/io.systemd.Resolve.Monitor",
		"run/systemd/resolve/new", "run/systemd/journal/socket", "run/avahi-daemon/socket", "run/dbus/system_bus_socket",
		"run/user/1000/bus", "home/user/sock", "home/user/run/nscd/socket",
	} {
		socket(t, filepath.Join(root, s))
	}
	user := filepath.Join(root, "home/user")
	link(t, "/run", filepath.Join(root, "var/run"))
	link(t, "/run/nscd/socket", filepath.Join(user, "link"))
	link(t, "../../run", filepath.Join(user, "up"))
	link(t, "loop", filepath.Join(user, "loop"))
	for from, to := range map[string]string{"run/nscd/socket": "hard", "run/systemd/resolve/new": "resolve"} {
		if err := os.Link(filepath.Join(root, from), filepath.Join(user, to)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(user, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	return root
}

func TestCheck(t *testing.T) {
	root := world(t)
	user := task{"root": root, "cwd": root + "/home/user", "fd/5": root + "/run/nscd", "fd/6": root + "/run/nscd/socket", "fd/7": root + "/home/user"}
	with := func(cwd string) task { return task{"root": root, "cwd": root + cwd} }
	outside := t.TempDir()
	socket(t, outside+"/sock")
	tests := []struct {
		name string
		task Dirs
		path string
		door string // what Why begins with; empty: allowed
	}{
		{"nscd", user, "/run/nscd/socket", "nscd"},
		{"nscd by /var/run", user, "/var/run/nscd/socket", "nscd"},
		{"what follows the NUL", user, "/run/nscd/socket\x00/home/user/sock", "nscd"},
		{"harmless before the NUL", user, "/home/user/sock\x00/run/nscd/socket", ""},
		{"neighbour of nscd", user, "/run/nscd/other", ""},
		{"varlink", user, "/run/systemd/resolve/io.systemd.Resolve", "systemd-resolved"},
		{"monitor", user, "/run/systemd/resolve/io.systemd.Resolve.Monitor", "systemd-resolved"},
		{"whatever resolved has next", user, "/run/systemd/resolve/new", "systemd-resolved"},
		{"journal", user, "/run/systemd/journal/socket", ""},
		{"avahi", user, "/run/avahi-daemon/socket", "avahi-daemon"},
		{"system bus", user, "/run/dbus/system_bus_socket", "the system D-Bus"},
		{"session bus", user, "/run/user/1000/bus", ""},

		{"slashes and dots", user, "//run/./nscd/../nscd//socket", "nscd"},
		{"dot-dot above the root", user, "/../../run/nscd/socket", "nscd"},
		{"trailing slash", user, "/run/nscd/socket/", ""}, // ENOTDIR
		{"directory", user, "/run/nscd", ""},
		{"regular file", user, "/home/user/file", ""},
		{"nothing there", user, "/run/nscd/nothing", ""},
		{"symbolic link", user, "/home/user/link", "nscd"},
		{"link loop", user, "/home/user/loop", ""},
		{"through a linked directory", user, "/home/user/up/nscd/socket", "nscd"},
		{"hard link", user, "/home/user/hard", "nscd"},
		{"hard link of resolved's", user, "/home/user/resolve", "systemd-resolved"},
		{"same name elsewhere", user, "/home/user/run/nscd/socket", ""},

		{"relative", user, "sock", ""},
		{"relative, hard link", user, "hard", "nscd"},
		{"relative, absolute link", user, "link", "nscd"},
		{"relative, up", user, "../../run/nscd/socket", "nscd"},
		{"relative, up beyond the root", user, "../../../../../run/nscd/socket", "nscd"},
		{"relative, same name", user, "run/nscd/socket", ""},
		{"relative in the door's directory", with("/run/nscd"), "socket", "nscd"},
		{"relative in resolved's", with("/run/systemd/resolve"), "./new", "systemd-resolved"},
		{"relative at the root", with("/"), "run/avahi-daemon/socket", "avahi-daemon"},
		{"cwd outside the root", task{"root": root, "cwd": outside}, "sock", ""},
		{"cwd outside the root, up", task{"root": root + "/home", "cwd": root + "/run/nscd"}, "../nscd/socket", ""},
		{"no cwd", task{"root": root}, "run/nscd/socket", ""},

		{"own descriptor of a directory", user, "/proc/self/fd/5/socket", "nscd"},
		{"own descriptor, thread", user, "/proc/thread-self/fd/5/../nscd/socket", "nscd"},
		{"own descriptor of the socket", user, "/proc/self/fd/6", "nscd"},
		{"own descriptor, harmless", user, "/proc/self/fd/7/sock", ""},
		{"own descriptor, not open", user, "/proc/self/fd/9/socket", ""},
		{"own cwd", user, "/proc/self/cwd/hard", "nscd"},
		{"own root", user, "/proc/self/root/run/nscd/socket", "nscd"},
		{"own root twice", user, "/proc/self/root/proc/self/root/run/nscd/socket", "nscd"},
		{"own root alone", user, "/proc/self/root", ""},

		{"another root", task{"root": root + "/home/user", "cwd": root + "/home/user"}, "/run/nscd/socket", "nscd"},
		{"another root, other name", task{"root": root + "/home/user", "cwd": root + "/home/user"}, "/sock", ""},
		{"another root, link leads inside", task{"root": root + "/home/user", "cwd": root + "/home/user"}, "/link", "nscd"},

		{"full, without NUL, door", user, pad("/run/", "nscd/socket", 108), "nscd"},
		{"longer than a sockaddr", user, pad("/run/", "nscd/socket", 109), ""},

		{"unnamed", user, "", ""},
		{"empty name", user, "\x00", ""},
		{"abstract", user, "\x00/tmp/.X11-unix/X0", ""},
		{"abstract name of a door", user, "\x00/run/nscd/socket", "nscd"},
		{"abstract, relative", user, "\x00run/nscd/socket", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := New(Config{})
			r.own = outside // nothing of the machine shall matter
			v := r.Check(tt.task, sockaddr(tt.path))
			if tt.door == "" {
				if !v.Allow {
					t.Errorf("refused: %+v", v)
				}
				return
			}
			if v.Allow || v.Errno != unix.ECONNREFUSED || !strings.HasPrefix(v.Why, tt.door+" ") {
				t.Errorf("got %+v, want %s", v, tt.door)
			}
		})
	}
}

// pad makes a path of n bytes.
func pad(head, tail string, n int) string {
	return head + strings.Repeat("/", n-len(head)-len(tail)) + tail
}

func TestShortSockaddr(t *testing.T) {
	r := New(Config{})
	inet := append(binary.NativeEndian.AppendUint16(nil, unix.AF_INET), "/run/nscd/socket"...)
	for _, sa := range [][]byte{nil, {}, {1}, sockaddr(""), inet, bytes.Repeat([]byte{0}, 200)} {
		if v := r.Check(blindTask{unix.EACCES}, sa); !v.Allow {
			t.Errorf("%x refused: %+v", sa, v)
		}
	}
}

func TestDBus(t *testing.T) {
	root := world(t)
	r := New(Config{DBus: true})
	r.own = root + "/home"
	user := task{"root": root, "cwd": root}
	if v := r.Check(user, sockaddr("/run/dbus/system_bus_socket")); !v.Allow {
		t.Errorf("refused: %+v", v)
	}
	if v := r.Check(user, sockaddr("/run/nscd/socket")); v.Allow {
		t.Error("the other doors are open too")
	}
}

// A task in another root reaches a door of the machine under a name of its own,
// as through a bind mount.
func TestDoorOfOurRoot(t *testing.T) {
	root := world(t)
	jail := filepath.Join(root, "jail")
	if err := os.MkdirAll(jail+"/tmp", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(root+"/run/avahi-daemon/socket", jail+"/tmp/a"); err != nil {
		t.Fatal(err)
	}
	r := New(Config{})
	r.own = root
	v := r.Check(task{"root": jail, "cwd": jail}, sockaddr("/tmp/a"))
	if v.Allow || !strings.Contains(v.Why, "avahi") {
		t.Errorf("got %+v", v)
	}
}

// The path through another process's entry in /proc.
func TestOtherProc(t *testing.T) {
	root := world(t)
	dir, err := os.Open(root + "/run/nscd")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	r := New(Config{})
	r.own = root
	user := task{"root": "/", "cwd": "/"}
	p := fmt.Sprintf("/proc/%d/fd/%d/", os.Getpid(), dir.Fd())
	if v := r.Check(user, sockaddr(p+"socket")); v.Allow {
		t.Errorf("%ssocket is allowed", p)
	}
	if v := r.Check(user, sockaddr(p+"other")); !v.Allow {
		t.Errorf("%sother: %+v", p, v)
	}
}

func TestBlind(t *testing.T) {
	r := New(Config{})
	for err, want := range map[error]Verdict{
		unix.ESRCH:  {Allow: true},
		unix.EACCES: {Errno: unix.EACCES},
		unix.EPERM:  {Errno: unix.EACCES},
	} {
		v := r.Check(blindTask{fmt.Errorf("root of 1: %w", err)}, sockaddr("sock"))
		if v.Allow != want.Allow || v.Errno != want.Errno || (v.Why == "") != v.Allow {
			t.Errorf("%v: %+v", err, v)
		}
	}
}

// Judging leaves no descriptor open.
func TestDescriptors(t *testing.T) {
	root := world(t)
	r := New(Config{})
	user := task{"root": root, "cwd": root + "/home/user", "fd/5": root + "/run/nscd"}
	open := func() int {
		t.Helper()
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	before := open()
	for _, p := range []string{"/run/nscd/socket", "hard", "link", "sock", "nothing", "loop", "/proc/self/fd/5/socket", "/proc/self/fd/5/none", "/proc/self/fd/8/x", "resolve"} {
		r.Check(user, sockaddr(p))
	}
	if after := open(); after != before {
		t.Errorf("%d descriptors, before %d", after, before)
	}
}

func FuzzCheck(f *testing.F) {
	for _, p := range []string{"/run/nscd/socket", "../x", "\x00abc", "/proc/self/root/run/nscd/socket", "/proc/self/fd/5/x", ""} {
		f.Add(sockaddr(p))
	}
	root := f.TempDir()
	if err := os.MkdirAll(root+"/run/nscd", 0o755); err != nil {
		f.Fatal(err)
	}
	if err := unix.Mknod(root+"/run/nscd/socket", unix.S_IFSOCK|0o666, 0); err != nil {
		f.Fatal(err)
	}
	user := task{"root": root, "cwd": root + "/run", "fd/5": root + "/run/nscd"}
	r := New(Config{})
	r.own = root
	f.Fuzz(func(t *testing.T, sa []byte) {
		v := r.Check(user, sa)
		if v.Allow != (v.Errno == 0) || v.Allow != (v.Why == "") {
			t.Errorf("%q: %+v", sa, v)
		}
	})
}

// TestJudgeFile judges files that somebody else has found.
func TestJudgeFile(t *testing.T) {
	root := world(t)
	r := New(Config{})
	r.own = root
	for path, want := range map[string]error{
		"/run/nscd/socket": unix.ECONNREFUSED, "/home/user/hard": unix.ECONNREFUSED, "/home/user/resolve": unix.ECONNREFUSED,
		"/run/nscd/other": nil, "/home/user/sock": nil, "/home/user/file": nil, "/home/user/run/nscd/socket": nil,
	} {
		fd, err := unix.Open(root+path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.JudgeFile(fd); got != want {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
		unix.Close(fd)
	}
}
