// SPDX-License-Identifier: Apache-2.0

// Copy on write under programs that do not forgive, with both engines: databases that are
// killed, a build, a full disk.

package viewtest_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"umrun/view/viewtest"
)

// otherEngine is the one that is not this.
var otherEngine = map[string]string{"trap": "ns", "ns": "trap"}

// eachEngine runs a test with both, as the ordinary user, in a directory of its own.
func eachEngine(t *testing.T, f func(t *testing.T, w *viewtest.World, engine, dir string)) {
	w := viewtest.New(t)
	for _, engine := range []string{"trap", "ns"} {
		t.Run(engine, func(t *testing.T) { f(t, w, engine, mountTree(t, w, true)) })
	}
	w.NoStrays(t)
}

// onCow prepares a script that the user runs in DIR/dst, which is covered after the mounts
// that are given.
func onCow(t testing.TB, w *viewtest.World, engine, dir, script string, mounts ...string) *viewtest.Cmd {
	t.Helper()
	args := []string{"-q", "-n", "none", "--no-proc", "--fs-engine", engine}
	for _, m := range append(mounts, "cow:"+dir+"/up:"+dir+"/dst") {
		args = append(args, "-m", m)
	}
	u := umrunAs(t, w, true, append(args, "--", "sh", "-ec", script)...)
	u.Dir = filepath.Join(dir, "dst")
	return u
}

// ok runs it, and returns what it prints.
func ok(t testing.TB, c *viewtest.Cmd) string {
	t.Helper()
	r := c.Result()
	if r.Status != 0 {
		t.Fatal(r)
	}
	return r.Stdout
}

// killView kills umrun with all that it runs, as a power cut would.
func killView(t testing.TB, w *viewtest.World, u *viewtest.Cmd) {
	t.Helper()
	for _, pid := range append([]int{u.Process.Pid}, w.Host.Pids()...) {
		syscall.Kill(pid, syscall.SIGKILL) // a server outlives umrun, without a network
	}
	u.Wait()
	gone(t, w, 20*time.Second)
}

// asUserOnHost runs a script as the user without a view.
func asUserOnHost(t testing.TB, w *viewtest.World, dir, script string) string {
	t.Helper()
	c := w.HostCmd(context.Background(), "sh", "-ec", script).AsUser(w.Home())
	c.Dir = dir
	return ok(t, c)
}

// TestIntegrationCowSQLite kills a writer in the middle: what it was told is committed is
// there in the next view, by either engine, the database is whole, and the real one as it
// was.
func TestIntegrationCowSQLite(t *testing.T) {
	viewtest.Need(t, "python3")
	eachEngine(t, func(t *testing.T, w *viewtest.World, engine, dir string) {
		makeDatabase(t, w, dir+"/dst")
		sum := treeSum(t, dir+"/dst")
		killWriter(t, w, engine, dir, []string{"delete", "wal", "delete", "wal"})
		if treeSum(t, dir+"/dst") != sum {
			t.Error("the real tree has changed")
		}
	})
}

// TestIntegrationCowImageSQLite is that with a database that is in an image.
func TestIntegrationCowImageSQLite(t *testing.T) {
	viewtest.Need(t, "python3", "mksquashfs")
	eachEngine(t, func(t *testing.T, w *viewtest.World, engine, dir string) {
		openFUSE(t, w)
		ownMemory(t, w) // who is killed leaves its copies there
		makeDatabase(t, w, dir+"/src")
		w.Host.MustRun(t, "mksquashfs", dir+"/src", dir+"/image", "-quiet", "-no-progress")
		image, was := "image:"+dir+"/image:"+dir+"/dst", readFile(t, dir+"/image")
		killWriter(t, w, engine, dir, []string{"delete", "wal"}, image)
		if readFile(t, dir+"/image") != was {
			t.Error("the image has changed")
		}
	})
}

