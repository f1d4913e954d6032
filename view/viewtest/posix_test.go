// SPDX-License-Identifier: Apache-2.0

// The suite of testdata/posix: what every call with a path answers on each kind of
// mount, by either engine, held against a plain directory line by line. What differs
// is listed in posix_differences_test.go, with its reason; a listed difference that is
// gone fails too.

package viewtest_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"umrun/view/viewtest"

	"golang.org/x/sys/unix"
)

// leastPosixCases is how many there must be: fewer mean that a group came to no end.
const leastPosixCases = 7000

// A posixKind is a way to have a tree. In flags and dir stand SRC, DST, UP for
// directories of the run, and IMG for an image of SRC.
type posixKind struct {
	name   string
	flags  []string
	dir    string // where the cases run; empty: DST
	before string // where posix -make makes its tree; empty: nowhere
	native bool   // it is held against posixFuse, mounted natively
}

var posixKinds = []posixKind{
	{name: "bind", flags: []string{"-m", "bind:SRC:DST"}, before: "SRC"},
	{name: "below", flags: []string{"-m", "tmpfs:DST", "-m", "bind:SRC:DST/sub"}, dir: "DST/sub", before: "SRC"},
	{name: "tmpfs", flags: []string{"-m", "tmpfs:DST"}},
	{name: "cow", flags: []string{"-m", "cow:UP:DST"}, before: "DST"},
	{name: "away", flags: []string{"-m", "cow::DST"}, before: "DST"},
	{name: "cow-cow", flags: []string{"-m", "cow:UP/1:DST", "-m", "cow:UP/2:DST"}, before: "DST"},
	{name: "cow-merge", flags: []string{"-m", "merge:SRC:DST", "-m", "cow:UP:DST"}, before: "SRC"},
	{name: "cow-fuse", flags: []string{"-m", "fuse:" + posixFuse + " -f SRC:DST", "-m", "cow:UP:DST"}, before: "SRC"},
	{name: "image", flags: []string{"-m", "image:IMG:DST", "-m", "cow:UP:DST"}, before: "SRC"},
	{name: "fuse", flags: []string{"-m", "fuse:" + posixFuse + " -f SRC:DST"}, before: "SRC", native: true},
}

// posixFuse is a FUSE file system that shows a directory. What it makes of a call is its own
// affair: a view is held against the same mounted natively, without the groups that come to
// no end there.
const (
	posixFuse        = "bindfs --no-allow-other"
	posixFuseWithout = "LAB_WITHOUT= lock deep "
)

// posixEngines are what makes the mounts.
var posixEngines = []string{"ns", "trap"}

// posixUsers are who runs the cases.
var posixUsers = []string{"user", "root"}

// A posixRun is one run of the program in a place of its own.
type posixRun struct {
	w     *viewtest.World
	place string // holds SRC, DST, UP, OUT
	user  bool
}

