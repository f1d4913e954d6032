// SPDX-License-Identifier: Apache-2.0

// What the comparison with overlayfs does not reach.

package cow

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// lowerWith makes a lower layer of files with these contents.
func lowerWith(t *testing.T, content map[string]string) (lower, upper string) {
	t.Helper()
	dir := t.TempDir()
	for name, c := range content {
		path := filepath.Join(dir, "lower", name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(c), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "lower"), filepath.Join(dir, "upper")
}

func contentOf(t *testing.T, fs files, name string) string {
	t.Helper()
	fd, err := fs.Open(name, unix.O_RDONLY, 0)
	if err != nil {
		t.Fatalf("open %s: %v", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(f); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func write(t *testing.T, fs files, name, what string, flags int) {
	t.Helper()
	fd, err := fs.Open(name, unix.O_WRONLY|flags, 0o644)
	if err == nil {
		_, err = unix.Write(fd, []byte(what))
		closeAll(fd)
	}
	if err != nil {
		t.Fatalf("write %s: %v", name, err)
	}
}

func TestSecondView(t *testing.T) {
	lower, upper := lowerWith(t, map[string]string{"f": "x"})
	fs := open(t, lower, upper)
	_, err := New(Config{Lower: Host(lower), Upper: upper})
	if !errors.Is(err, unix.EBUSY) || !strings.Contains(err.Error(), upper+" is used by another view") {
		t.Errorf("the second view of %s: %v", upper, err)
	}
	if err := errors.Join(fs.Close(), fs.Close()); err != nil {
		t.Fatal(err)
	}
	again := open(t, lower, upper)
	write(t, again, "f", "y", unix.O_APPEND)
	if got := contentOf(t, again, "f"); got != "xy" {
		t.Errorf("f holds %q", got)
	}
}

// TestReaderKeeps: who has opened a file for reading goes on to read the lower one.
func TestReaderKeeps(t *testing.T) {
	lower, upper := lowerWith(t, map[string]string{"f": "lower"})
	fs := open(t, lower, upper)
	fd, err := fs.Open("f", unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	old := os.NewFile(uintptr(fd), "f")
	defer old.Close()
	write(t, fs, "f", "upper", unix.O_TRUNC)
	b := make([]byte, 10)
	n, _ := old.Read(b)
	if got, now := string(b[:n]), contentOf(t, fs, "f"); got != "lower" || now != "upper" {
		t.Errorf("the reader has %q, a new one %q", got, now)
	}
}

// TestHoles: a sparse file stays sparse.
func TestHoles(t *testing.T) {
	const size = 8 << 20
	lower, upper := lowerWith(t, map[string]string{"f": "head"})
	f, err := os.OpenFile(lower+"/f", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte("middle"), size/2)
	if err = errors.Join(err, f.Truncate(size), f.Close()); err != nil {
		t.Fatal(err)
	}
	fs := open(t, lower, upper)
	write(t, fs, "f", "H", 0)
	var st unix.Stat_t
	if err := unix.Stat(upper+"/upper/f", &st); err != nil {
		t.Fatal(err)
	}
	if st.Size != size || st.Blocks*512 > size/8 {
		t.Errorf("the copy has %d bytes, %d on disk", st.Size, st.Blocks*512)
	}
	got := contentOf(t, fs, "f")
	if got[:4] != "Head" || got[size/2:size/2+6] != "middle" || strings.Trim(got[4:size/2]+got[size/2+6:], "\x00") != "" {
		t.Error("the copy has other content")
	}
}

// TestNoSpace: a copy for which there is no room is an error, and nothing else is lost.
func TestNoSpace(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	lower, upper := lowerWith(t, map[string]string{"small": "s", "big": strings.Repeat("0123456789abcdef", 1<<18), "d/other": "o"})
	if err := os.Mkdir(upper, 0o700); err != nil {
		t.Fatal(err)
	}
	onTmpfs(t, upper, "size=1m")
	fs := open(t, lower, upper)
	write(t, fs, "small", "kept", unix.O_APPEND)
	for range 3 {
		if _, err := fs.Open("big", unix.O_RDWR, 0); err != unix.ENOSPC {
			t.Fatalf("a copy of 4 MiB in 1 MiB: %v", err)
		}
		if _, err := fs.Own("big"); err != unix.ENOSPC {
			t.Fatalf("Own: %v", err)
		}
		if err := fs.Rename("big", "d/big", 0); err != unix.ENOSPC {
			t.Fatalf("Rename: %v", err)
		}
	}
	if left := names(t, upper+"/work/copies"); left != "" {
		t.Errorf("left in copies/: %s", left)
	}
	if got := contentOf(t, fs, "big"); len(got) != 4<<20 {
		t.Errorf("big has %d bytes now", len(got))
	}
	write(t, fs, "d/other", "more", unix.O_APPEND)
	write(t, fs, "big", "new", unix.O_TRUNC) // of which nothing is copied
	fd, err := fs.Open("big", unix.O_WRONLY|unix.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	wrote, n := 3, 0
	for err == nil {
		wrote += n
		n, err = unix.Write(fd, make([]byte, 10_000))
	}
	closeAll(fd)
	if err != unix.ENOSPC {
		t.Errorf("a full disk: %v", err)
	}
	if err := fs.Remove("d/other", false); err != nil { // which needs a whiteout
		t.Errorf("remove on a full disk: %v", err)
	}
	if a, b := contentOf(t, fs, "small"), len(contentOf(t, fs, "big")); a != "skept" || b != wrote {
		t.Errorf("small is %q, big has %d bytes of %d", a, b, wrote)
	}
}

// TestMerge compares unions with overlayfs without an upper directory.
func TestMerge(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	for seed := range uint64(10) {
		dir := t.TempDir()
		plant(t, dir+"/dst", rand.New(rand.NewPCG(seed, 5)))
		plant(t, dir+"/src", rand.New(rand.NewPCG(seed, 6)))
		for _, d := range []string{"a", "b"} { // opaque ones among them
			_ = unix.Setxattr(dir+"/src/"+d, userPrefix+opaqueName, []byte("y"), 0)
		}
		before := dumpReal(t, dir)
		real := mountOverlay(t, dir+"/src:"+dir+"/dst", "")
		ours, err := NewMerge(dir+"/src", Host(dir+"/dst"))
		if err != nil {
			t.Fatal(err)
		}
		compare(t, nil, fmt.Sprintf("seed %d", seed), dump(real), dump(ours))
		r := rand.New(rand.NewPCG(seed, 7))
		for range 300 {
			op := randomOp(r)
			want, got := op.apply(real), op.apply(ours)
			if want != got {
				t.Errorf("seed %d: %s\noverlayfs: %s\n     ours: %s", seed, op, want, got)
			}
		}
		if err := ours.Close(); err != nil {
			t.Fatal(err)
		}
		unmount(t, real)
		if after := dumpReal(t, dir); after != before {
			t.Errorf("a layer changed:\n%s", diff(before, after))
		}
	}
}

// TestUpperInside: the upper directory may lie in the lower layer, and is not seen there.
func TestUpperInside(t *testing.T) {
	lower, _ := lowerWith(t, map[string]string{"d/f": "x", "d/g": "y"})
	upper := lower + "/d/UPPER"
	fs := open(t, lower, upper)
	write(t, fs, "d/f", "z", 0)
	if _, err := fs.Open("d/UPPER/upper/d/f", unix.O_RDONLY, 0); err != unix.ENOENT {
		t.Errorf("below the upper directory: %v", err)
	}
	for range 2 {
		got, err := listAll(fs, "d")
		if err != nil || strings.Contains(strings.Join(got, " "), "UPPER") {
			t.Errorf("d: %v %v", got, err)
		}
		if err := fs.Mkdir("d/UPPER", 0o755); err != nil {
			t.Error(err)
		}
		if err := fs.Remove("d/UPPER", true); err != nil {
			t.Error(err)
		}
	}
	if name, ok := fs.Name(upper + "/upper/d/f"); !ok || name != "d/f" {
		t.Errorf("the copy is called %q, %v", name, ok)
	}
	if name, ok := fs.Name(lower + "/d/g"); !ok || name != "d/g" {
		t.Errorf("the file of the lower layer is called %q, %v", name, ok)
	}
}

// TestTogether: many at once copy, change and list.
func TestTogether(t *testing.T) {
	content := map[string]string{}
	for i := range 8 {
		content[fmt.Sprintf("d/f%d", i)] = strings.Repeat("x", 50_000)
	}
	lower, upper := lowerWith(t, content)
	fs := open(t, lower, upper)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 100 {
				name := fmt.Sprintf("d/f%d", (g+i)%8)
				fd, err := fs.Open(name, unix.O_WRONLY|unix.O_APPEND, 0)
				if err == nil {
					_, err = unix.Write(fd, []byte{'0' + byte(g)})
					closeAll(fd)
				}
				if err == nil {
					err = fs.Mkdir(fmt.Sprintf("d/dir%d.%d", g, i), 0o755)
				}
				if err == nil {
					err = fs.Rename(fmt.Sprintf("d/dir%d.%d", g, i), fmt.Sprintf("d/dir%d", g), 0)
				}
				if err == nil {
					_, err = listAll(fs, "d")
				}
				if err != nil {
					t.Error(name, err)
					return
				}
			}
		})
	}
	wg.Wait()
	for name := range content {
		got := contentOf(t, fs, name)
		tail := strings.TrimPrefix(got, content[name])
		if len(tail) != 100 {
			t.Errorf("%s has %d bytes appended, want 100", name, len(tail))
		}
	}
}

func TestParseMountinfo(t *testing.T) {
	for _, tc := range []struct {
		line, at, kind string
		id             uint64
		ok             bool
	}{
		{"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n", "/mnt2", "ext3", 36, true},
		{`7 1 0:5 / /a\040b\134c rw - tmpfs none rw`, `/a b\c`, "tmpfs", 7, true},
		{"7 1 0:5 / /x rw shared:1 master:2 - fuse.sshfs me@host: rw", "/x", "fuse.sshfs", 7, true},
		{"7 1 0:5 /r\u00a0x /a\u00a0b\rc rw - tmpfs none rw", "/a\u00a0b\rc", "tmpfs", 7, true},
		{"", "", "", 0, false},
		{"7 1 0:5 / /x rw", "", "", 0, false},
		{"x 1 0:5 / /x rw - tmpfs none rw", "/x", "tmpfs", 0, false},
	} {
		id, at, kind, ok := ParseMountinfo(tc.line)
		if ok != tc.ok || id != tc.id || at != tc.at || kind != tc.kind {
			t.Errorf("%q: got %d %q %q %v", tc.line, id, at, kind, ok)
		}
	}
}

// TestSubmounts: what is mounted below, where a name has a space that is none for the kernel
// too, is covered, each file system in its own part, and
// overlayfs on the same parts shows the same.
// TestMountinfo has lines as they are where the root was mounted last, and mounts that others
// cover.
func TestMountinfo(t *testing.T) {
	const info = "22 27 0:21 / /proc rw - proc proc rw\n27 1 254:0 / / rw - ext4 /dev/vda rw\n30 27 0:30 / /a/b rw - tmpfs none rw\n" +
		"31 27 0:31 / /a rw - tmpfs none rw\n32 31 0:32 / /a/b rw - tmpfs none rw\n33 32 0:33 / /a/b rw - tmpfs none rw\n34 27 0:34 /f /f rw - ext4 none rw\n"
	at := map[string]uint64{"/proc": 22, "/": 27, "/a": 31, "/a/b": 33, "/f": 34}
	got := submounts("/", info, func(path string) (uint64, bool) { return at[path], path != "/f" })
	want := []Submount{{"/proc", "proc", "proc", true, true}, {"/a", "a", "tmpfs", false, true}, {"/f", "f", "ext4", false, false}, {"/a/b", "a/b", "tmpfs", false, true}}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestSubmounts(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	lower, upper := lowerWith(t, map[string]string{"f": "root", "m/hidden": "h", "m\u00a0 o/x": "", "p/x": "", "single": "before"})
	onTmpfs(t, lower+"/m", "")
	if err := os.MkdirAll(lower+"/m/in/n", 0o755); err != nil {
		t.Fatal(err)
	}
	onTmpfs(t, lower+"/m/in/n", "")
	onTmpfs(t, lower+"/m\u00a0 o", "")
	for path, c := range map[string]string{"m/f": "m", "m/in/n/f": "n", "m\u00a0 o/f": "o", "one": "mounted"} {
		if err := os.WriteFile(lower+"/"+path, []byte(c), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range [][3]string{{"proc", lower + "/p", "proc"}, {lower + "/one", lower + "/single", ""}} {
		flags := uintptr(0)
		if m[2] == "" {
			flags = unix.MS_BIND
		}
		if err := unix.Mount(m[0], m[1], m[2], flags, ""); err != nil {
			t.Skipf("mount %s: %v", m[1], err)
		}
		t.Cleanup(func() { _ = unix.Unmount(m[1], unix.MNT_DETACH) })
	}
	fs := open(t, lower, upper)
	for name, want := range map[string]string{"f": "root", "m/f": "m", "m/in/n/f": "n", "m\u00a0 o/f": "o", "single": "mounted"} {
		if got := contentOf(t, fs, name); got != want {
			t.Errorf("%s holds %q", name, got)
		}
		write(t, fs, name, "+", unix.O_APPEND)
		if got := contentOf(t, fs, name); got != want+"+" {
			t.Errorf("%s holds %q after a write", name, got)
		}
		if b, _ := os.ReadFile(lower + "/" + name); string(b) != want {
			t.Errorf("the lower %s holds %q now", name, b)
		}
	}
	for part, want := range map[string]string{"upper/f": "root+", "sub/m/upper/f": "m+", "sub/m%2Fin%2Fn/upper/f": "n+", "sub/m%C2%A0%20o/upper/f": "o+"} {
		if b, err := os.ReadFile(upper + "/" + part); string(b) != want {
			t.Errorf("UPPER/%s holds %q, %v", part, b, err)
		}
	}
	if got := contentOf(t, fs, "p/version"); !strings.HasPrefix(got, "Linux") {
		t.Errorf("p/version holds %q", got)
	}
	if err := fs.Rename("m/f", "f", 0); err != unix.EXDEV {
		t.Errorf("rename to another file system: %v", err)
	}
	if err := fs.Remove("m", true); err != unix.EBUSY {
		t.Errorf("remove a mount point: %v", err)
	}
	if name, ok := fs.Name(upper + "/sub/m%2Fin%2Fn/upper/f"); !ok || name != "m/in/n/f" {
		t.Errorf("it is called %q, %v", name, ok)
	}
}

// TestOverPassed: what a tree passes through is covered where it is asked for itself.
func TestOverPassed(t *testing.T) {
	lower, upper := lowerWith(t, map[string]string{"f": "x"})
	passed, err := newThrough(lower)
	if err != nil {
		t.Fatal(err)
	}
	passed.pseudo = true
	below := &FS{root: passed, owner: current()}
	t.Cleanup(func() { _ = below.Close() })
	fs, err := New(Config{Lower: []Source{{FS: below}}, Upper: upper})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = fs.Close() })
	write(t, fs, "f", "y", 0)
	if got := contentOf(t, below, "f"); got != "x" {
		t.Errorf("below is %q", got)
	}
}

// TestPartsHidden: an UPPER that is not shown in a tree is not shown over it either, nor in
// what is a part of it.
func TestPartsHidden(t *testing.T) {
	lower, _ := lowerWith(t, map[string]string{"d/f": "x"})
	first := open(t, lower, lower+"/d/UPPER")
	for _, at := range []string{"", "d"} {
		fs, err := New(Config{Lower: []Source{{FS: first, Name: at}}, Upper: t.TempDir() + "/up", Volatile: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = fs.Close() })
		dir := strings.TrimPrefix("d", at)
		got, err := listAll(fs, dir)
		if err != nil || strings.Contains(strings.Join(got, " "), "UPPER") || !strings.Contains(strings.Join(got, " "), "f") {
			t.Errorf("over %q: %v %v", at, got, err)
		}
		if _, err := fs.Open(strings.Trim(dir+"/UPPER", "/"), unix.O_PATH, 0); err != unix.ENOENT {
			t.Errorf("over %q: UPPER is there: %v", at, err)
		}
	}
}