// makeDatabase makes one of 1000 rows in dir, and a program that goes on to write to it.
func makeDatabase(t *testing.T, w *viewtest.World, dir string) {
	t.Helper()
	asUserOnHost(t, w, dir, `python3 -c '
import sqlite3
c = sqlite3.connect("x.db")
c.execute("create table t (a integer primary key, b text)")
c.executemany("insert into t values (?, ?)", ((i, "z" * 900) for i in range(1000)))
c.commit()'`)
	const writer = `import sqlite3
c = sqlite3.connect("x.db")
n = c.execute("select count(*) from t").fetchone()[0]
while True:
    c.execute("insert into t values (?, ?)", (n, "x" * 500))
    c.execute("update t set b = 'y' where a = ?", (n // 2,))
    c.commit()
    print(n, flush=True)
    n += 1
`
	if err := os.WriteFile(dir+"/writer.py", []byte(writer), 0o644); err != nil {
		t.Fatal(err)
	}
}

// lookDatabase is a script that tells whether x.db is whole, how many rows it has, and the
// number after the last.
const lookDatabase = `python3 -c '
import sqlite3
c = sqlite3.connect("x.db")
print(c.execute("pragma integrity_check").fetchone()[0], *c.execute("select count(*), max(a) + 1 from t").fetchone())'`

// lastTold is the last number that a writer has printed.
func lastTold(t *testing.T, u *viewtest.Cmd) int {
	t.Helper()
	told := strings.Fields(u.Output())
	last, err := strconv.Atoi(told[len(told)-1])
	if err != nil {
		t.Fatal(err)
	}
	return last
}

// killWriter kills the writer once for each journal, in DIR/dst, which is covered after the
// mounts that are given, and looks what is left.
func killWriter(t *testing.T, w *viewtest.World, engine, dir string, journals []string, mounts ...string) {
	t.Helper()
	rows := 1000
	for round, journal := range journals {
		viewer := engine
		if round < 2 {
			viewer = otherEngine[engine]
		}
		ok(t, onCow(t, w, engine, dir, `python3 -c 'import sqlite3; sqlite3.connect("x.db").execute("pragma journal_mode=`+journal+`")'`, mounts...))
		u := start(t, onCow(t, w, engine, dir, "exec python3 writer.py", mounts...))
		awaitOutput(t, u, fmt.Sprintf("\n%d\n", rows+8))
		killView(t, w, u)
		last := lastTold(t, u)
		got := ok(t, onCow(t, w, viewer, dir, lookDatabase, mounts...))
		var n, next int
		if _, err := fmt.Sscanf(got, "ok %d %d\n", &n, &next); err != nil || n != next || n <= last {
			t.Errorf("%s, then %s: %d was committed, and the database is %q", journal, viewer, last, got)
		}
		rows = n
	}
}

// pgBooks ends a psql's line that tells whether pgbench's books balance (t|t), and the server.
const pgBooks = `-Atc '
select (select sum(bbalance) from pgbench_branches) = (select sum(delta) from pgbench_history) and
	(select sum(abalance) from pgbench_accounts) = (select sum(tbalance) from pgbench_tellers), count(*) > 20 from pgbench_history' postgres
kill -INT $pg; wait $pg`