func newPosixRun(w *viewtest.World, name, user string) (*posixRun, error) {
	r := &posixRun{w: w, place: filepath.Join(w.Dir(), name+"-"+user), user: user == "user"}
	id := 0
	if r.user {
		id = viewtest.UID
	}
	// The place is the user's own, so that what keeps a mount where it is, is the mount.
	for _, d := range []string{"", "SRC", "DST", "UP", "OUT"} {
		path := filepath.Join(r.place, d)
		if err := errors.Join(os.MkdirAll(path, 0o755), os.Chown(path, id, id)); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (r *posixRun) in(s string) string {
	for _, d := range []string{"SRC", "DST", "UP", "OUT", "IMG"} {
		s = strings.ReplaceAll(s, d, filepath.Join(r.place, d))
	}
	return s
}

// as makes the command the run's user's.
func (r *posixRun) as(c *viewtest.Cmd) *viewtest.Cmd {
	if r.user {
		return c.AsUser(r.w.Home())
	}
	return c
}

// make makes the tree that is there before.
func (r *posixRun) make(program, dir string) error {
	if res := r.as(r.w.HostCmd(context.Background(), program, "-make", r.in(dir))).Result(); res.Status != 0 {
		return fmt.Errorf("%v", res)
	}
	return nil
}

// A posixTranscript is what a run printed, by case, and the cases in their order.
type posixTranscript struct {
	result map[string]string
	order  []string
}

func readPosix(out string) (*posixTranscript, error) {
	t := &posixTranscript{result: map[string]string{}}
	for line := range strings.Lines(out) {
		name, result, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		if !ok {
			return t, fmt.Errorf("no case: %q", line)
		}
		if _, twice := t.result[name]; twice {
			return t, fmt.Errorf("%q is there twice", name)
		}
		t.result[name] = result
		t.order = append(t.order, name)
	}
	return t, nil
}

// native runs the cases on a mount of the kernel's.
func (r *posixRun) native(program, fstype string) (*posixTranscript, error) {
	id := 0
	if r.user {
		id = viewtest.UID
	}
	var err error
	switch fstype {
	case "fuse":
		mount := strings.Fields(posixFuse + " " + r.in("SRC") + " " + r.in("DST"))
		if res := r.as(r.w.HostCmd(context.Background(), mount...)).Result(); res.Status != 0 {
			err = fmt.Errorf("%v", res)
		}
		defer r.w.Host.Do(func() { _ = unix.Unmount(r.in("DST"), unix.MNT_DETACH) })
	case "":
		r.w.Host.Do(func() { err = unix.Mount(r.in("SRC"), r.in("DST"), "", unix.MS_BIND, "") })
	default:
		r.w.Host.Do(func() {
			err = unix.Mount(fstype, r.in("DST"), fstype, 0, fmt.Sprintf("mode=755,uid=%d,gid=%d", id, id))
		})
	}
	if err != nil {
		return nil, fmt.Errorf("mount: %w", err)
	}
	if err := r.make(program, "DST"); err != nil {
		return nil, err
	}
	c := r.as(r.w.HostCmd(context.Background(), program, r.in("DST"), r.in("OUT")))
	if fstype == "fuse" {
		c.Env = append(c.Env, posixFuseWithout)
	}
	res := c.Result()
	if res.Status != 0 || strings.Contains(res.Stdout, "cannot go on") && fstype != "fuse" || strings.Contains(res.Stdout, "/ended: ") {
		return nil, fmt.Errorf("%v", res)
	}
	return readPosix(res.Stdout)
}

// TestPosix runs the cases natively on the disk and on a tmpfs, and holds every kind
// of mount against that. A case in which the two differ is none.
func TestPosix(t *testing.T) {
	viewtest.Need(t, "mksquashfs", "bindfs", "fusermount3")
	w := viewtest.New(t)
	openFUSE(t, w)
	program := viewtest.Posix(t)
	viewtest.Binary(t) // before any deadline
	plain := posixNatives(t, w, program)
	var mu sync.Mutex
	used := map[int]bool{}
	cases, differ := 0, 0
	t.Run("views", func(t *testing.T) {
		for _, kind := range posixKinds {
			for _, engine := range posixEngines {
				for _, user := range posixUsers {
					name := kind.name + "/" + engine + "/" + user
					t.Run(name, func(t *testing.T) {
						t.Parallel()
						oracle := plain[user]
						if kind.native {
							oracle = plain["fuse "+user]
						}
						met, n := posixView(t, w, program, kind, engine, user, oracle)
						mu.Lock()
						defer mu.Unlock()
						cases += n
						differ += len(met)
						for _, i := range met {
							used[i] = true
						}
					})
				}
			}
		}
	})
	fmt.Printf("conformance: %d cases on %d mounts, %d with listed differences\n", cases, len(posixKinds)*len(posixEngines)*len(posixUsers), differ)
	for i, d := range posixDifferences {
		if !used[i] && !d.sometimes && !t.Failed() {
			t.Errorf("listed, but no longer a difference: %+v", d)
		}
	}
}

// posixNatives returns what is natively so, by user, and what posixFuse makes of it, by "fuse" and
// the user.
func posixNatives(t *testing.T, w *viewtest.World, program string) map[string]*posixTranscript {
	t.Helper()
	type key struct{ user, fs string }
	all := map[key]*posixTranscript{}
	var wg sync.WaitGroup
	var mu sync.Mutex
	for _, user := range posixUsers {
		for _, fs := range []string{"", "tmpfs", "fuse"} {
			wg.Go(func() {
				r, err := newPosixRun(w, "native"+fs, user)
				var got *posixTranscript
				if err == nil {
					got, err = r.native(program, fs)
				}
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					t.Errorf("natively, %s %s: %v", fs, user, err)
				}
				all[key{user, fs}] = got
			})
		}
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	plain := map[string]*posixTranscript{}
	for _, user := range posixUsers {
		disk, mem := all[key{user, ""}], all[key{user, "tmpfs"}]
		for _, name := range slices.Clone(disk.order) {
			if got, ok := mem.result[name]; !ok || got != disk.result[name] {
				t.Logf("not compared, %s: on the disk %s: %q, on tmpfs %q", user, name, disk.result[name], got)
				disk.result[name] = mem.result[name] + notCompared
			}
		}
		if len(disk.order) < leastPosixCases {
			t.Errorf("%d cases: some are lost", len(disk.order))
		}
		plain[user], plain["fuse "+user] = disk, all[key{user, "fuse"}]
	}
	return plain
}

// notCompared marks a result that depends on the kernel's file system.
const notCompared = "\x00"

// posixView runs the cases on one mount, and returns the listed differences that it met
// and how many cases there were.
func posixView(t *testing.T, w *viewtest.World, program string, kind posixKind, engine, user string, plain *posixTranscript) (met []int, n int) {
	r, err := newPosixRun(w, kind.name+"-"+engine, user)
	if err != nil {
		t.Fatal(err)
	}
	if kind.before != "" {
		if err := r.make(program, kind.before); err != nil {
			t.Fatal(err)
		}
	}
	if kind.name == "image" {
		w.Host.MustRun(t, "mksquashfs", r.in("SRC"), r.in("IMG"), "-quiet", "-no-progress")
	}
	real := kind.before == "DST" // the host's tree, which stays as it was
	var was string
	if real {
		was = treeSum(t, r.in("DST"))
	}
	dir := kind.dir
	if dir == "" {
		dir = "DST"
	}
	args := []string{"-q", "-n", "none", "--fs-engine", engine}
	for _, f := range kind.flags {
		args = append(args, r.in(f))
	}
	args = append(args, "--", program, r.in(dir), r.in("OUT"))
	u := r.as(w.UmrunFlags(t, args...))
	if kind.native {
		u.Env = append(u.Env, posixFuseWithout)
	}
	res := u.Result()
	if res.Status != 0 {
		t.Errorf("under umrun: %v", res)
	}
	got, err := readPosix(res.Stdout)
	if err != nil {
		t.Error(err)
	}
	wrong := 0
	names := slices.Clone(plain.order)
	for _, name := range got.order {
		if _, native := plain.result[name]; !native {
			names = append(names, name)
		}
	}
	for _, name := range names {
		want, native := plain.result[name]
		is, ok := got.result[name]
		if !native {
			want = "no case"
		} else if !ok {
			is = "no case"
		}
		if want == is || strings.HasSuffix(want, notCompared) {
			continue
		}
		if i := posixListed(kind.name, engine, user, name, want, is); i >= 0 {
			met = append(met, i)
			continue
		}
		if wrong++; wrong <= 60 {
			t.Errorf("%s\n  native %s\n  umrun  %s", name, want, is)
		}
	}
	if wrong > 60 {
		t.Errorf("and %d others", wrong-60)
	}
	if real && treeSum(t, r.in("DST")) != was {
		t.Errorf("the real tree has changed")
	}
	return met, len(got.order)
}

// posixListed is the index of the listed difference that this is, or -1.
func posixListed(kind, engine, user, name, native, umrun string) int {
	return slices.IndexFunc(posixDifferences, func(d posixDifference) bool {
		return alike(d.where, kind+" "+engine+" "+user) && d.name.MatchString(name) &&
			(d.native == "" || d.native == native) && (d.umrun == "" || d.umrun == umrun)
	})
}
