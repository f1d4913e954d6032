// SPDX-License-Identifier: Apache-2.0

// Attempts to have a privileged supervisor do what the program's own rights do not allow.

package fsmod_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"umrun/fsmod"
	"umrun/fsmod/cow"
	"umrun/fsmod/mounttest"
)

// rightsScript gives up rights in each way, and tells which files it can open then. It
// prints the same with umrun and without.
const rightsScript = `
import os, sys, errno, ctypes, socket, time
d = sys.argv[1]
libc = ctypes.CDLL(None, use_errno=True)
def tell(name, f):
    try: r = f()
    except OSError as e: r = errno.errorcode.get(e.errno, e.errno)
    print(name, r, flush=True)
def rd(p):
    fd = os.open(p, os.O_RDONLY)
    try: os.read(fd, 100)
    finally: os.close(fd)
    return "read"
def files(name):
    for f in "root", "user", "theirs/f": tell(name + " " + f, lambda: rd(d + "/" + f))
def must(r):
    if r < 0: raise OSError(ctypes.get_errno(), "")
def user(): os.setgroups([]); os.setresgid(1000, 1000, 1000); os.setresuid(1000, 1000, 1000)
def userns(): user(); must(libc.unshare(0x10000000))
def rootns(): must(libc.unshare(0x10000000))
def again(name): os.execv(sys.executable, [sys.executable, "-c", sys.argv[2], d, sys.argv[2], name])
def bounded():
    for c in range(41): must(libc.prctl(24, c, 0, 0, 0))
    again("bounded")
def noroot(): must(libc.prctl(28, 1, 0, 0, 0)); again("noroot")
def reduced(): must(libc.syscall(126, (ctypes.c_uint*2)(0x20080522, 0), (ctypes.c_uint*6)()))
def descriptors():
    # A task that has changed its user, and executed nothing since.
    top = os.open(d, os.O_RDONLY); f = os.open(d + "/open/f", os.O_RDONLY)
    user()
    tell("from a directory", lambda: os.stat("open/f", dir_fd=top) and "there")
    tell("the directory", lambda: os.stat(top) and "there")
    tell("no directory", lambda: os.stat("f", dir_fd=f))
    tell("no descriptor", lambda: os.stat("f", dir_fd=999))
    tell("fchdir", lambda: os.fchdir(top))
    tell("link", lambda: os.readlink("/proc/self/fd/%d" % f) == d + "/open/f")
    tell("followed", lambda: rd("/proc/self/fd/%d" % f))
    tell("dev", lambda: rd("/dev/fd/%d" % f))
    tell("list", lambda: len(os.listdir("/proc/self/fd")) > 4)
def real():
    # access(2) is about the real user, and faccessat(2) with AT_EACCESS about the effective one.
    os.setgroups([])
    for ids in (0, 1000), (1000, 0):
        os.setresgid(*ids, 0); os.setresuid(*ids, 0)
        for f in "root", "user", "theirs/f", "open/f":
            for eff in False, True: tell("%s %s %s" % (ids, f, eff), lambda: (os.access(d + "/" + f, os.R_OK, effective_ids=eff), os.access(d + "/" + f, os.X_OK, effective_ids=eff)))
        os.setresuid(0, 0, 0); os.setresgid(0, 0, 0)
def fsize():
    # No file is made longer than RLIMIT_FSIZE, and who tries gets a signal.
    import resource, signal
    got = []; signal.signal(signal.SIGXFSZ, lambda *a: got.append(1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
    for n in 3, 10, 11, 4, 11:
        tell("truncate %d" % n, lambda: os.truncate(d + "/open/g", n))
        tell("then", lambda: (len(got), os.stat(d + "/open/g").st_size))
def procfs():
    other = os.fork()
    if other == 0: time.sleep(0.6); os._exit(0)
    user(); other = "/proc/%d/" % other
    tell("maps of root's", lambda: rd(other + "maps"))
    for l in "cwd", "root", "exe", "ns/net":
        tell(l + " of root's", lambda: os.readlink(other + l))
        tell(l + " of root's, followed", lambda: os.stat(other + l) and "there")
    tell("own maps", lambda: rd("/proc/self/maps"))
    pid = os.fork()
    if pid == 0: os.execv("/bin/sleep", ["sleep", "30"])
    time.sleep(0.2)
    tell("maps of own", lambda: rd("/proc/%d/maps" % pid))
    tell("exe of own", lambda: rd("/proc/%d/exe" % pid))
    tell("cwd of own", lambda: os.stat("/proc/%d/cwd" % pid) and "there")
    tell("fd of own", lambda: os.stat("/proc/%d/fd/1" % pid) and "there")
    os.kill(pid, 9)
def clone3():
    # Where there is none, programs go back to clone(2).
    a = (ctypes.c_ulong*8)(0x10000000, 0, 0, 0, 17)
    pid = libc.syscall(435, a, 64)
    if pid < 0: pid = libc.syscall(56, 0x10000000|17, 0, 0, 0, 0)
    must(pid)
    if pid: os.waitpid(pid, 0); os._exit(0)
if len(sys.argv) > 3: files(sys.argv[3]); os._exit(0)
for f in bounded, noroot, clone3, rootns, userns, user, reduced, descriptors, procfs, real, fsize:
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try: f(); f not in (descriptors, procfs, real, fsize) and files(f.__name__)
        except OSError as e: print(f.__name__, e)
        sys.stdout.flush(); os._exit(0)
    os.waitpid(pid, 0)
# Who owns a user namespace maps itself there.
sys.stdout.flush()
pid = os.fork()
if pid == 0: user(); os.execv("/usr/bin/unshare", ["unshare", "-r", "id"])
os.waitpid(pid, 0)
# And one in that, where the files of procfs speak of it.
sys.stdout.flush()
pid = os.fork()
if pid == 0:
    user(); look = "cat /proc/self/uid_map /proc/self/setgroups; grep -h ^Uid: /proc/self/status /proc/1/status"
    os.execv("/usr/bin/unshare", ["unshare", "-r", "sh", "-c", look + "; unshare -r sh -c '" + look + "'"])
os.waitpid(pid, 0)
# One with several users, of whom one may look at what is another's as little as outside.
sys.stdout.flush()
ready, mapped = os.pipe(), os.pipe()
pid = os.fork()
if pid == 0:
    must(libc.unshare(0x10000000)); os.write(ready[1], b"x"); os.read(mapped[0], 1)
    other = os.fork()
    if other == 0:
        os.setresuid(1002, 1002, 1002); os.dup2(ready[1], 9); os.dup2(mapped[0], 0)
        os.execv("/bin/sh", ["sh", "-c", "echo >&9; exec cat"]) # until nobody is left to write
    os.read(ready[0], 1)
    os.setgroups([]); os.setresgid(1001, 1001, 1001); os.setresuid(1001, 1001, 1001)
    for p in "self/status", "self/uid_map", "%d/status" % other, "%d/environ" % other, "%d/maps" % other:
        tell("user in a namespace " + p.replace(str(other), "other"), lambda: open("/proc/" + p).readline() and "read")
    os.setresuid(1001, 1001, 1001); sys.stdout.flush(); os._exit(0)
os.read(ready[0], 1)
for f in "uid_map", "gid_map":
    with open("/proc/%d/%s" % (pid, f), "w") as m: m.write("0 0 5000\n")
os.write(mapped[1], b"x"); os.close(mapped[1]); os.waitpid(pid, 0)
# What is mapped by who has the file from a user is what that user may map.
sys.stdout.flush()
ready, over, given = os.pipe(), os.pipe(), socket.socketpair()
pid = os.fork()
if pid == 0:
    user(); libc.prctl(4, 1, 0, 0, 0)
    child = os.fork()
    if child == 0: must(libc.unshare(0x10000000)); os.write(ready[1], b"x"); os.read(over[0], 1); os._exit(0)
    os.read(ready[0], 1)
    socket.send_fds(given[1], [b"x"], [os.open("/proc/%d/uid_map" % child, os.O_RDWR)])
    given[1].recv(1); os.write(over[1], b"x"); os.waitpid(child, 0); os._exit(0)
f = socket.recv_fds(given[0], 1, 1)[1][0]
tell("map of a user's", lambda: os.write(f, b"0 3000 5\n"))
given[0].send(b"x"); os.waitpid(pid, 0)
# What cannot be had ends no program, and leaves no descriptor.
with open(d + "/script", "w") as f: f.write("#!/bin/sh\nexit 0\n")
with open(d + "/foreign", "wb") as f:
    b = bytearray(open("/bin/true", "rb").read()); b[18:20] = b"\xb7\0"; f.write(b)
for p in "script", "foreign": os.chmod(d + "/" + p, 0o755)
n = len(os.listdir("/proc/self/fd"))
tell("foreign", lambda: os.execv(d + "/foreign", ["foreign"]))
tell("long", lambda: os.execv("/bin/true", ["x" * (1 << 20)]))
tell("descriptors", lambda: len(os.listdir("/proc/self/fd")) - n)
sys.stdout.flush()
pid = os.fork()
if pid == 0: os.execv(d + "/script", ["script"] + ["x"] * 2000 + [""])
tell("script", lambda: os.waitpid(pid, 0)[1])
`