// TestIntegrationCowPostgres kills a server under load: it recovers in the next view, by the
// other engine, the books balance, and the real cluster is as it was.
func TestIntegrationCowPostgres(t *testing.T) {
	if _, err := os.Stat(postgresBin + "pgbench"); err != nil {
		t.Skip("no PostgreSQL: make programs installs it")
	}
	eachEngine(t, func(t *testing.T, w *viewtest.World, engine, dir string) {
		asUserOnHost(t, w, dir+"/dst", postgresBin+"initdb -D pg -A trust -U lab --no-sync --locale=C >/dev/null; mkdir -m 700 sock")
		sum := treeSum(t, dir+"/dst")
		const in = " -h /tmp/cow-pg -U lab "
		server := "rm -rf /tmp/cow-pg; mkdir -m 700 /tmp/cow-pg; " + postgresBin + "postgres -D pg -k /tmp/cow-pg -c listen_addresses= -c dynamic_shared_memory_type=mmap -c log_min_messages=error & pg=$!; " +
			"while ! " + postgresBin + "pg_isready -q -h /tmp/cow-pg; do sleep 0.1; done; "
		server = strings.ReplaceAll(server, "/tmp/cow-pg", dir+"/s")
		bench, psql := postgresBin+"pgbench"+strings.ReplaceAll(in, "/tmp/cow-pg", dir+"/s"), postgresBin+"psql -X"+strings.ReplaceAll(in, "/tmp/cow-pg", dir+"/s")
		u := start(t, onCow(t, w, engine, dir, server+bench+"-i -q -s 1 postgres 2>/dev/null; "+bench+"-c 4 -j 2 -T 30 -n -P 1 postgres 2>&1"))
		awaitOutput(t, u, "progress: 1.")
		killView(t, w, u)
		got := ok(t, onCow(t, w, otherEngine[engine], dir, "rm -f pg/postmaster.pid; "+server+psql+pgBooks))
		if got != "t|t\n" {
			t.Errorf("after the recovery: %q", got)
		}
		if treeSum(t, dir+"/dst") != sum {
			t.Error("the real tree has changed")
		}
	})
}

// TestIntegrationCowClone clones, builds and tests a C project in the tree that is covered,
// and changes the repository that it came from.
func TestIntegrationCowClone(t *testing.T) {
	viewtest.Need(t, "git", "gcc", "make")
	eachEngine(t, func(t *testing.T, w *viewtest.World, engine, dir string) {
		asUserOnHost(t, w, dir+"/dst", `mkdir repo; cd repo; git init -q .
printf 'int add(int, int);\nint main(void) { return add(2, 3) != 5; }\n' >main.c
echo 'int add(int a, int b) { return a + b; }' >add.c
printf 'prog: main.o add.o\n\tcc -o $@ $^\ntest: prog\n\t./prog && touch tested\n' >Makefile
git add .; git -c user.name=x -c user.email=x@x commit -qm one`)
		sum := treeSum(t, dir+"/dst")
		got := ok(t, onCow(t, w, engine, dir, `git clone -q "file://$PWD/repo" clone
cd clone; make -s test; ls; echo '// more' >>add.c; make -s test; git diff --stat
git -c user.name=x -c user.email=x@x commit -qam two; git push -q origin HEAD:other; git clean -qfdx; ls
cd ../repo; git gc -q; git fsck; git log --oneline other | wc -l; mv .git moved; rm -r main.c moved; ls`))
		want := "Makefile\nadd.c\nadd.o\nmain.c\nmain.o\nprog\ntested\n add.c | 1 +\n 1 file changed, 1 insertion(+)\nMakefile\nadd.c\nmain.c\n2\nMakefile\nadd.c\n"
		if got != want {
			t.Errorf("want %q\n got %q", want, got)
		}
		if treeSum(t, dir+"/dst") != sum {
			t.Error("the real tree has changed")
		}
	})
}

// TestIntegrationCowFull: of a disk that is full the program is told, and what was there
// before stays.
func TestIntegrationCowFull(t *testing.T) {
	viewtest.Need(t, "unshare")
	w := viewtest.New(t)
	for _, engine := range []string{"trap", "ns"} {
		dir := mountTree(t, w, false)
		if err := os.WriteFile(dir+"/dst/big", make([]byte, 4<<20), 0o644); err != nil {
			t.Fatal(err)
		}
		sum := treeSum(t, dir+"/dst")
		umrun := fmt.Sprintf("%s -q -n none --no-proc --fs-engine %s -m cow:%s/up:%s/dst -- ", viewtest.Binary(t), engine, dir, dir)
		r := w.HostCmd(context.Background(), "unshare", "-m", "sh", "-c", fmt.Sprintf(`mkdir %s/up; mount -t tmpfs -o size=1m none %[1]s/up; cd %[1]s/dst
%[2]s sh -c 'echo kept >>a; echo x >>big; dd if=/dev/zero of=new bs=100k count=40 2>&1 | head -1; cat a; wc -c <big; rm new; echo more >>a && rm b && ls'
%[2]s sh -c 'cat a; wc -c <big; ls'`, dir, umrun)).Result()
		want := `dd: error writing 'new': No space left on device
target a
kept
4194304
a
big
target a
kept
more
4194304
a
big
`
		if r.Stdout != want || !regexp.MustCompile(`(?i)big: No space left on device`).MatchString(r.Stderr) {
			t.Errorf("%s: %v", engine, r)
		}
		if treeSum(t, dir+"/dst") != sum {
			t.Error("the real tree has changed")
		}
	}
	w.NoStrays(t)
}

