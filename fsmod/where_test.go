// SPDX-License-Identifier: Apache-2.0

// Attempts to be taken for somebody who stands elsewhere.

package fsmod_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// standing is a script for a directory with a/f, b/f and c/f, of one byte, two and three. A
// thread that has looked some times is known to stand where it is: look says which of the
// directories that is.
const standing = threads + `
os.chdir(sys.argv[1])
FS = 0x200
def look():
    seen = {os.lstat("f").st_size for _ in range(4)} | {os.lstat("d/f").st_size for _ in range(4)} | {os.lstat("f").st_size}
    return "-abc"[seen.pop()] if len(seen) == 1 else "?"
fds = {n: os.open("../" + n, os.O_RDONLY) for n in "abc"}
def go(n): os.chdir("../" + n)
def fgo(n): os.fchdir(fds[n])
def case(name, *seen): print(name, *seen, flush=True)

case("begin", look())
t = Thread()
case("a thread", t.do(look), look())
go("b"); case("chdir of another", t.do(look), look())
t.do(lambda: go("c")); case("and the other way", look(), t.do(look))
fgo("a"); case("fchdir of another", t.do(look), look())
t.do(lambda: fgo("b")); case("and the other way", look(), t.do(look))
case("fchdir that fails", [1 for _ in range(3) if libc.fchdir(999) == 0], look())
case("fork", child(lambda: (look(), go("c"), look())), look())
case("CLONE_FS", child(lambda: (look(), go("c"), look()), FS), look(), t.do(look))
case("CLONE_FS, fchdir", child(lambda: (look(), fgo("a"), look()), FS), look(), t.do(look))
own = Thread(); own.do(look); own.do(lambda: call(272, FS))
own.do(lambda: go("b")); case("unshare", own.do(look), look(), t.do(look))
go("c"); case("unshare, the other way", own.do(look), look(), t.do(look))
def spawn(*a, **k):
    import subprocess
    return subprocess.run(a, capture_output=True, text=True, **k).stdout.strip()
case("vfork", spawn("stat", "-c", "%s", "f", "f", "f", cwd="../a").split(), look())

# Whoever goes, others see it when it is over.
def race(mover, moves, times):
    at, wrong, end = [None], [0], []
    def see():
        while not end:
            before = at[0]; size = os.lstat("f").st_size
            if before is not None and at[0] is before and "-abc"[size] != before[0]: wrong[0] += 1
    ts = [threading.Thread(target=see) for _ in range(3)]
    for x in ts: x.start()
    for i in range(times):
        n = "ab"[i % 2]; at[0] = None; mover(lambda: moves(n)); at[0] = [n]; time.sleep(0.0005)
    end.append(1)
    for x in ts: x.join()
    return wrong[0]
here = lambda f: f()
case("race of fchdir", race(here, fgo, 300), race(t.do, fgo, 300))
case("race of chdir", race(here, go, 60), race(t.do, go, 60))

# A thread that is not the leader becomes the leader by execve.
def execs():
    look(); own = Thread(); own.do(look); own.do(lambda: call(272, FS)); own.do(lambda: go("c")); own.do(look); look()
    own.do(lambda: os.execv("/usr/bin/stat", ["stat", "-c", "%s", "f", "f", "f"]))
def caught(f):
    r, w = os.pipe(); pid = os.fork()
    if pid == 0:
        os.dup2(w, 1); f(); os._exit(1)
    os.close(w); os.waitpid(pid, 0)
    with os.fdopen(r) as got: return got.read().split()
fgo("a"); look(); case("execve of a thread", caught(execs), look())

# A number that was another's: of a child of one who stands in a, then of one who stands in b.
def parent(n):
    ask, asked = os.pipe(); got, tell = os.pipe()
    if os.fork() == 0:
        libc.prctl(1, 9); go(n) # PR_SET_PDEATHSIG
        while os.read(ask, 1):
            r, w = os.pipe(); pid = os.fork()
            if pid == 0:
                os.write(w, look().encode()); os._exit(0)
            os.waitpid(pid, 0); os.write(tell, ("%d %s\n" % (pid, os.read(r, 9).decode())).encode())
        os._exit(0)
    def f():
        os.write(asked, b"x"); pid, seen = os.read(got, 99).split(); return int(pid), seen.decode()
    return f
try: last = os.open("/proc/sys/kernel/ns_last_pid", os.O_WRONLY)
except OSError: last = None
ina, inb, same = parent("a"), parent("b"), None
for _ in range(100 if last else 0):
    pid, seen = ina(); os.pwrite(last, str(pid - 1).encode(), 0); again, now = inb()
    if pid == again: same = seen, now; break
case("the number of another", same or "unknown")

# Names that change do not matter, the directory does.
os.rename("../a", "../moved"); os.mkdir("../a"); open("../a/f", "w").write("xx"); case("renamed", look())
os.rename("../moved/f", "../f1"); os.link("../c/f", "f"); case("another file", os.lstat("f").st_size)
os.mkdir("gone"); os.chdir("gone"); open("f", "w").close(); [os.lstat("f") for _ in range(4)]; os.unlink("f"); os.rmdir("../gone")
try: os.lstat("f"); case("removed", "there")
except OSError as e: case("removed", e.errno)
`

