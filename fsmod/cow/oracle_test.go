// SPDX-License-Identifier: Apache-2.0

// The kernel's overlayfs as oracle: random sequences of operations on it and on a tree of
// this package, the results compared errno by errno, and then the trees; and each of the
// two goes on with what the other has left.

package cow

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	unix.Umask(0) // as the process that serves trees has it
	goleak.VerifyTestMain(m)
}

// inNamespace runs the test again in a user and mount namespace of its own, or only in a
// mount namespace for root, and reports whether this is that run.
func inNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv("LAB_COW_CHILD") != "" {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Fatal(err)
		}
		return true
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v="+strconv.FormatBool(testing.Verbose()), "-test.timeout=30m")
	cmd.Env = append(os.Environ(), "LAB_COW_CHILD=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("in a mount namespace: %v\n%s", err, out)
	}
	if testing.Verbose() {
		t.Logf("%s", out)
	}
	if strings.Contains(string(out), "--- SKIP") {
		t.Skip("in a mount namespace: skipped")
	}
	return false
}

// mountOverlay mounts an overlayfs and opens its root.
func mountOverlay(t *testing.T, lower, upper string) *through {
	t.Helper()
	at := filepath.Join(t.TempDir(), "merged")
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	opts := "lowerdir=" + lower + ",userxattr"
	if upper != "" {
		top, _, _ := strings.Cut(lower, ":")
		u, err := OpenUpper(upper, top)
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		opts += ",upperdir=" + upper + "/upper,workdir=" + upper + "/work"
	}
	if err := unix.Mount("overlay", at, "overlay", 0, opts); err != nil {
		t.Fatalf("mount overlay %s: %v", opts, err)
	}
	t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	fs, err := newThrough(at)
	if err != nil {
		t.Fatal(err)
	}
	return fs
}

// newThrough opens a directory as it is.
func newThrough(path string) (*through, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	return &through{root: fd}, err
}

// unmount lets go of an overlayfs.
func unmount(t *testing.T, fs *through) {
	t.Helper()
	at, err := os.Readlink(fdPath(fs.root))
	if err != nil {
		t.Fatal(err)
	}
	fs.close()
	if err := unix.Unmount(at, 0); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, lower, upper string) *FS {
	t.Helper()
	fs, err := New(Config{Lower: Host(lower), Upper: upper, Volatile: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = fs.Close() })
	return fs
}

// plantStack fills directories in dir that are to lie over each other, the topmost first.
// All are called upper, as is what an UPPER keeps.
func plantStack(t *testing.T, dir string, seed uint64, layers int) (stack []string) {
	t.Helper()
	for n := range uint64(layers) {
		at := fmt.Sprintf("%s/%d", dir, n)
		if err := os.Mkdir(at, 0o755); err != nil {
			t.Fatal(err)
		}
		at += "/upper"
		r := rand.New(rand.NewPCG(seed, 1+10*n))
		plant(t, at, r)
		for _, d := range []string{"a", "b", "a/b"} {
			if r.IntN(3) == 0 {
				_ = unix.Setxattr(filepath.Join(at, d), userPrefix+opaqueName, []byte("y"), 0)
			}
		}
		stack = append([]string{at}, stack...)
	}
	return stack
}

func dumpStack(t *testing.T, stack []string) (all string) {
	t.Helper()
	for _, dir := range stack {
		all += dumpReal(t, dir)
	}
	return all
}

// openStack opens a tree over the directories of a stack: over cows and merges, those of
// under.
func openStack(t *testing.T, stack []string, upper string, seed uint64) (fs *FS, under []*FS) {
	t.Helper()
	lower := Host(stack[len(stack)-1])
	for n := len(stack) - 2; n >= 0; n-- {
		var err error
		if (seed+uint64(n))%2 == 0 {
			fs, err = NewMerge(stack[n], lower)
		} else {
			fs, err = New(Config{Lower: lower, Upper: filepath.Dir(stack[n]), Volatile: true})
		}
		if err != nil {
			t.Fatal(err)
		}
		under = append(under, fs)
		lower = []Source{{FS: fs}}
	}
	fs, err := New(Config{Lower: lower, Upper: upper, Volatile: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = fs.Close() })
	return fs, under
}

// keptSeeds are those that have found something.
var keptSeeds = []uint64{1, 158338196, 236588193, 236588199, 423085067, 729363116, 131658370}