func TestRights(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("an ordinary user's supervisor has no more rights than its program")
	}
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip(err)
	}
	dir, mounts := secretLab(t)
	for name, mode := range map[string]os.FileMode{"open/g": 0o644, "root": 0o600, "user": 0o600, "theirs/f": 0o644} {
		if err := os.MkdirAll(dir+"/theirs", 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir+"/"+name, []byte(name), mode); err != nil {
			t.Fatal(err)
		}
	}
	mounttest.Public(t, dir)
	for name, id := range map[string]int{"user": 1000, "theirs": 1001, "theirs/f": 1001} {
		if err := unix.Chown(dir+"/"+name, id, id); err != nil {
			t.Fatal(err)
		}
	}
	b, err := exec.Command(python, "-c", rightsScript, dir, rightsScript).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	want := string(b)
	t.Log(want)
	for _, l := range []string{"user root EACCES", "user user read", "bounded theirs/f EACCES", "maps of root's EACCES", "maps of own read", "map of a user's EPERM", "uid=0(root) gid=0(root) groups=0(root)", "script 0"} {
		if !strings.Contains(want, l+"\n") {
			t.Errorf("without umrun there is no %q", l)
		}
	}
	for _, m := range [][]fsmod.Mount{mounts, {{Kind: fsmod.Bind, Source: dir, Target: dir}}} {
		got := mountedWith(t, mountedConfig{mounts: m}, python, "-c", rightsScript, dir, rightsScript)
		g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
		for i := range max(len(g), len(w)) {
			if i >= len(g) || i >= len(w) || g[i] != w[i] {
				t.Errorf("line %d differs\n%s\nfrom that without umrun\n%s", i, got, want)
				break
			}
		}
	}
}

