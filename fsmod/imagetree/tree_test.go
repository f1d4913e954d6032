// SPDX-License-Identifier: Apache-2.0

// A tree beside the directory that its image was made from.

package imagetree

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"umrun/fsmod"
	"umrun/fsmod/image"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	_ fsmod.FS     = (*Tree)(nil)
	_ fsmod.Namer  = (*Tree)(nil)
	_ fsmod.Filler = (*Tree)(nil)
)

// newTree makes a directory, a tar of it and the tree of that.
func newTree(t *testing.T) (dir string, tree *Tree) {
	t.Helper()
	dir, img, place := filepath.Join(t.TempDir(), "dir"), filepath.Join(t.TempDir(), "img"), t.TempDir()
	out, err := exec.Command("sh", "-ec", `mkdir -p "$0/sub/deeper" "$0/closed" && cd "$0"
		echo hello >file; ln file sub/hard; ln -s ../file sub/link; seq 1 100000 >big; : >empty
		echo secret >closed/in; mkfifo fifo; chmod 400 file; echo program >sub/deeper/p; chmod 4755 sub/deeper/p
		touch -h -d @1600000000.5 file sub/link big; chmod 500 closed; touch -d @1500000000 sub closed
		tar --format=posix --xattrs -cf "$1" .`, dir, img).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() { os.Chmod(filepath.Join(dir, "closed"), 0o700) })
	fsys, err := image.Open(img)
	if err != nil {
		t.Fatal(err)
	}
	gone := false
	if tree, err = New(fsys, place, func() error { gone = true; return nil }, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tree.Close(); err != nil {
			t.Error(err)
		}
		if left, _ := os.ReadDir(place); len(left) > 0 || !gone {
			t.Errorf("left: %v, gone: %v", left, gone)
		}
	})
	return dir, tree
}

// describe tells of what stat has, but for what a tree leaves off.
func describe(st *unix.Stat_t) string {
	s := fmt.Sprintf("%06o %d:%d %d", st.Mode&^0o6000, st.Uid, st.Gid, st.Mtim.Nano())
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		s += fmt.Sprintf(" %d", st.Size)
	}
	return s
}

// stat asks a tree, and returns how many blocks the object has.
func stat(t *testing.T, tree *Tree, name string) (string, unix.Stat_t) {
	t.Helper()
	fd, err := tree.Open(name, unix.O_PATH, 0)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	return describe(&st), st
}

func read(t *testing.T, tree *Tree, name string) []byte {
	t.Helper()
	fd, err := tree.Open(name, unix.O_RDONLY, 0)
	if err != nil {
		t.Errorf("open %s: %v", name, err)
		return nil
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Errorf("read %s: %v", name, err)
	}
	return b
}

func TestTree(t *testing.T) {
	dir, tree := newTree(t)
	names := []string{"", "file", "sub", "sub/hard", "sub/link", "sub/deeper", "sub/deeper/p", "big", "empty", "closed", "closed/in", "fifo"}
	slices.Reverse(names) // what is deep first: the way there is made
	compare := func(when string) {
		t.Helper()
		for _, name := range names {
			var want unix.Stat_t
			if err := unix.Lstat(filepath.Join(dir, name), &want); err != nil {
				t.Fatal(err)
			}
			if got, _ := stat(t, tree, name); got != describe(&want) {
				t.Errorf("%s, %q is %s, was %s", when, name, got, describe(&want))
			}
		}
	}
	compare("before content")
	if _, st := stat(t, tree, "big"); st.Blocks != 0 {
		t.Errorf("%d blocks of what nobody has read", st.Blocks)
	}
	for _, name := range names {
		if name == "fifo" || name == "sub/link" {
			continue
		}
		want, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			continue // a directory
		}
		if got := read(t, tree, name); !bytes.Equal(got, want) {
			t.Errorf("%s has %d bytes, want %d", name, len(got), len(want))
		}
	}
	compare("with content")
	_, one := stat(t, tree, "file")
	_, two := stat(t, tree, "sub/hard")
	if one.Ino != two.Ino {
		t.Error("a hard link is a file of its own")
	}
	var link [100]byte
	fd, err := tree.Open("sub/link", unix.O_PATH, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if n, err := unix.Readlinkat(fd, "", link[:]); err != nil || string(link[:n]) != "../file" {
		t.Errorf("link to %q, %v", link[:n], err)
	}
	fd, err = tree.Open("", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	root := os.NewFile(uintptr(fd), "root")
	defer root.Close()
	list, err := root.Readdirnames(-1)
	sort.Strings(list)
	if diff := cmp.Diff([]string{"big", "closed", "empty", "fifo", "file", "sub"}, list); diff != "" || err != nil {
		t.Errorf("%v: %s", err, diff)
	}
	where, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		t.Fatal(err)
	}
	if name, ok := tree.Name(where + "/sub/deeper"); !ok || name != "sub/deeper" {
		t.Errorf("name %q, %v", name, ok)
	}
	if _, ok := tree.Name(strings.TrimSuffix(where, "t")); ok {
		t.Error("a name of what is not in the tree")
	}
}

