// SPDX-License-Identifier: Apache-2.0

// Changes of files by descriptors that have no mark.

package fsmod_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"umrun/fsmod"
	"umrun/fsmod/cow"
)

// unmarkedScript changes what is in a directory by descriptors of O_PATH, of a FIFO, and of a file
// that was copied since, and makes links of them elsewhere. It prints the same with the kernel's mounts
// and with ours.
const unmarkedScript = `
import ctypes, errno, os, sys
d, elsewhere = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
def tell(name, f):
    try: r = f()
    except OSError as e: r = errno.errorcode.get(e.errno, e.errno)
    print(name, r, flush=True)
def call(n, *a):
    if libc.syscall(n, *a) < 0: raise OSError(ctypes.get_errno(), "")
    return "done"
old = (ctypes.c_long * 4)(1, 0, 1, 0)
def change(name, fd, link=False):
    if not link: tell(name + " fchmodat2", lambda: call(452, fd, b"", 0o604, 0x1000))
    tell(name + " fchownat", lambda: call(260, fd, b"", os.getuid(), os.getgid(), 0x1000))
    tell(name + " utimensat", lambda: call(280, fd, b"", old, 0x1000))
    tell(name + " linkat", lambda: call(265, fd, b"", -100, (elsewhere + "/" + name).encode(), 0x1000))
    p = "/proc/self/fd/%d" % fd
    if name != "f": return # what was copied and is no file has no name there any more
    tell(name + " by its link", lambda: os.chmod(p, 0o640))
    tell(name + " by its link, times", lambda: os.utime(p, (2, 2)))
    tell(name + " by its link, owner", lambda: os.chown(p, os.getuid(), -1))
    tell(name + " by its link, attribute", lambda: os.setxattr(p, "user.a", b"1"))
change("f", os.open(d + "/f", os.O_PATH))
change("fifo", os.open(d + "/fifo", os.O_PATH))
change("l", os.open(d + "/l", os.O_PATH | os.O_NOFOLLOW), True)
fifo = os.open(d + "/fifo", os.O_RDWR)
tell("fchmod", lambda: os.fchmod(fifo, 0o622))
tell("futimens", lambda: os.utime(fifo, (3, 3)))
fd, of_path = os.open(d + "/g", os.O_RDONLY), os.open(d + "/g", os.O_PATH)
tell("write", lambda: os.write(os.open(d + "/g", os.O_WRONLY), b"new"))
for name, n in ("older", fd), ("older path", of_path):
    p = "/proc/self/fd/%d" % n
    tell(name + " chmod", lambda: os.chmod(p, 0o751))
    tell(name + " attribute", lambda: os.setxattr(p, "user.a", b"1"))
    tell(name + " utime", lambda: os.utime(p, (4, 4)))
    print(name, oct(os.stat(d + "/g").st_mode), os.stat(d + "/g").st_mtime)
change("sub", os.open(d + "/sub", os.O_PATH))
`

// snapshot describes what is in a directory.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		attrs := make([]byte, 1000)
		n, err := unix.Llistxattr(path, attrs)
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %o %d:%d links %d at %v %q\n", path, st.Mode, st.Uid, st.Gid, st.Nlink, st.Mtim, attrs[:n])
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestUnmarked changes nothing of what a copy on write covers, or a mount that takes no changes shows.
func TestUnmarked(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip(err)
	}
	for _, tt := range []struct {
		name    string
		kernel  string // makes the mount at $1 of the directory $0, with room in $2
		mounts  func(from, at, room string) []fsmod.Mount
		changes bool
	}{
		{"read-only bind", `mount --bind "$0" "$1" && mount -o remount,bind,ro "$1" && mount -t tmpfs none "$0"`,
			func(from, at, _ string) []fsmod.Mount {
				return []fsmod.Mount{{Kind: fsmod.Bind, Source: from, Target: at, ReadOnly: true}, {Kind: fsmod.Hide, Target: from}}
			}, false},
		{"cow", `mkdir "$2/u" "$2/w" && mount -t overlay -o "userxattr,lowerdir=$0,upperdir=$2/u,workdir=$2/w" none "$1"`,
			func(_, at, room string) []fsmod.Mount {
				return []fsmod.Mount{{Kind: fsmod.Cow, Source: room, Target: at}}
			}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lab := func() (from, at, room, elsewhere string) {
				top, err := filepath.EvalSymlinks(t.TempDir())
				if err != nil {
					t.Fatal(err)
				}
				from, at, room, elsewhere = top+"/from", top+"/at", top+"/room", top+"/elsewhere"
				for _, d := range []string{from + "/sub", at, room, elsewhere} {
					if err := os.MkdirAll(d, 0o755); err != nil {
						t.Fatal(err)
					}
				}
				for _, f := range []string{"f", "g"} {
					if err := os.WriteFile(from+"/"+f, []byte("old"), 0o644); err != nil {
						t.Fatal(err)
					}
					if err := os.Chtimes(from+"/"+f, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
						t.Fatal(err)
					}
				}
				if err := os.Symlink("f", from+"/l"); err != nil {
					t.Fatal(err)
				}
				if err := unix.Mkfifo(from+"/fifo", 0o600); err != nil {
					t.Fatal(err)
				}
				return from, at, room, elsewhere
			}
			from, at, room, elsewhere := lab()
			cmd := exec.Command("unshare", "-rm", "sh", "-c", tt.kernel+` && exec "$3" -c "$4" "$1" "$5"`, from, at, room, python, unmarkedScript, elsewhere)
			cmd.Env = append(os.Environ(), "LC_ALL=C")
			b, err := cmd.CombinedOutput()
			if err != nil {
				t.Skipf("the kernel's mounts: %v\n%s", err, b)
			}
			want := string(b)
			if done := strings.Contains(want, "f fchmodat2 done\n"); done != tt.changes {
				t.Errorf("the kernel says\n%s", want)
			}

			from, at, room, elsewhere = lab()
			if tt.changes {
				at = from
			}
			before := snapshot(t, from)
			got := mountedWith(t, mountedConfig{mounts: tt.mounts(from, at, room), open: func(m fsmod.Mount) (fsmod.FS, error) {
				if m.Kind == fsmod.Cow {
					return cow.New(cow.Config{Lower: cow.Host(m.Target), Upper: m.Source, Volatile: true})
				}
				return fsmod.OpenBuiltin(m)
			}}, python, "-c", unmarkedScript, at, elsewhere)
			if got != want {
				t.Errorf("got\n%swant\n%s", got, want)
			}
			if after := snapshot(t, from); after != before {
				t.Errorf("there was\n%sand is\n%s", before, after)
			}
			if left, err := os.ReadDir(elsewhere); err != nil || len(left) != 0 {
				t.Errorf("links were made: %v, %v", left, err)
			}
		})
	}
}