// copying opens a large file for writing, with a timer, while
// another thread looks at files.
const copying = `import ctypes, os, signal, threading, time
signal.signal(signal.SIGALRM, lambda *_: None)
signal.siginterrupt(signal.SIGALRM, False)
begun, longest, calls, done = time.monotonic(), 0, 0, False
def look():
    global longest, calls
    while not done:
        t = time.monotonic()
        os.stat("a"); os.listdir("."); open("b").close(); os.utime("a")
        longest, calls = max(longest, time.monotonic() - t), calls + 1
looking = threading.Thread(target=look)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
looking.start()
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
signal.setitimer(signal.ITIMER_REAL, INTERVAL, INTERVAL)
libc = ctypes.CDLL(None, use_errno=True)
fd = libc.open(b"big", os.O_WRONLY | os.O_APPEND)
error, took = ctypes.get_errno(), time.monotonic() - begun
signal.setitimer(signal.ITIMER_REAL, 0)
done = True
looking.join()
assert fd >= 0, os.strerror(error)
os.write(fd, b"end")
assert os.stat("big").st_size == SIZE + 3
print(calls, "%.6f %.6f" % (longest, took))
`

// TestIntegrationCowLarge: while a large file is copied, since somebody wants to write to it,
// other path calls go on and no signal ends the open. If who wanted it is gone, so is the copy.
func TestIntegrationCowLarge(t *testing.T) {
	viewtest.Need(t, "python3")
	const size = 200 << 20
	eachEngine(t, func(t *testing.T, w *viewtest.World, engine, dir string) {
		asUserOnHost(t, w, dir+"/dst", fmt.Sprintf("head -c %d /dev/zero | tr '\\0' x >big", size))
		interval := "0.02"
		if engine == "ns" {
			interval = "0" // docs/limits.md
		}
		if err := os.WriteFile(dir+"/dst/copying.py", []byte(strings.NewReplacer("SIZE", strconv.Itoa(size), "INTERVAL", interval).Replace(copying)), 0o644); err != nil {
			t.Fatal(err)
		}
		if engine == "trap" { // the kernel's copy does not end
			u := start(t, onCow(t, w, engine, dir, `sh -c 'echo x >>big' & while ! [ -s ../up/work/copies/* ]; do :; done; kill -9 $!; wait $! || echo killed; read x`))
			awaitOutput(t, u, "killed")
			viewtest.Eventually(t, 10*time.Second, func() error {
				copies, err := os.ReadDir(dir + "/up/work/copies")
				if len(copies) > 0 {
					err = fmt.Errorf("left: %v", copies)
				}
				return err
			})
			if _, err := os.Stat(dir + "/up/upper/big"); err == nil {
				t.Error("it was copied for nobody")
			}
			killView(t, w, u)
		}
		got := ok(t, onCow(t, w, engine, dir, "exec python3 copying.py"))
		var calls int
		var longest, took float64
		if _, err := fmt.Sscan(got, &calls, &longest, &took); err != nil {
			t.Fatal(err, got)
		}
		t.Logf("%d rounds of path calls while a copy took %.0f ms, the longest %.1f ms", calls, took*1e3, longest*1e3)
		if calls < 10 { // one or two where they wait
			t.Errorf("%d rounds of path calls, the longest %.3f s, while a copy took %.3f s", calls, longest, took)
		}
	})
}

