// SPDX-License-Identifier: Apache-2.0

// Images that are written to, under programs that do not forgive, by either engine: what they
// were told is there is there after a kill, in the next view, and e2fsck has nothing to say.

package viewtest_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"umrun/view/viewtest"
)

// newImage makes an ext4 image of the user's in dir.
func newImage(t testing.TB, w *viewtest.World, dir, size string) {
	t.Helper()
	w.Host.MustRun(t, "sh", "-ec", `PATH=$PATH:/usr/sbin; truncate -s "$1" "$0"; mke2fs -q -t ext4 -F "$0"; chown 61234:61234 "$0"`, dir+"/img", size)
}

// onImage prepares a script that the user runs in DIR/dst, where the image is.
func onImage(t testing.TB, w *viewtest.World, engine, dir, script string) *viewtest.Cmd {
	t.Helper()
	u := umrunAs(t, w, true, "-q", "-n", "none", "--no-proc", "--fs-engine", engine, "-m", "image:"+dir+"/img:"+dir+"/dst:rw", "--", "sh", "-ec", script)
	u.Dir = filepath.Join(dir, "dst")
	return u
}

// clean fails the test if e2fsck finds something in the image.
func clean(t testing.TB, w *viewtest.World, dir string) {
	t.Helper()
	w.Host.MustRun(t, "/usr/sbin/e2fsck", "-fn", dir+"/img")
}

// TestIntegrationImageWritten: an ordinary user's files are the user's own, root's have their
// owners; the image has what was written; nobody else has it meanwhile.
func TestIntegrationImageWritten(t *testing.T) {
	viewtest.Need(t, "fuse2fs", "mke2fs")
	w := viewtest.New(t)
	openFUSE(t, w)
	for _, engine := range []string{"ns", "trap"} {
		dir := mountTree(t, w, true)
		newImage(t, w, dir, "32M")
		got := ok(t, onImage(t, w, engine, dir, `umask 022; echo one >a; mkdir d; ln a d/b; mv a c; printf '#!/bin/sh\necho ran\n' >p; chmod 755 p; ./p; stat -c '%u %g %h %n' c d lost+found; rm -r lost+found`))
		if want := "ran\n61234 61234 2 c\n61234 61234 2 d\n61234 61234 2 lost+found\n"; got != want {
			t.Errorf("%s: %q", engine, got)
		}
		clean(t, w, dir)
		first := start(t, onImage(t, w, engine, dir, "echo ready; exec sleep 50"))
		awaitOutput(t, first, "ready\n")
		if r := onImage(t, w, engine, dir, "true").Result(); r.Status != 122 || !strings.Contains(r.Stderr, "it is mounted already\n") {
			t.Errorf("%s, two who write: %v", engine, r)
		}
		read := []string{"-q", "-n", "none", "--fs-engine", engine, "-m", "image:" + dir + "/img:" + dir + "/dst", "--", "cat", dir + "/dst/d/b"}
		if r := umrunAs(t, w, true, read...).Result(); r.Status != 122 || !strings.Contains(r.Stderr, "it is mounted already, to be written to\n") {
			t.Errorf("%s, one who reads: %v", engine, r)
		}
		first.Process.Signal(syscall.SIGTERM)
		first.Wait()
		if got := ok(t, umrunAs(t, w, true, read...)); got != "one\n" {
			t.Errorf("%s: what is read is %q", engine, got)
		}
		as := `cd ` + dir + `/dst; echo two >r; chmod 600 r; chown 0:0 c; mkdir t; chmod 777 t; umask 0; setpriv --reuid 5555 --regid 5555 --clear-groups sh -c 'cat r || echo x >t/x'; stat -c '%u %a %n' r t/x c`
		r := umrunAs(t, w, false, "-q", "-n", "none", "--fs-engine", engine, "-m", "image:"+dir+"/img:"+dir+"/dst:rw", "--", "sh", "-c", as).Result()
		if r.Stdout != "0 600 r\n5555 666 t/x\n0 644 c\n" {
			t.Errorf("%s, root: %v", engine, r)
		}
		clean(t, w, dir)
	}
	dir := mountTree(t, w, true)
	tools := filepath.Join(dir, "no tools")
	if err := os.Mkdir(tools, 0o755); err != nil {
		t.Fatal(err)
	}
	newImage(t, w, dir, "4M")
	u := onImage(t, w, "ns", dir, "true")
	u.Env = append(u.Env, "PATH="+tools)
	if r := u.Result(); r.Status != 123 || !regexp.MustCompile(`writing to ext4 takes fuse2fs, which is not installed\n  try: apt-get install fuse2fs    or: .*-m cow:`).MatchString(r.Stderr) {
		t.Errorf("without the tool: %v", r)
	}
	w.NoStrays(t)
}

// TestIntegrationImageFull: the program is told that there is no more room, in the image or on
// the disk under it, and umrun says of an image that could not be unmounted.
func TestIntegrationImageFull(t *testing.T) {
	viewtest.Need(t, "fuse2fs", "mke2fs")
	w := viewtest.New(t)
	openFUSE(t, w)
	dir := mountTree(t, w, true)
	newImage(t, w, dir, "4M")
	got := ok(t, onImage(t, w, "ns", dir, `echo kept >a; dd if=/dev/zero of=big bs=64k 2>&1 | head -1; cat a`))
	if got != "dd: error writing 'big': No space left on device\nkept\n" {
		t.Errorf("%q", got)
	}
	clean(t, w, dir)
	var err error
	w.Host.Do(func() { err = unix.Mount("tmpfs", dir+"/src", "tmpfs", 0, "mode=777,size=3m") })
	if err != nil {
		t.Fatal(err)
	}
	w.Host.MustRun(t, "sh", "-ec", `cd "$0"; PATH=$PATH:/usr/sbin; rm img; truncate -s 64M src/img; mke2fs -q -t ext4 -O ^has_journal -E lazy_itable_init=1 -F src/img; chmod 666 src/img; ln -s src/img img`, dir)
	r := onImage(t, w, "ns", dir, `dd if=/dev/zero of=big bs=64k count=100 conv=fsync || echo told`).Result()
	if r.Stdout != "told\n" || !regexp.MustCompile(`umrun: -m .*: it was not unmounted: not all that was written may be there \(e2fsck -p .*/img\); it said last: fuse2fs: No space left on device`).MatchString(r.Stderr) {
		t.Errorf("a full disk: %v", r)
	}
}

