// SPDX-License-Identifier: Apache-2.0

// Tests of directories that are deeper than a path can name.

package fsmod_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"umrun/fsmod"
	"umrun/fsmod/cow"
)

// deepScript goes down in the directory that is its argument, and does things there.
const deepScript = `
import ctypes, errno, os, socket, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
def do(f, *a, **k):
    try: return f(*a, **k)
    except OSError as e: return errno.errorcode[e.errno]
def getcwd(): # without what libc does then
    n = libc.syscall(79, ctypes.create_string_buffer(9000), 9000)
    return "there" if n > 0 else errno.errorcode[ctypes.get_errno()]
def write(name, text, fd=None):
    f = os.open(name, os.O_CREAT | os.O_RDWR, 0o644, dir_fd=fd); os.write(f, text.encode()); os.close(f)
def read(name, fd=None):
    f = os.open(name, os.O_RDONLY, dir_fd=fd); b = os.read(f, 99).decode(); os.close(f); return b
top, name = sys.argv[1], "d" * 200
os.chdir(top)
for i in range(45): os.mkdir(name); os.mkdir("beside"); os.chdir(name)
print(getcwd(), os.listdir("."), do(os.stat, top + ("/" + name) * 45))
here = os.open(".", os.O_RDONLY); path = os.open(".", os.O_PATH)
print(do(write, "f", "one"), read("f"), read("f", here), read("f", path), read("./f"), read("../" + name + "/f"), os.stat("f").st_size, os.access("f", os.W_OK), os.access("f", os.X_OK))
print(do(os.rename, "f", "g"), do(os.link, "g", "h"), do(os.symlink, "g", "l"), os.readlink("l"), read("l"), do(os.chmod, "l", 0o755), oct(os.lstat("h").st_mode), do(os.utime, "g", (1, 2)), os.stat("h").st_mtime, do(os.truncate, "g", 2), read("h"))
print(do(os.mkdir, "a"), do(os.mkdir, "a/b"), do(write, "a/b/c", "deeper"), read("a/../a/b/c"), do(os.rmdir, "a"), do(os.rename, "a/b/c", "../c"), read("../c"), do(os.open, "a/b/c", os.O_RDONLY), sorted(os.listdir("..")) == ["beside", "c", name])
print(do(write, "s", "#!/bin/sh\necho ran; cat ./g; cd a && cat ../g; cd ../..; ls | wc -l; cat c\n"), do(os.chmod, "s", 0o755), flush=True)
print(subprocess.run(["./s"], capture_output=True, text=True))
s = socket.socket(socket.AF_UNIX); print(do(s.bind, "sock"), do(s.listen)); c = socket.socket(socket.AF_UNIX); print(do(c.connect, "sock"), do(os.unlink, "sock"))
print(do(os.chdir, "a/b"), do(os.mkdir, "x"), do(os.chdir, "../.."), sorted(os.listdir(".")), do(os.fchdir, path), do(os.rmdir, "a/b/x"))
print([do(os.chdir, "..") for _ in range(30)] == [None] * 30, getcwd(), do(read, ("/".join([name] * 30))[:4000].rsplit("/", 1)[0] + "/f"), do(os.fchdir, here))
os.chdir("a/b"); os.rmdir("../b"); print(do(os.listdir, "."), do(write, "n", ""), do(os.stat, "../b"), do(os.chdir, ".."), do(os.lstat, "b"), read("../g"))
sys.stdout.flush()
if os.fork() == 0: os.fchdir(here); print(do(os.chroot, "."), do(os.listdir, "/") == do(os.listdir, "."), do(read, "/g"), do(os.stat, "/../g") == do(os.stat, "g"), flush=True); os._exit(0)
os.wait()
for tool in (["find", top, "-type", "f"], ["du", "-a", "--inodes", top], ["ls", "-R", top]):
    r = subprocess.run(tool, capture_output=True, text=True, cwd="/"); print(tool[0], r.returncode, len(r.stdout.splitlines()), r.stderr[-100:])
os.chdir(top)
for i in range(18): os.chdir(name)
os.mkdir("p" * 255); os.chdir("p" * 255); seen = []
for k in range(100, 250): # where a path is cut in two
    os.mkdir("q" * k); os.chdir("q" * k); os.symlink(".", "w"); os.mkdir("e"); seen.append((os.path.isdir("w/w/w/e"), do(os.lstat, "e/w/e"), do(os.mkdir, "w/e/g"), do(os.rmdir, "w/w/e/g"), do(os.readlink, "w/w"))); os.chdir("..")
print(set(seen))
os.chdir("/"); r = subprocess.run(["rm", "-r", top + "/" + name, top + "/beside"], capture_output=True, text=True); print(r.returncode, r.stderr[-100:], os.listdir(top))
`

// TestDeep has a program do natively and in mounts what it does by relative names alone.
func TestDeep(t *testing.T) {
	const python = "/usr/bin/python3"
	plain := t.TempDir()
	native, err := exec.CommandContext(t.Context(), python, "-c", deepScript, plain).CombinedOutput()
	if err != nil {
		t.Fatalf("natively: %v\n%s", err, native)
	}
	for _, kind := range []fsmod.Kind{fsmod.Bind, fsmod.Tmpfs, fsmod.Cow, "beside"} {
		t.Run(string(kind), func(t *testing.T) {
			l := newLab(t)
			at, mt := t.TempDir(), fsmod.Mount{Kind: kind, Source: t.TempDir()}
			if mt.Target = at; kind == "beside" { // the host's own
				mt.Kind, mt.Target = fsmod.Bind, l.at
			}
			got := mountedWith(t, mountedConfig{
				mounts: []fsmod.Mount{mt},
				open: func(m fsmod.Mount) (fsmod.FS, error) {
					if m.Kind == fsmod.Cow {
						return cow.New(cow.Config{Lower: cow.Host(m.Target), Upper: m.Source, Volatile: true})
					}
					return fsmod.OpenBuiltin(m)
				},
			}, python, "-c", deepScript, at)
			in := func(s, dir string) string { return strings.ReplaceAll(s, dir, "DIR") }
			if diff := cmp.Diff(in(string(native), plain), in(got, at)); diff != "" {
				t.Errorf("natively -, in the view +:\n%s", diff)
			}
		})
	}
}