// TestOverlayfs runs LAB_COW_SEEDS seeds (6), or the one LAB_COW_SEED over LAB_COW_LAYERS
// lower layers (1), of LAB_COW_OPS operations (300) each.
func TestOverlayfs(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	number := func(name string, otherwise int) int {
		if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
			return n
		}
		return otherwise
	}
	ops := number("LAB_COW_OPS", 300)
	if one := number("LAB_COW_SEED", -1); one >= 0 {
		againstOverlayfs(t, uint64(one), number("LAB_COW_LAYERS", 1), ops)
		return
	}
	for _, seed := range keptSeeds {
		againstOverlayfs(t, seed, 1, ops)
	}
	first := uint64(time.Now().UnixNano() % 1_000_000 * 1000)
	for i := range number("LAB_COW_SEEDS", 6) {
		if t.Failed() {
			return
		}
		againstOverlayfs(t, first+uint64(i), 1+i%3, ops)
	}
}

func againstOverlayfs(t *testing.T, seed uint64, layers, ops int) {
	t.Run(fmt.Sprintf("%d/%d", seed, layers), func(t *testing.T) {
		dir := t.TempDir()
		if seed%64 != 0 { // on a disk overlayfs syncs each copy
			onTmpfs(t, dir, "")
		}
		lower := [2]string{dir + "/lower0", dir + "/lower1"}
		upper := [2]string{dir + "/upper0", dir + "/upper1"}
		var before [2]string
		var stacks [2][]string
		for i, l := range lower {
			if err := os.Mkdir(l, 0o755); err != nil {
				t.Fatal(err)
			}
			stacks[i] = plantStack(t, l, seed, layers)
			before[i] = dumpStack(t, stacks[i])
		}
		var log []string
		r := rand.New(rand.NewPCG(seed, 2))
		for round := range 4 {
			// In each round the two change layers.
			real := mountOverlay(t, strings.Join(stacks[round%2], ":"), upper[round%2])
			ours, under := openStack(t, stacks[(round+1)%2], upper[(round+1)%2], seed)
			compare(t, log, "at the start of the round", dump(real), dump(ours))
			for i := range ops / 4 {
				op := randomOp(r)
				who, run := "", func(f func()) { f() }
				if seed%2 == 1 && mayChown == 1 && i%3 > 0 {
					who, run = "user: ", asUser
				}
				var want, got string
				run(func() { want, got = op.apply(real), op.apply(ours) })
				log = append(log, fmt.Sprintf("%s%s = %s", who, op, want))
				if want != got && want != "ESTALE" { // overlayfs has its own troubles; the trees must agree all the same
					t.Fatalf("%s\noverlayfs: %s\n     ours: %s\n%s", tail(log), want, got, dump(real))
				}
				if i%20 == 19 || testing.Verbose() && os.Getenv("LAB_COW_SEED") != "" {
					compare(t, log, "after these", dump(real), dump(ours))
				}
			}
			compare(t, log, "at the end of the round", dump(real), dump(ours))
			unmount(t, real)
			for _, fs := range append(under, ours) {
				if err := fs.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if left := names(t, upper[(round+1)%2]+"/work/copies"); left != "" {
				t.Fatalf("left in copies/: %s", left)
			}
		}
		for i := range lower {
			if after := dumpStack(t, stacks[i]); after != before[i] {
				t.Errorf("lower layers %d changed:\n%s", i, diff(before[i], after))
			}
		}
	})
}

// onTmpfs mounts a tmpfs on dir until the end of the test.
func onTmpfs(t *testing.T, dir, opts string) {
	t.Helper()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, opts); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

func tail(log []string) string { return strings.Join(log[max(0, len(log)-40):], "\n") }

func compare(t *testing.T, log []string, when, want, got string) {
	t.Helper()
	if want != got {
		t.Fatalf("%s\n%s: - overlayfs, + ours\n%s", tail(log), when, diff(want, got))
	}
}

// diff shows the lines in which two trees differ.
func diff(a, b string) string {
	in := func(s string) map[string]bool {
		m := map[string]bool{}
		for l := range strings.Lines(s) {
			m[l] = true
		}
		return m
	}
	inA, inB := in(a), in(b)
	var out strings.Builder
	for l := range strings.Lines(a) {
		if !inB[l] {
			out.WriteString("- " + l)
		}
	}
	for l := range strings.Lines(b) {
		if !inA[l] {
			out.WriteString("+ " + l)
		}
	}
	return out.String()
}

func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var s []string
	for _, e := range entries {
		s = append(s, e.Name())
	}
	return strings.Join(s, " ")
}
