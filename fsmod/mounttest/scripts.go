// SPDX-License-Identifier: Apache-2.0

// Package mounttest has what both engines must answer to mount(2) and umount2(2) by a program:
// scripts that are run natively too, or whose output is given; and what tests of files need of
// directories. There is no state.
package mounttest

// A Case is a script that needs Prelude.
type Case struct{ Name, Script string }

// Prelude has mount and umount for scripts in Python, whose argument is a directory as newLab in
// package fsmod's tests makes it.
const Prelude = `
import ctypes, errno, os, sys
libc = ctypes.CDLL(None, use_errno=True)
RDONLY, NOSUID, NODEV, NOEXEC, REMOUNT, BIND, MOVE, REC, PRIVATE, SHARED, SLAVE = 1, 2, 4, 8, 32, 4096, 8192, 16384, 1<<18, 1<<20, 1<<19
FORCE, DETACH, EXPIRE, NOFOLLOW = 1, 2, 4, 8
def name(r):
    return "ok" if r == 0 else errno.errorcode[ctypes.get_errno()]
def mount(source, target, fstype=None, flags=0, data=None):
    e = lambda s: None if s is None else s.encode()
    return name(libc.mount(e(source), e(target), e(fstype), flags, e(data)))
def umount(target, flags=0):
    return name(libc.umount2(target.encode(), flags))
def read(path):
    try: return open(path).read().strip()
    except OSError as e: return errno.errorcode[e.errno]
def do(f, *a):
    try: return f(*a)
    except OSError as e: return errno.errorcode[e.errno]
d = sys.argv[1]
os.chdir(d)
at, src = d + "/at", d + "/src"
`

