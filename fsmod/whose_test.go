// SPDX-License-Identifier: Apache-2.0

// Attempts to be taken for somebody with other rights.

package fsmod_test

import (
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"umrun/fsmod/mounttest"
)

// whoLooks begins a script for a directory with files of several owners. A thread that has looked is
// known by its rights: look says which of the files it opens, by their first letters, and
// whether its real user may read root's.
const whoLooks = threads + `
import signal, subprocess
d = sys.argv[1]; os.chdir(d)
KEEP, NEWUSER = -1, 0x10000000
def setuid(u): call(105, ctypes.c_long(u))
def setresuid(*u): call(117, *u)
def setresgid(*g): call(119, *g)
def setreuid(*u): call(113, *u)
def setfsuid(u): return call(122, u)
def setfsgid(g): return call(123, g)
def setgroups(*g): call(116, len(g), (ctypes.c_uint * len(g))(*g))
def caps(low=None):
    h, data = (ctypes.c_uint * 2)(0x20080522, 0), (ctypes.c_uint * 6)()
    call(125, h, data)
    if low is not None: data[0] = low; call(126, h, data)
    return data[0]
def opens(name):
    try: os.close(os.open(name, os.O_RDONLY)); return name[0]
    except PermissionError: return "-"
def look():
    seen = {"".join(opens(n) for n in ("root", "user", "group", "other")) + (os.access(d + "/root", os.R_OK) and "R" or "-") for _ in range(3)}
    return "".join(sorted(seen))
def case(name, *seen): print(name, *seen, flush=True)
`

// whoChanges has threads change what they may do, and back, by each call.
const whoChanges = whoLooks + `
ways = {
    "setfsuid": (lambda: setfsuid(1000), lambda: setfsuid(0)),
    "setresuid": (lambda: setresuid(KEEP, 1000, KEEP), lambda: setresuid(KEEP, 0, KEEP)),
    "setresuid of the real one": (lambda: setresuid(1000, KEEP, KEEP), lambda: setresuid(0, KEEP, KEEP)),
    "setreuid": (lambda: setreuid(0, 1000), lambda: setresuid(0, 0, 0)),
    "setuid": (lambda: (setresuid(KEEP, KEEP, 1000), setresuid(1000, KEEP, KEEP), setuid(1000)), lambda: None),
    "setfsgid": (lambda: (setfsuid(1000), setfsgid(2000)), lambda: (setfsgid(0), setfsuid(0))),
    "setresgid": (lambda: (setresgid(KEEP, 2000, KEEP), setfsuid(1000)), lambda: (setfsuid(0), setresgid(KEEP, 0, KEEP))),
    "setgroups": (lambda: (setfsuid(1000), setgroups(5, 2000)), lambda: (setgroups(), setfsuid(0))),
    "capset": (lambda: caps(caps() & ~6), lambda: caps(all)),
    "capset of a user": (lambda: (setresuid(KEEP, 1000, KEEP), caps(4)), lambda: (setresuid(KEEP, 0, KEEP), caps(all))),
}
all = caps()
case("begin", look())
setresuid(0, 0, 0); setresuid(KEEP, 0, KEEP); setuid(0); setreuid(KEEP, KEEP); case("nothing", look())
setgroups(); case("no groups", look())
for name, (away, back) in ways.items():
    case(name, child(lambda: (look(), away(), look(), back(), look())), look())
    def threads():
        t, o = Thread(), Thread(); seen = [t.do(look), o.do(look)]
        return *seen, t.do(away, look), o.do(look), look(), t.do(lambda: child(look)), child(look), t.do(back, look), o.do(look), look()
    case(name + " of a thread", child(threads))
    def leader():
        t = Thread(); seen = [t.do(look), look()]; away()
        return *seen, t.do(look), look(), back(), look(), t.do(look)
    case(name + " of a leader", child(leader))
    # By execve a thread takes the number of its leader, of whom other rights were known.
    here = [sys.executable, "-c", sys.argv[2] + "print(look(), look())", d]
    def executes():
        t = Thread(); t.do(away, look); look(); t.do(lambda: os.execv(here[0], here))
    def executed():
        t = Thread(); t.do(look); away(); look(); t.do(lambda: os.execv(here[0], here))
    def alone():
        look(); away(); look(); os.execv(here[0], here)
    for f in executes, executed, alone: case(name + ", execve", f.__name__, child(f).strip())

# A leader that looks until another has become the program.
def looking(theirs, own):
    t = Thread(); t.do(theirs, look); own(); look()
    t.todo.put(lambda: (time.sleep(0.002), os.execv(here[0], here)))
    while True: opens("root")
away, back = ways["setresuid"]
case("execve beside a leader", {child(lambda: looking(away, lambda: None)) for _ in range(8)}, {child(lambda: looking(lambda: None, away)) for _ in range(8)})

# What setuid(3) does to all threads.
def everyone():
    ts = [Thread() for _ in range(3)]; seen = []
    for u in 1000, 0, 1000:
        os.setresuid(KEEP, u, KEEP); seen += [look()] + [t.do(look) for t in ts]
    return seen
case("setresuid(3)", child(everyone))
case("spawn", subprocess.run(here, capture_output=True, text=True, user=1000, group=1000, extra_groups=[2000]).stdout.strip(), look())

# User namespaces.
case("unshare", child(lambda: (look(), call(272, NEWUSER), look())), look())
case("clone", child(look, NEWUSER), look())

# A handler of a signal does it, wherever the thread is then: setfsuid(40), of the signal's number.
def signalled(n):
    libc.signal(40, ctypes.cast(libc.setfsuid, ctypes.c_void_p))
    r, w = os.pipe(); os.set_blocking(r, False); me = os.getpid(); wrong = 0
    a, b = os.pipe(); pid = os.fork()
    if pid == 0:
        libc.prctl(1, 9) # PR_SET_PDEATHSIG
        for i in range(n):
            os.read(a, 1); time.sleep(0.0003 + i % 7 * 0.00007); os.kill(me, 40); os.write(w, b"x")
        os._exit(0)
    for _ in range(n):
        setfsuid(0)
        if opens("root") != "r": wrong += 1
        os.write(b, b"x"); was = "r"
        while True:
            try: os.read(r, 1); break
            except BlockingIOError: pass
            now = opens("root")
            if now > was: wrong += 1 # "-" is before "r"
            was = now
        if opens("root") != "-" or opens("root") != "-": wrong += 1
    os.waitpid(pid, 0)
    return wrong
case("by a signal", child(lambda: signalled(150)))

# All do it at once, and know what they may do.
def race():
    wrong = [0]
    def flips(user):
        for _ in range(100):
            setfsuid(user); wrong[0] += (opens("root") == "r") + (opens("root") == "r")
            setfsuid(0); wrong[0] += (opens("root") == "-") + (opens("root") == "-")
    ts = [threading.Thread(target=flips, args=(1000 + i,)) for i in range(3)]
    for x in ts: x.start()
    for x in ts: x.join()
    return wrong[0]
case("race", child(race))

# A number that was another's: of a child of root's, then of a user's, and the other way.
def parent(away):
    ask, asked = os.pipe(); got, tell = os.pipe()
    if os.fork() == 0:
        libc.prctl(1, 9); away(); libc.prctl(1, 9)
        while os.read(ask, 1):
            r, w = os.pipe(); pid = os.fork()
            if pid == 0:
                os.write(w, look().encode()); os._exit(0)
            os.waitpid(pid, 0); os.write(tell, ("%d %s\n" % (pid, os.read(r, 99).decode())).encode()); os.close(r); os.close(w)
        os._exit(0)
    def f():
        os.write(asked, b"x"); pid, seen = os.read(got, 99).split(); return int(pid), seen.decode()
    return f
try: last = os.open("/proc/sys/kernel/ns_last_pid", os.O_WRONLY)
except OSError: last = None
one, two, same = parent(lambda: None), parent(lambda: setresuid(KEEP, 1000, KEEP)), []
for a, b in (one, two), (two, one):
    for _ in range(100 if last else 0):
        pid, seen = a(); os.pwrite(last, str(pid - 1).encode(), 0); again, now = b()
        if pid == again: same.append((seen, now)); break
case("the number of another", same)
`

