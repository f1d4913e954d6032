// SPDX-License-Identifier: Apache-2.0

// Trees under other credentials than those they were opened with, and without any
// privileges.

package cow

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// asUser runs f with the credentials of an ordinary user, as the trap engine of a
// privileged view does for its programs. The thread goes with its goroutine.
func asUser(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and not unlocked
		must := func(errno unix.Errno) {
			if errno != 0 {
				panic(errno)
			}
		}
		_, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0)
		must(errno)
		_, _ = unix.SetfsgidRetGid(1)
		_, _ = unix.SetfsuidRetUid(1)
		if me := current(); me.uid != 1 || me.gid != 1 {
			panic("setfsuid")
		}
		f()
	}()
	<-done
}

// TestUnprivileged compares a tree with a plain directory, for an ordinary user without a
// user namespace: directories that may not be written or searched among them. Directories
// are not renamed, which a tree says EXDEV to.
func TestUnprivileged(t *testing.T) {
	if os.Getenv("LAB_COW_USER") == "" {
		dir := t.TempDir()
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestUnprivileged$")
		cmd.Env = append(os.Environ(), "LAB_COW_USER="+dir)
		if os.Getuid() == 0 {
			for d := dir; strings.HasPrefix(d, os.TempDir()+"/"); d = filepath.Dir(d) {
				if err := os.Chmod(d, 0o777); err != nil {
					t.Fatal(err)
				}
			}
			bin := filepath.Join(dir, "test")
			if err := copyExecutable(bin); err != nil {
				t.Fatal(err)
			}
			cmd.Path = bin
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1, Gid: 1}, Pdeathsig: unix.SIGKILL}
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("as a user: %v\n%s", err, out)
		}
		return
	}
	seeds := 8
	if n, err := strconv.Atoi(os.Getenv("LAB_COW_SEEDS")); err == nil {
		seeds = n
	}
	for seed := range seeds {
		againstPlain(t, filepath.Join(os.Getenv("LAB_COW_USER"), strconv.Itoa(seed)), uint64(seed))
	}
}

func copyExecutable(to string) error {
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o755)
}

func againstPlain(t *testing.T, dir string, seed uint64) {
	t.Helper()
	for _, d := range []string{dir, dir + "/lower", dir + "/plain"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r := rand.New(rand.NewPCG(seed, 3))
	for _, d := range []string{dir + "/lower/d", dir + "/plain/d"} {
		plantWith(t, d, rand.New(rand.NewPCG(seed, 4)), true)
	}
	plain, err := newThrough(dir + "/plain/d")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.close()
	before := dumpReal(t, dir+"/lower/d")
	ours := open(t, dir+"/lower/d", dir+"/upper")
	var log []string
	for i := range 300 {
		op := randomOp(r)
		if op.what == "chmod" {
			op.mode = []uint32{0o755, 0o555, 0o300, 0o700, 0o400, 0o644}[r.IntN(6)]
		}
		if op.what == "clear" || op.what == "node" || (op.what == "rename" || op.what == "exchange" || op.what == "noreplace") && (isDirectory(plain, op.name) || isDirectory(plain, op.to)) {
			continue
		}
		want, got := op.apply(plain), op.apply(ours)
		log = append(log, op.String()+" = "+want)
		if want != got {
			t.Fatalf("seed %d:\n%s\nplain: %s\n ours: %s", seed, tail(log), want, got)
		}
		if i%20 == 19 {
			compare(t, log, "after these", dump(plain), dump(ours))
		}
	}
	if after := dumpReal(t, dir+"/lower/d"); after != before {
		t.Errorf("the lower layer changed:\n%s", diff(before, after))
	}
}

func isDirectory(fs files, name string) bool {
	fd, err := fs.Open(name, unix.O_PATH|unix.O_DIRECTORY, 0)
	closeAll(fd)
	return err == nil
}