// standLab makes the directories.
func standLab(t *testing.T, at string) {
	t.Helper()
	for i, name := range []string{"a", "b", "c"} {
		dir := filepath.Join(at, name)
		if err := os.MkdirAll(dir+"/d", 0o755); err != nil {
			t.Fatal(err)
		}
		for _, f := range []string{"/f", "/d/f"} {
			if err := os.WriteFile(dir+f, make([]byte, i+1), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestStanding has threads go elsewhere by every way there is, and compares what they see
// with what they see without umrun.
func TestStanding(t *testing.T) {
	python := "/usr/bin/python3"
	plain := t.TempDir()
	standLab(t, plain)
	native, err := exec.Command(python, "-c", standing, plain+"/a").CombinedOutput()
	if err != nil {
		t.Fatalf("natively: %v\n%s", err, native)
	}
	l := newLab(t)
	standLab(t, l.src)
	got := mountedIn(t, l.dir, l.bind(), python, "-c", standing, l.at+"/a")
	if got != string(native) {
		t.Errorf("got\n%s\nnatively\n%s", got, native)
	}
	if os.Geteuid() == 0 && !strings.Contains(got, "number of another ('a', 'b')") {
		t.Errorf("no number was another's in\n%s", got)
	}
}

// leaving is a script that stands in at/left, and leaves; and one that ends in at/ended.
const leaving = `
import os, sys, time
at = sys.argv[1]
def stand(n):
    os.chdir(at + n)
    for _ in range(9): os.lstat("a/f")
def say(n):
    open(at + "/" + n, "w").close()
    while not os.path.exists(at + "/" + n + "-heard"): time.sleep(0.001)
stand("/left"); os.chdir("/"); say("one")
pid = os.fork()
if pid == 0: stand("/ended"); os._exit(0)
os.waitpid(pid, 0); say("two")
`

// TestStandingBusy takes file systems away that somebody stood in: at once when it has gone
// elsewhere, and soon when it has ended.
func TestStandingBusy(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounts a file system: needs root")
	}
	l := newLab(t)
	for _, at := range []string{l.src + "/left", l.src + "/ended"} {
		if err := os.Mkdir(at, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("none", at, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = unix.Unmount(at, unix.MNT_DETACH) }()
		standLab(t, at)
	}
	var wg sync.WaitGroup
	umount := func(said, at string, within time.Duration) {
		begin := time.Now()
		for _, err := os.Lstat(said); err != nil; _, err = os.Lstat(said) {
			if time.Sleep(time.Millisecond); time.Since(begin) > 30*time.Second {
				t.Errorf("%s is never said", said)
				return
			}
		}
		begin = time.Now()
		for err := unix.Unmount(at, 0); err != nil; err = unix.Unmount(at, 0) {
			if time.Sleep(time.Millisecond); time.Since(begin) > within {
				t.Errorf("%s after %v: %v", at, within, err)
				break
			}
		}
		if err := os.WriteFile(said+"-heard", nil, 0o644); err != nil {
			t.Error(err)
		}
	}
	wg.Go(func() {
		umount(l.src+"/one", l.src+"/left", 0)
		umount(l.src+"/two", l.src+"/ended", 2*time.Second)
	})
	if got := mountedIn(t, l.dir, l.bind(), "/usr/bin/python3", "-c", leaving, l.at); got != "" {
		t.Error(got)
	}
	wg.Wait()
}