// whoLab makes the files.
func whoLab(t *testing.T, dir string) {
	t.Helper()
	mounttest.Public(t, dir)
	for name, of := range map[string]struct {
		uid, gid int
		mode     os.FileMode
	}{"root": {0, 0, 0o600}, "user": {1000, 0, 0o600}, "group": {0, 2000, 0o640}, "other": {1001, 0, 0o600}} {
		if err := os.WriteFile(dir+"/"+name, []byte(name), of.mode); err != nil {
			t.Fatal(err)
		}
		if err := unix.Chown(dir+"/"+name, of.uid, of.gid); err != nil {
			t.Fatal(err)
		}
	}
}

// compareWho runs a script natively and with mounts, and compares what it prints.
func compareWho(t *testing.T, script string) {
	t.Helper()
	python := "/usr/bin/python3"
	plain := t.TempDir()
	whoLab(t, plain)
	native, err := exec.Command(python, "-c", script, plain, whoLooks).CombinedOutput()
	if err != nil {
		t.Fatalf("natively: %v\n%s", err, native)
	}
	l := newLab(t)
	whoLab(t, l.src)
	whoLab(t, l.at)
	got := mountedIn(t, l.dir, l.bind(), python, "-c", script, l.at, whoLooks)
	if got != string(native) {
		t.Errorf("got\n%s\nnatively\n%s", got, native)
	}
}

// TestWhose has threads change their rights by every way there is, and compares what they can
// open with what they can without umrun.
func TestWhose(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("an ordinary user's tasks have no rights to change")
	}
	compareWho(t, whoChanges)
}

// TestWhoseFirst has each call be the first one of a view to change something, or nothing.
func TestWhoseFirst(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("an ordinary user's tasks have no rights to change")
	}
	for _, first := range []string{
		"setfsuid(1000)", "setfsgid(2000); setfsuid(1000)", "setgroups(2000); setfsuid(1000)",
		"setresuid(KEEP, 1000, KEEP)", "setresuid(0, 1000, 0)", "setresuid(1000, KEEP, KEEP)", "setresuid(1000, 0, 0)",
		"setresuid(0, 0, 1000); look(); setresuid(1000, KEEP, KEEP); look(); setuid(1000)",
		"setresuid(0, KEEP, 0); look(); setreuid(KEEP, 1000)", "setuid(1000)", "setuid(0); look(); setresgid(2000, 2000, 2000); setresuid(1000, 1000, 1000)",
		"setuid(1 << 32)", "setuid(1000 + (1 << 32))", "caps(0)", "call(272, NEWUSER)",
	} {
		t.Run(first, func(t *testing.T) { compareWho(t, whoLooks+"look(); "+first+"; print(look(), look())\n") })
	}
}