// Calls are the cases. Each prints the same natively and in a view, but for TrapUserDiffers.
var Calls = []Case{
	{"bind", `
print(mount(src, at, None, BIND), read("at/file"), read(at + "/sub/x"), read("at/hidden"))
print(mount("src/sub", "at/../at/sub", None, BIND | 0xc0ed0000), read("at/sub/x"))
print(umount(at), umount(at + "/sub"), umount(at + "/sub"), umount("at"), umount("at"), read("at/file"))
`},
	{"bind of a file", `
print(mount("src/file", "at/file", None, BIND), read("at/file"), os.listdir("at") == ["file"])
print(do(os.unlink, "at/file"), do(os.rename, "at/file", "at/x"), do(os.rmdir, "at/sub"))
open("at/file", "a").write("more\n"); print(read("src/file"))
print(umount("at/file", NOFOLLOW), read("at/file"))
`},
	{"errors", `
print(mount(src, at + "/none", None, BIND), mount("none", at, None, BIND), mount("src/file", at, None, BIND), mount(src, "at/file", None, BIND))
print(mount(src, at, "umrun.nosuch") != "ok", umount(at), umount("none"), umount(at, 64), umount(at, EXPIRE | DETACH), umount("link"))
print(mount("x" * 5000, at, None, BIND), mount(None, at, None, BIND), libc.mount(1, at.encode(), None, BIND, None), name(-1))
print(mount("tmpfs", at + "/file", "tmpfs"), mount("tmpfs", at, "tmpfs", 0, "colour=red"), mount("tmpfs", at, "tmpfs", 0, "mode=9"), mount("tmpfs", at, "tmpfs", 0, "size=x"))
`},
	{"tmpfs", `
print(mount("tmpfs", at, "tmpfs"), oct(os.stat(at).st_mode), os.listdir(at), os.stat(at).st_uid)
open("at/n", "w").write("new"); print(read("at/n"), umount(at), read("at/n"))
print(mount("none", at, "tmpfs", NOSUID | NODEV, "mode=750,uid=7,gid=9,size=0"), oct(os.stat(at).st_mode), os.stat(at).st_uid, os.stat(at).st_gid)
os.mkdir("at/d"); print(mount(src, at + "/d", None, BIND), read("at/d/file"), umount(at), umount(at, DETACH), read("at/file"))
`},
	{"tmpfs with bounds", `
print(mount("tmpfs", at, "tmpfs", 0, "size=0,nr_blocks=0,nr_inodes=0"), umount(at))
print([(mount("tmpfs", at, "tmpfs", 0, o), umount(at)) for o in ("size=64k", "nr_blocks=16", "nr_inodes=9", "size=1%")])
print(mount("tmpfs", at, "tmpfs"), mount(None, at, None, REMOUNT, "size=64k"), do(os.posix_fallocate, os.open("at/f", os.O_CREAT | os.O_RDWR), 0, 1 << 20), umount(at, DETACH))
`},
	{"tmpfs that is full", `
if mount("tmpfs", at, "tmpfs", 0, "size=64k,nr_inodes=4,mode=700") != "ok": print("refused"); sys.exit()
f = os.open("at/f", os.O_CREAT | os.O_RDWR); print(do(os.posix_fallocate, f, 0, 1 << 17), os.close(f), os.statvfs("at").f_blocks * os.statvfs("at").f_frsize)
for n in "abc": print(do(os.mkdir, "at/" + n))
print(mount(None, at, None, REMOUNT, "size=1m,nr_inodes=9"), do(os.mkdir, "at/d"), mount(None, at, None, REMOUNT, "size=x"), mount(None, at, None, REMOUNT | RDONLY), do(os.mkdir, "at/e"), sorted(os.listdir("at")))
f = os.open("at/f", os.O_RDONLY); print(os.readlink("/proc/self/fd/%d" % f)); os.chdir("at/a"); print(os.getcwd(), os.listdir(".."), umount(at), umount(at, DETACH), os.listdir("..") == sorted(os.listdir(".."))); os.chdir(d); os.close(f)
print(mount("tmpfs", at, "tmpfs", NOSUID, "size=1m")); os.symlink("/bin/true", "at/l"); open("at/s", "w").write("#!/bin/sh\necho ran $0\n"); os.chmod("at/s", 0o755); sys.stdout.flush(); print(os.spawnl(os.P_WAIT, at + "/s", "s"), os.spawnl(os.P_WAIT, "at/l", "l")); sys.stdout.flush()
import socket, subprocess; s = socket.socket(socket.AF_UNIX); s.bind("at/sock"); s.listen(); c = socket.socket(socket.AF_UNIX); c.connect(at + "/sock"); print(s.getsockname(), c.getpeername()); s.close(); c.close()
print(subprocess.run(["cp", "/bin/true", "at/t"]).returncode, subprocess.run([at + "/t"]).returncode, mount("at", "src/sub", None, BIND), read("src/sub/s"), do(os.link, "at/s", "src/sub/s2"), do(os.rename, "at/s", "src/s"), umount("src/sub"), umount(at))
`},
	{"read-only", `
print(mount(src, at, None, BIND | RDONLY), do(open, "at/w1", "w") != "EROFS")
print(mount("none", at, None, REMOUNT | BIND | RDONLY), do(open, "at/w2", "w"), do(os.mkdir, "at/w3"), do(os.chmod, "at/file", 0o600), do(os.unlink, "at/file"), do(open, "src/w4", "w") != "EROFS")
f = os.open("at/file", os.O_RDONLY)
print(do(os.fchmod, f, 0o600), do(os.utime, "at/file"))
os.close(f)
print(mount("none", at, None, REMOUNT | BIND), do(os.mkdir, "at/w5"), do(os.rmdir, "src/w5"))
print(mount("none", at + "/sub", None, REMOUNT | BIND | RDONLY), umount(at))
print(mount("tmpfs", at, "tmpfs", RDONLY), do(os.mkdir, "at/x"), mount("none", at, None, REMOUNT), do(os.mkdir, "at/x"), umount(at))
`},
	{"tmpfs that stays as it was", `
def options(at): return [[o for o in l.split()[5].split(",") if o in ("ro", "rw", "nosuid", "nodev")] for l in open("/proc/self/mountinfo") if l.split()[4] == at]
if mount("tmpfs", at, "tmpfs", NOSUID, "size=64k") != "ok": print("refused"); sys.exit()
size = lambda: (os.statvfs(at).f_blocks * os.statvfs(at).f_frsize, options(at))
f = os.open("at/f", os.O_CREAT | os.O_WRONLY); os.write(f, b"x" * 30000); print(size())
print(mount(None, at, None, REMOUNT | RDONLY | NODEV, "size=1m"), size(), os.close(f))
print(mount(None, at, None, REMOUNT | RDONLY | NODEV, "size=4k"), size(), do(os.mkdir, "at/d"))
print(mount(None, at, None, REMOUNT | RDONLY | NODEV, "size=x"), size(), do(os.mkdir, "at/e"))
print(mount(None, at, None, REMOUNT | RDONLY, "size=1m"), size(), do(os.mkdir, "at/x"))
print(mount(None, at, None, REMOUNT | NODEV, "size=4k"), size(), do(os.mkdir, "at/x"))
print(mount(None, at, None, REMOUNT | NODEV, "size=2m"), size(), do(os.mkdir, "at/x"), umount(at))
`},
	{"beside signals to the process group", `
import signal, threading, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
stop = threading.Event()
def interrupt():
    while not stop.wait(0.003): os.kill(0, signal.SIGINT)
t = threading.Thread(target=interrupt); t.start()
print([(mount("tmpfs", at, "tmpfs"), umount(at)) for _ in range(8)]); stop.set(); t.join()
`},
	{"attributes", `
def options(at): return [[o for o in l.split()[5].split(",") if o in ("ro", "rw", "nosuid", "nodev")] for l in open("/proc/self/mountinfo") if l.split()[4] == at]
print(mount(src, at, None, BIND), mount(None, at, None, REMOUNT | BIND | NOSUID | NODEV, "anything"), options(at), mount(None, at, None, REMOUNT | BIND | NODEV | NOSUID | RDONLY), options(at))
print(mount(None, at, None, REMOUNT | BIND | NODEV | NOSUID)); f = os.open("at/file", os.O_RDWR); g = os.open("at/file", os.O_RDONLY)
print(mount(None, at, None, REMOUNT | BIND | NODEV | NOSUID | RDONLY), os.close(f), mount(None, at, None, REMOUNT | BIND | NODEV | NOSUID | RDONLY), os.close(g), do(os.open, "at/file", os.O_RDWR), umount(at))
print(mount("tmpfs", at, "tmpfs", NODEV | NOSUID), options(at)); f = os.open("at/f", os.O_CREAT | os.O_WRONLY); print(mount(None, at, None, REMOUNT | RDONLY | NODEV | NOSUID), os.close(f), mount(None, at, None, REMOUNT | RDONLY | NODEV | NOSUID), options(at), umount(at))
if os.geteuid() == 0:
    os.mknod("src/dev", 0o20666, os.makedev(1, 3)); null = lambda at: do(lambda: os.close(os.open(at, os.O_RDONLY)))
    print(mount(src, at, None, BIND), null("at/dev"), mount(None, at, None, REMOUNT | BIND | NODEV), null("at/dev"), null("src/dev"), os.stat("at/dev").st_rdev)
    f = os.open("at/dev", os.O_PATH); print(null("/proc/self/fd/%d" % f), os.close(f), mount("at/dev", "src/file", None, BIND), null("src/file"), umount("src/file"))
    print(mount(None, at, None, REMOUNT | BIND), null("at/dev"), umount(at), mount("tmpfs", at, "tmpfs", NODEV), do(os.mknod, "at/dev", 0o20666, os.makedev(1, 3)), null("at/dev"), umount(at))
`},
	{"busy", `
print(mount("tmpfs", at, "tmpfs")); f = os.open("at/f", os.O_CREAT | os.O_RDWR); os.write(f, b"kept")
print(umount(at), umount(at, FORCE), umount(at, DETACH), os.pread(f, 10, 0), read("at/f"), os.readlink("/proc/self/fd/%d" % f))
print(mount(src, at, None, BIND)); os.chdir("at/sub")
print(umount(at), umount(at, DETACH), read("x"), read("../file"), read("../../other"), read(at + "/file"), os.readlink("/proc/self/cwd"))
print(mount("..", at, None, BIND), mount("x", at + "/file", None, BIND)); os.chdir(d)
print(read("at/file"))
`},
	{"with what is in it", `
os.mkdir("src/deep"); print(mount("tmpfs", src + "/deep", "tmpfs")); open("src/deep/in", "w").write("in")
print(mount(src, at, None, BIND), read("at/deep/in"), umount(at), mount(src, at, None, BIND | REC), read("at/deep/in"))
open("at/deep/more", "w").write("more"); print(read("src/deep/more"), umount(src + "/deep"), read("src/deep/in"), read("at/deep/in"))
print(umount(at), umount(at + "/deep"), umount(at))
`},
	{"a bind of a bind", `
print(mount(src, at, None, BIND), mount("at/sub", d + "/src/sub", None, BIND), read("src/sub/x"), umount(at), umount("src/sub"), umount(at))
print(mount(at, at, None, BIND), read("at/file"), umount(at), umount(at))
os.chdir("at/sub"); print(mount(".", ".", None, BIND), umount("."), umount(at + "/sub")); os.chdir(d)
print(umount(at + "/sub"))
`},
	{"a bind outlives what it shows", `
print(mount("tmpfs", at, "tmpfs")); os.makedirs("at/a/b"); open("at/a/b/f", "w").write("lives"); os.mkdir("there")
print(mount("at/a", d + "/there", None, BIND), umount(at), read("there/b/f"), read("at/a/b/f"), do(os.mkdir, "there/n"), sorted(os.listdir("there")))
os.chdir("there/b"); print(os.getcwd() == d + "/there/b", read("../../other")); os.chdir(d); print(umount("there"), os.listdir("there"))
`},
	{"where one stands", `
there = lambda: [os.path.lexists(p) for p in ("sub/x", "sub", "file") for _ in range(4)]
print(mount(src, at, None, BIND)); os.chdir(at); print(there(), mount("tmpfs", at + "/sub", "tmpfs"), there(), umount(at + "/sub"), there())
print(umount(at), umount(at, DETACH), there(), os.path.lexists(at + "/sub/x")); os.chdir(d); print(os.path.lexists("at/file"))
`},
	{"links", `
os.symlink("at", "toat"); print(mount("src", "toat", None, BIND), read("at/file"), umount("toat", NOFOLLOW), umount("toat"), read("at/file"))
os.symlink("src", "tosrc"); print(mount("tosrc/sub", "toat/sub", None, BIND), read("at/sub/x"), umount("toat/sub", NOFOLLOW))
`},
	{"propagation", `
print(mount(src, at, None, BIND), mount(None, at, None, PRIVATE), mount(None, at, None, SLAVE | REC), mount(None, at + "/sub", None, PRIVATE), umount(at))
print(mount(None, "/", None, REC | PRIVATE))
`},
	{"what mountinfo says", `
def listed(p):
    for line in open("/proc/self/mountinfo"):
        f = line.split()
        if f[4] == p: return f[5].split(",")[0]
    return None
mounted = lambda p: [l.split()[3].split(",")[0] for l in open("/proc/mounts") if l.split()[1] == p]
os.mkdir("a b"); print(listed(at), mount(src, at, None, BIND), listed(at), mounted(at), mount(None, at, None, REMOUNT | BIND | RDONLY), listed(at), mounted(at))
print(mount("tmpfs", d + "/a b", "tmpfs"), listed(d + "/a\\040b"), umount("a b"), umount(at), listed(at), mounted(at))
`},
	{"mount(8)", `
import subprocess
def sh(line):
    r = subprocess.run(line, shell=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True); return r.returncode, r.stdout
print(sh("mount --bind src at; cat at/file; umount at; cat at/file"))
print(sh("mount -o bind,ro src at; cat at/file; touch at/x; mount -o remount,bind,rw at; touch at/x && rm at/x; umount at; umount at"))
print(sh("mount -t tmpfs -o size=0,mode=700 none at; stat -c %a at; findmnt -no FSTYPE,OPTIONS at | cut -c1-8; cd at; umount " + at + " 2>&1 | grep -c busy; cd ..; umount -l at; ls at"))
`},
}