// TestNamespaceRights looks, from a user namespace, at what procfs has of a process that is not in it. An
// ordinary user's supervisor may look there.
func TestNamespaceRights(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip(err)
	}
	dir, mounts := secretLab(t)
	const script = `
import ctypes, errno, os, sys
d = sys.argv[1]
libc = ctypes.CDLL(None, use_errno=True)
def tell(name, f):
    try: r = f()
    except OSError as e: r = errno.errorcode.get(e.errno, e.errno)
    print(name, r, flush=True)
def looks(where, pid, fd):
    p = "/proc/%d/" % pid
    for name, l in ("fd", "fd/%d" % fd), ("fd of its thread", "task/%d/fd/%d" % (pid, fd)), *((l, l) for l in ("cwd", "root", "exe", "ns/mnt", "ns/user")):
        l, name = p + l, where + " " + name
        tell(name, lambda: os.readlink(l) and "told")
        tell(name + " followed", lambda: os.stat(l) and "there")
        tell(name + " opened", lambda: os.open(l, os.O_RDONLY) and "opened")
        tell(name + " O_PATH", lambda: os.stat("/proc/self/fd/%d" % os.open(l, os.O_PATH)) and "opened")
    tell(where + " f", lambda: os.stat(p + "cwd/f") and "there")
    tell(where + " chdir", lambda: os.chdir(p + "cwd"))
    for f in "environ", "maps", "auxv", "fdinfo/0", "fd", "status": tell(where + " " + f, lambda: os.open(p + f, os.O_RDONLY) and "opened")
os.chdir(d + "/open")
me, fd = os.getpid(), os.open(d + "/open/f", os.O_RDONLY)
looks("beside", me, fd)
sys.stdout.flush()
pid = os.fork()
if pid == 0:
    if libc.unshare(0x10000000) < 0: print("no user namespace"); os._exit(0)
    looks("within", me, fd)
    if os.fork() == 0: looks("its own", os.getppid(), fd); os._exit(0)
    os.wait(); os._exit(0)
os.wait()
`
	cmd := exec.Command(python, "-c", script, dir)
	b, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	want := string(b)
	for _, l := range []string{"beside fd opened opened", "within fd opened EACCES", "its own cwd told"} {
		if !strings.Contains(want, l+"\n") {
			t.Fatalf("without umrun there is no %q in\n%s", l, want)
		}
	}
	if got := mountedIn(t, "", mounts, python, "-c", script, dir); got != want {
		g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
		for i := range min(len(g), len(w)) {
			if g[i] != w[i] {
				t.Errorf("%q, and without umrun %q", g[i], w[i])
			}
		}
		if len(g) != len(w) {
			t.Errorf("got\n%s", got)
		}
	}
}