// TestIntegrationImageSQLite kills a writer in the middle. With umrun alone killed, all that was
// committed is there and the image is whole as it is; with fuse2fs killed too, as in a power
// cut, what SQLite had synced is, once the next view has had e2fsck look. There is a difference
// to ext4 (docs/limits.md): to sync a directory does nothing, and a transaction that is committed by
// removing its journal may come to be undone.
func TestIntegrationImageSQLite(t *testing.T) {
	viewtest.Need(t, "python3", "fuse2fs", "mke2fs")
	const writer = `import sqlite3, sys
c = sqlite3.connect("x.db")
c.execute("pragma journal_mode=" + sys.argv[1])
c.execute("pragma synchronous=extra")
c.execute("create table if not exists t (a integer primary key, b text)")
n = c.execute("select count(*) from t").fetchone()[0]
while True:
    c.execute("insert into t values (?, ?)", (n, "x" * 500))
    c.execute("update t set b = 'y' where a = ?", (n // 2,))
    c.commit()
    print(n, flush=True)
    n += 1
`
	w := viewtest.New(t)
	openFUSE(t, w)
	ownMemory(t, w) // who is killed with its helper leaves a directory there
	for _, engine := range []string{"trap", "ns"} {
		dir := mountTree(t, w, true)
		newImage(t, w, dir, "64M")
		if err := os.WriteFile(dir+"/src/writer.py", []byte(writer), 0o644); err != nil {
			t.Fatal(err)
		}
		rows := 0
		for round, journal := range []string{"delete", "wal", "delete", "wal"} {
			u := start(t, onImage(t, w, engine, dir, "exec python3 "+dir+"/src/writer.py "+journal))
			awaitOutput(t, u, fmt.Sprintf("\n%d\n", rows+20))
			if round < 2 {
				syscall.Kill(u.Process.Pid, syscall.SIGKILL)
				u.Wait()
				gone(t, w, 50*time.Second)
				clean(t, w, dir)
			} else {
				killView(t, w, u)
			}
			last := lastTold(t, u)
			got := ok(t, onImage(t, w, otherEngine[engine], dir, lookDatabase))
			var n, next int
			undone := 0
			if round >= 2 && journal == "delete" {
				undone = 1
			}
			if _, err := fmt.Sscanf(got, "ok %d %d\n", &n, &next); err != nil || n != next || n+undone <= last {
				t.Errorf("%s, %s, round %d: %d was committed, and the database is %q", engine, journal, round, last, got)
			}
			rows = n
			clean(t, w, dir)
		}
	}
	w.NoStrays(t)
}

// TestIntegrationImagePostgres kills a server under load, first umrun alone and then everything:
// it recovers in the next view, by the other engine, and the books balance.
func TestIntegrationImagePostgres(t *testing.T) {
	if _, err := os.Stat(postgresBin + "pgbench"); err != nil {
		t.Skip("no PostgreSQL: make programs installs it")
	}
	viewtest.Need(t, "fuse2fs", "mke2fs")
	w := viewtest.New(t)
	openFUSE(t, w)
	ownMemory(t, w) // who is killed with its helper leaves a directory there
	for _, engine := range []string{"trap", "ns"} {
		dir := mountTree(t, w, true)
		newImage(t, w, dir, "400M")
		in := " -h " + dir + "/s -U lab "
		server := "rm -rf " + dir + "/s pg/postmaster.pid; mkdir -m 700 " + dir + "/s; " + postgresBin + "postgres -D pg -k " + dir + "/s -c listen_addresses= -c dynamic_shared_memory_type=mmap -c log_min_messages=error & pg=$!; " +
			"while ! " + postgresBin + "pg_isready -q -h " + dir + "/s; do sleep 0.1; done; "
		bench, psql := postgresBin+"pgbench"+in, postgresBin+"psql -X"+in
		ok(t, onImage(t, w, engine, dir, postgresBin+"initdb -D pg -A trust -U lab --no-sync --locale=C >/dev/null; "+server+bench+"-i -q -s 1 postgres 2>/dev/null; kill -INT $pg; wait $pg"))
		for _, everything := range []bool{false, true} {
			u := start(t, onImage(t, w, engine, dir, server+bench+"-c 4 -j 2 -T 30 -n -P 1 postgres 2>&1"))
			awaitOutput(t, u, "progress: 1.")
			if everything {
				killView(t, w, u)
			} else {
				syscall.Kill(u.Process.Pid, syscall.SIGKILL)
				u.Wait()
				for _, pid := range w.Host.Pids() { // the server outlives umrun, without a network
					if name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); string(name) == "postgres\n" || string(name) == "pgbench\n" {
						syscall.Kill(pid, syscall.SIGKILL)
					}
				}
				gone(t, w, 50*time.Second)
				clean(t, w, dir)
			}
			got := ok(t, onImage(t, w, otherEngine[engine], dir, server+psql+pgBooks))
			if got != "t|t\n" {
				t.Errorf("%s, everything killed: %v: after the recovery: %q", engine, everything, got)
			}
			clean(t, w, dir)
		}
	}
	w.NoStrays(t)
}