// TestIntegrationCowOthers: what belongs to others can be written in an ordinary user's cow if it can
// be natively, and not if it cannot.
func TestIntegrationCowOthers(t *testing.T) {
	w := viewtest.New(t)
	for _, tc := range []struct{ name, make, script, want, engine string }{
		{"a file", "echo old >theirs; chmod 666 theirs", "echo new >>theirs; cat theirs", "old\nnew\n", "trap"},
		{"one of another group", "mkdir in; echo old >in/f; chown -R 61234:4 in", "echo new >>in/f; mkdir in/d; cat in/f; ls in", "old\nnew\nd\nf\n", "trap"},
		{"a directory", "mkdir -m 1777 shared; mkdir -m 755 shut", "echo x >shared/x; mkdir shared/y; ls shared; echo x >shut/x || echo no", "x\ny\nno\n", "trap"},
		{"nothing", "echo theirs >theirs; mkdir of; echo x >of/x", "(echo x >theirs) || echo no; rm of/x || echo no; cat theirs", "no\nno\ntheirs\n", "ns"},
		{"a directory of the system's", "", "mkdir /run/lock/umrun-lab && echo made; rmdir /run/lock/umrun-lab", "made\n", "ns"},
		{"the system's", "", "touch /usr/umrun-lab /home/umrun-lab || echo no; (echo x >>/etc/hosts) || echo no", "no\nno\n", "ns"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, where := range []string{"native", "auto", "trap"} {
				dir := mountTree(t, w, true)
				w.Host.MustRun(t, "sh", "-ec", "cd "+dir+"/dst; "+tc.make)
				c := w.HostCmd(context.Background(), "sh", "-c", tc.script).AsUser(w.Home())
				if where != "native" {
					flags := []string{"-q", "-n", "none", "--fs-engine", where, "-m", "cow::/"}
					if where == "auto" {
						r := umrunAs(t, w, true, append(flags, "--dry-run", "--", "true")...)
						r.Dir = dir + "/dst"
						if got := ok(t, r); !strings.Contains(got, `"engine": "`+tc.engine+`"`) {
							t.Errorf("the engine is not %s: %s", tc.engine, got)
						}
					}
					c = umrunAs(t, w, true, append(flags, "--", "sh", "-c", tc.script)...)
				}
				c.Dir = dir + "/dst"
				if r := c.Result(); r.Stdout != tc.want {
					t.Errorf("%s: want %q, got %v", where, tc.want, r)
				}
			}
		})
	}
	w.NoStrays(t)
}

// TestIntegrationCowOfMany: a cow of a directory with more names than there may be descriptors, in
// which something is mounted: for an ordinary user each name has a mount of its own.
func TestIntegrationCowOfMany(t *testing.T) {
	w := viewtest.New(t)
	dir := mountTree(t, w, true)
	sub := filepath.Join(dir, "dst", "sub")
	if err := os.Mkdir(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := w.Host.Tmpfs(sub); err != nil {
		t.Fatal(err)
	}
	w.Host.MustRun(t, "sh", "-c", fmt.Sprintf("cd %s && mkdir -p $(seq -f d%%g 250) && touch $(seq -f f%%g 250) && chown -R %d:%d .", filepath.Join(dir, "dst"), viewtest.UID, viewtest.GID))
	u := w.HostCmd(t.Context(), "sh", "-c", "ulimit -n 400 && exec \"$@\"", "sh", viewtest.Binary(t), "-q", "-n", "none", "--fs-engine", "ns", "-m", "cow::"+dir+"/dst", "--",
		"sh", "-c", "cd "+dir+"/dst; ls | wc -l; echo new >d7/new; echo new >sub/new; cat d7/new sub/new").AsUser(w.Home())
	if r := u.Result(); r.Stdout != "503\nnew\nnew\n" {
		t.Errorf("got %v", r)
	}
	if got := w.Host.MustRun(t, "ls", filepath.Join(dir, "dst/d7"), sub); strings.Contains(got, "new") {
		t.Errorf("the host has %q", got)
	}
}