// TestSupervisorByMount looks for the supervisor's files in procfs where a mount shows it.
func TestSupervisorByMount(t *testing.T) {
	dir, _ := secretLab(t)
	const script = `
import os, sys, errno
sup = os.getppid()
for p in ("/proc", sys.argv[1] + "/proc"):
    for f in "mem", "environ", "maps", "fd", "task/%d/mem" % sup:
        try: fd = os.open("%s/%d/%s" % (p, sup, f), os.O_RDONLY); print(f, "ESCAPED")
        except OSError as e: print(f, errno.errorcode[e.errno])
    for f in "cwd", "exe", "fd/0", "fd/3":
        try: print(f, "ESCAPED", os.readlink("%s/%d/%s" % (p, sup, f)))
        except OSError as e: print(f, errno.errorcode[e.errno])
        try: print(f, "ESCAPED", os.readlink("", dir_fd=os.open("%s/%d/%s" % (p, sup, f), os.O_PATH|os.O_NOFOLLOW)))
        except OSError as e: print(f, errno.errorcode[e.errno])
    for f in "mem", "fd":
        try: os.open("/proc/self/fd/%d" % os.open("%s/%d/%s" % (p, sup, f), os.O_PATH), os.O_RDONLY); print(f, "ESCAPED")
        except OSError as e: print(f, errno.errorcode[e.errno])
    try: os.open("0", os.O_RDONLY, dir_fd=os.open("%s/%d/fd" % (p, sup), os.O_PATH)); print("ESCAPED")
    except OSError as e: print("from fd", errno.errorcode[e.errno])
    print(open("%s/%d/comm" % (p, sup)).read() and "comm")
    me = os.readlink("", dir_fd=os.open(p + "/self", os.O_PATH|os.O_NOFOLLOW))
    if me != str(os.getpid()): print("ESCAPED, who am I", me)
`
	got := mountedIn(t, dir, []fsmod.Mount{{Kind: fsmod.Bind, Source: "/", Target: dir + "/alias"}}, "python3", "-c", script, dir+"/alias")
	if strings.Contains(got, "ESCAPED") || strings.Count(got, "comm") != 2 {
		t.Errorf("got\n%s", got)
	}
}