// TrapUserDiffers has what a case prints by the engine trap in an ordinary user's view if that is
// something else, by its name. The log says so once.
var TrapUserDiffers = map[string]string{
	"tmpfs with bounds": `ok ok
[('EINVAL', 'EINVAL'), ('EINVAL', 'EINVAL'), ('EINVAL', 'EINVAL'), ('EINVAL', 'EINVAL')]
ok EINVAL None ok
`,
	"tmpfs that is full":         "refused\n",
	"tmpfs that stays as it was": "refused\n",
}

// Locked is what cannot be undone: DIR/deep/secret, with a file f, is hidden, and DIR/open,
// with a file f, bound read-only to DIR/other. DIR/free and DIR/free2 are empty.
const Locked = Prelude + `
secret, other, free, free2 = d + "/deep/secret", d + "/other", d + "/free", d + "/free2"
print(umount(secret), umount(secret, DETACH), umount(other), mount(None, other, None, REMOUNT | BIND), mount(None, secret, None, REMOUNT | BIND))
print(mount(d + "/deep", free, None, BIND), mount(d, free, None, BIND), mount("/", free, None, BIND), mount("/proc/self/cwd/deep", free, None, BIND), mount("/proc/self/root" + d, free, None, BIND))
print(mount(d + "/deep", free, None, BIND | REC), do(os.listdir, free + "/secret"), read(free + "/secret/f"), umount(free + "/secret"), umount(free + "/secret", DETACH))
print(do(os.rename, free + "/secret", free + "/x"), mount(free, free2, None, BIND), mount(free, free2, None, BIND | REC), read(free2 + "/secret/f"), umount(free2, DETACH), umount(free, DETACH), read(free + "/secret/f"))
print(mount(secret, free, None, BIND), do(os.listdir, free), umount(free))
print(mount(other, free, None, BIND), do(os.mkdir, free + "/x"), mount(None, free, None, REMOUNT | BIND), do(os.mkdir, free + "/x"), read(free + "/f"), umount(free))
print(mount("tmpfs", d + "/deep", "tmpfs"), do(os.listdir, d + "/deep"), umount(d + "/deep"), read(secret + "/f"))
os.chdir("deep"); print(mount("tmpfs", d, "tmpfs"), read("secret/f"), read("../deep/secret/f"), umount(d), umount(d, DETACH), read("secret/f"))
print(mount("tmpfs", secret, "tmpfs"), mount(d + "/deep", free, None, BIND), mount(d + "/deep", free, None, BIND | REC), umount(free + "/secret"), read(free + "/secret/f"), umount(free + "/secret"), umount(free), umount(free, DETACH), umount(secret), read(secret + "/f"))
print(mount(d + "/deep", free, None, BIND | REC)); os.chdir(free); f = os.open(".", os.O_RDONLY)
print(umount(free, DETACH), read("secret/f"), read("/proc/self/fd/%d/secret/f" % f), do(lambda: os.open("secret/f", os.O_RDONLY, dir_fd=f)), do(os.rename, "secret", "x")); os.chdir(d); os.close(f)
print(mount("tmpfs", "/", "tmpfs"), mount(free, "/", None, BIND))
print(mount("open", free, None, BIND), mount(None, free, None, REMOUNT, "commit=30"), mount(None, free, None, REMOUNT | BIND, "commit=30"), mount(None, free, None, REMOUNT | RDONLY), do(os.mkdir, free + "/x"), umount(free))
`