// TestRefused: nothing changes, and errors are those of a read-only file system.
func TestRefused(t *testing.T) {
	_, tree := newTree(t)
	open := func(name string, flags int) error {
		fd, err := tree.Open(name, flags, 0o644)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
	for what, c := range map[string]struct {
		err  error
		want error
	}{
		"open to write":          {open("file", unix.O_WRONLY), unix.EROFS},
		"open to truncate":       {open("file", unix.O_RDONLY|unix.O_TRUNC), unix.EROFS},
		"create":                 {open("new", unix.O_CREAT|unix.O_RDONLY), unix.EROFS},
		"create below nothing":   {open("no/new", unix.O_CREAT|unix.O_WRONLY), unix.ENOENT},
		"create what is there":   {open("file", unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY), unix.EEXIST},
		"nameless file":          {open("sub", unix.O_TMPFILE|unix.O_RDWR), unix.EROFS},
		"open a directory":       {open("sub", unix.O_RDWR), unix.EISDIR},
		"what is not there":      {open("none", unix.O_RDONLY), unix.ENOENT},
		"below a file":           {open("file/x", unix.O_RDONLY), unix.ENOTDIR},
		"a link at the end":      {open("sub/link", unix.O_RDONLY), unix.ELOOP},
		"a link on the way":      {open("sub/link/x", unix.O_RDONLY), unix.ELOOP},
		"mkdir":                  {tree.Mkdir("new", 0o755), unix.EROFS},
		"mkdir of what is there": {tree.Mkdir("sub", 0o755), unix.EEXIST},
		"mkdir below nothing":    {tree.Mkdir("no/new", 0o755), unix.ENOENT},
		"mknod":                  {tree.Mknod("new", unix.S_IFIFO, 0), unix.EROFS},
		"symlink":                {tree.Symlink("x", "new"), unix.EROFS},
		"link":                   {tree.Link("file", "new"), unix.EROFS},
		"link from nothing":      {tree.Link("none", "new"), unix.ENOENT},
		"rename":                 {tree.Rename("file", "new", 0), unix.EROFS},
		"unlink":                 {tree.Remove("file", false), unix.EROFS},
		"unlink nothing":         {tree.Remove("none", false), unix.ENOENT},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v, want %v", what, c.err, c.want)
		}
	}
	if _, err := tree.Own("file"); !errors.Is(err, unix.EROFS) {
		t.Errorf("own: %v", err)
	}
}

// TestDevices: what an image calls a device is not there, also for root.
func TestDevices(t *testing.T) {
	img := filepath.Join(t.TempDir(), "img")
	f, err := os.Create(img)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(f)
	err = errors.Join(
		w.WriteHeader(&tar.Header{Name: "zero", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: 5}),
		w.WriteHeader(&tar.Header{Name: "pipe", Typeflag: tar.TypeFifo, Mode: 0o666}), w.Close(), f.Close())
	if err != nil {
		t.Fatal(err)
	}
	fsys, err := image.Open(img)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := New(fsys, t.TempDir(), func() error { return nil }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	stat(t, tree, "pipe")
	for _, flags := range []int{unix.O_PATH, unix.O_RDONLY, unix.O_RDWR} {
		if fd, err := tree.Open("zero", flags, 0); !errors.Is(err, unix.ENOENT) {
			t.Errorf("open with %#x: %d, %v", flags, fd, err)
		}
	}
}

// TestTogether opens all from many goroutines.
func TestTogether(t *testing.T) {
	dir, tree := newTree(t)
	want, err := os.ReadFile(filepath.Join(dir, "big"))
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			if got := read(t, tree, "big"); !bytes.Equal(got, want) {
				t.Errorf("%d bytes", len(got))
			}
			read(t, tree, "sub/deeper/p")
			read(t, tree, "closed/in")
		})
	}
	all.Wait()
}

// TestPlanted: a link that a program has put among the copies leads nothing of the image elsewhere.
func TestPlanted(t *testing.T) {
	_, tree := newTree(t)
	outside := t.TempDir()
	const kept = "not the image's"
	for _, name := range []string{"hard", "big"} {
		if err := os.WriteFile(filepath.Join(outside, name), []byte(kept), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if err := tree.Ready(t.Context(), "", false); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"sub": outside, "big": filepath.Join(outside, "big")} {
		at := filepath.Join(tree.path, name)
		if err := errors.Join(os.RemoveAll(at), os.Symlink(target, at)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"sub/hard", "big"} {
		if fd, err := tree.Open(name, unix.O_RDONLY, 0); err == nil {
			unix.Close(fd)
			t.Errorf("%s was opened", name)
		}
		if b, err := os.ReadFile(filepath.Join(outside, filepath.Base(name))); string(b) != kept || err != nil {
			t.Errorf("%s: %.20q, %v", name, b, err)
		}
	}
	names, err := os.ReadDir(outside)
	if len(names) != 2 || err != nil {
		t.Errorf("outside: %v, %v", names, err)
	}
}