// TestNoRoom opens with O_PATH, executes and changes directories where the program may have
// no more descriptors or memory, or has a tracer.
func TestNoRoom(t *testing.T) {
	dir, mounts := secretLab(t)
	const script = `
import os, sys, errno, resource, signal
d = sys.argv[1]
def tell(name, f):
    try: r = f()
    except OSError as e: r = errno.errorcode.get(e.errno, e.errno)
    print(name, r)
with open(d + "/script", "w") as f: f.write("#!/bin/sh\nexit 0\n")
os.chmod(d + "/script", 0o755)
was = os.fstat(0).st_ino
top = os.open("/", os.O_RDONLY); os.close(top)
resource.setrlimit(resource.RLIMIT_NOFILE, (top + 1, 4096))
tell("O_PATH", lambda: os.open(d, os.O_PATH) and "opened")
tell("stdin", lambda: os.fstat(0).st_ino == was)
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
tell("descriptor", lambda: os.open("/", os.O_RDONLY) == top)
sys.stdout.flush()
pid = os.fork()
if pid == 0:
    resource.setrlimit(resource.RLIMIT_AS, (1 << 16, 1 << 16))
    try: os.execv(d + "/script", ["script"])
    except OSError as e: os._exit(e.errno)
st = os.waitpid(pid, 0)[1]
pid = os.fork()
if pid == 0: # a tracer, as of a debugger
    import ctypes
    n = len(os.listdir("/proc/self/fd"))
    ctypes.CDLL(None).ptrace(0, 0, 0, 0)
    tell("traced chdir", lambda: os.chdir("/usr"))
    tell("traced exec", lambda: os.execv("/bin/true", ["true"]))
    tell("traced O_PATH", lambda: os.open("/usr", os.O_PATH) and "opened")
    tell("descriptors", lambda: len(os.listdir("/proc/self/fd")) - n)
    sys.stdout.flush(); os._exit(0)
os.waitpid(pid, 0)
if os.geteuid() == 0:
    n = len(os.listdir("/proc/self/fd"))
    tell("chroot", lambda: os.chroot(d + "/script"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (top + 2, 4096)) # room for one of two
    tell("chroot without room", lambda: os.chroot(d))
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    tell("descriptors", lambda: len(os.listdir("/proc/self/fd")) - n)
print("exec without memory", os.WIFEXITED(st) and errno.errorcode[os.WEXITSTATUS(st)])
`
	got := mountedIn(t, dir, mounts, "python3", "-c", script, dir)
	want := "O_PATH EMFILE\nstdin True\ndescriptor True\n" +
		"traced chdir EPERM\ntraced exec EPERM\ntraced O_PATH opened\ndescriptors 1\n"
	if os.Geteuid() == 0 {
		want += "chroot ENOTDIR\nchroot without room EMFILE\ndescriptors 0\n"
	}
	if want += "exec without memory ENOMEM\n"; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// TestCowAttributes touches what a cow notes in extended attributes, and changes files by
// descriptors that are open to be read.
func TestCowAttributes(t *testing.T) {
	dir, _ := secretLab(t)
	upper := t.TempDir()
	const script = `
import os, sys, errno, fcntl, struct
d = sys.argv[1]
def tell(name, f):
    try: r = f()
    except OSError as e: r = errno.errorcode.get(e.errno, e.errno)
    print(name, r)
o = "user.overlay.opaque"
os.mkdir(d + "/deep/new")
tell("set", lambda: os.setxattr(d + "/deep", o, b"y"))
tell("fset", lambda: os.setxattr(os.open(d + "/deep", 0), o, b"y"))
tell("see", lambda: sorted(os.listdir(d + "/deep")))
os.rename(d + "/open/f", d + "/f"); os.rmdir(d + "/open"); os.mkdir(d + "/open")
tell("own", lambda: os.setxattr(d + "/open", "user.a", b"1"))
tell("list", lambda: os.listxattr(d + "/open"))
tell("get", lambda: os.getxattr(d + "/open", o))
tell("remove", lambda: os.removexattr(d + "/open", o))
tell("see", lambda: os.listdir(d + "/open"))
fd = os.open(d + "/other/f", os.O_RDONLY)
tell("FS_IOC_FSSETXATTR", lambda: fcntl.ioctl(fd, 0x401c5820, bytes(28)))
tell("FS_IOC_SETFLAGS", lambda: fcntl.ioctl(fd, 0x40086602, bytes(8)))
tell("FS_IOC_ENABLE_VERITY", lambda: fcntl.ioctl(fd, 0x40806685, bytes(128)))
tell("EXT4_IOC_SETVERSION", lambda: fcntl.ioctl(fd, 0x40086604, bytes(8)))
tell("EXT4_IOC_MIGRATE", lambda: fcntl.ioctl(fd, 0x6609))
tell("FAT_IOCTL_SET_ATTRIBUTES", lambda: fcntl.ioctl(fd, 0x40047211, bytes(4)))
tell("BTRFS_IOC_SUBVOL_CREATE", lambda: fcntl.ioctl(os.open(d, os.O_RDONLY), 0x5000940e, bytearray(4096)))
`
	got := mountedWith(t, mountedConfig{
		mounts: []fsmod.Mount{{Kind: fsmod.Cow, Source: upper, Target: dir}},
		open: func(m fsmod.Mount) (fsmod.FS, error) {
			return cow.New(cow.Config{Lower: cow.Host(m.Target), Upper: m.Source, Volatile: true})
		},
	}, "python3", "-c", script, dir)
	want := `set ENOTSUP
fset ENOTSUP
see ['new', 'secret']
own None
list ['user.a']
get ENOTSUP
remove ENOTSUP
see []
FS_IOC_FSSETXATTR ENOTSUP
FS_IOC_SETFLAGS ENOTSUP
FS_IOC_ENABLE_VERITY ENOTSUP
EXT4_IOC_SETVERSION ENOTSUP
EXT4_IOC_MIGRATE ENOTSUP
FAT_IOCTL_SET_ATTRIBUTES ENOTSUP
BTRFS_IOC_SUBVOL_CREATE ENOTSUP
`
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}