// LockedWant is what it prints as root. A user's EACCES is none's ENOENT.
const LockedWant = `EPERM EPERM EPERM EPERM EPERM
EINVAL EINVAL EINVAL EINVAL EINVAL
ok [] ENOENT EPERM EPERM
EBUSY EINVAL ok ENOENT ok ok ENOENT
ok [] ok
ok EROFS EPERM EROFS open ok
ok [] ok ENOENT
ok ENOENT ENOENT ok EINVAL ENOENT
ok EINVAL ok ok ENOENT EPERM EBUSY ok ok ENOENT
ok
ok ENOENT ENOENT ENOENT EBUSY
EBUSY EBUSY
ok EPERM ok ok EROFS ok
`

// LockedWantUser is what it prints as an ordinary user.
const LockedWantUser = `EPERM EPERM EPERM EPERM EPERM
EINVAL EINVAL EINVAL EINVAL EINVAL
ok EACCES EACCES EPERM EPERM
EBUSY EINVAL ok EACCES ok ok ENOENT
ok EACCES ok
ok EROFS EPERM EROFS open ok
ok [] ok EACCES
ok EACCES ENOENT ok EINVAL EACCES
ok EINVAL ok ok EACCES EPERM EBUSY ok ok EACCES
ok
ok EACCES EACCES EACCES EBUSY
EBUSY EBUSY
ok EPERM ok ok EROFS ok
`
