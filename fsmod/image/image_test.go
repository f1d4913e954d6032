// SPDX-License-Identifier: Apache-2.0

// Images as the tools make them, beside what they were made from and the kernel.

package image

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// made are the tools that make images: %s is the image, and they run in the tree.
var made = []struct {
	name, tool, script string
	lacks              string // what the format has no room for, see describe
}{
	{"tar", "tar", `tar --xattrs --format=posix -cf %s .`, ""},
	{"tar.gz", "tar", `tar --xattrs --format=posix -czf %s .`, ""},
	{"tar.xz", "xz", `tar --xattrs --format=posix -cJf %s .`, ""},
	{"tar.zst", "zstd", `tar --xattrs --format=posix -I zstd -cf %s .`, ""},
	{"tar sparse", "tar", `tar -S --format=gnu -cf %s .`, "xattr"},
	{"tar v7", "tar", `tar --format=v7 --exclude fifo --exclude 'null' --exclude 'sparse' --exclude 'a-*' --exclude longlink -cf %s .; rm dir/longlink; touch -d @1614834367 dir`, "xattr special sparse long"},
	{"zip", "zip", `rm -f fifo null; zip -qry %[1]s.zip . && mv %[1]s.zip %[1]s`, "xattr special hardlink fifo rootmode"},
	{"squashfs gzip", "mksquashfs", `mksquashfs . %s -quiet -no-progress -processors 1`, ""},
	{"squashfs zstd", "mksquashfs", `mksquashfs . %s -quiet -no-progress -processors 1 -comp zstd -b 4096`, ""},
	{"squashfs xz", "mksquashfs", `mksquashfs . %s -quiet -no-progress -processors 1 -comp xz -b 1M -no-fragments`, ""},
	{"squashfs lz4", "mksquashfs", `mksquashfs . %s -quiet -no-progress -processors 1 -comp lz4`, ""},
	{"squashfs lzma", "mksquashfs", `mksquashfs . %s -quiet -no-progress -processors 1 -comp lzma`, ""},
	{"squashfs plain", "mksquashfs", `mksquashfs . %s -quiet -no-progress -processors 1 -noI -noD -noF -noX`, ""},
	{"ext4", "mke2fs", `mke2fs -q -t ext4 -d . %s 64M`, ""},
	{"ext4 4k meta_bg inline", "mke2fs", `mke2fs -q -t ext4 -b 4096 -O inline_data,meta_bg,^resize_inode -I 512 -d . %s 64M`, "sparse"},
	{"ext2", "mke2fs", `mke2fs -q -t ext2 -b 1024 -d . %s 64M`, ""},
	{"iso9660 Rock Ridge", "genisoimage", `genisoimage -quiet -R -D -o %s . 2>/dev/null`, "xattr hardlink"},
	{"iso9660 moved", "genisoimage", `genisoimage -quiet -R -o %s . 2>/dev/null`, "xattr hardlink moved"},
	{"iso9660 xorriso", "xorriso", `xorriso -report_about SORRY -as mkisofs -R -o %s .`, "xattr hardlink"},
	{"iso9660 Joliet", "genisoimage", `genisoimage -quiet -J -joliet-long -D -m null -m fifo -o %s . 2>/dev/null`, "xattr hardlink modes special symlink long"},
	{"fat32", "mcopy", `rm dir/*link; truncate -s 64M %[1]s && mkfs.vfat -F 32 -s 1 %[1]s >/dev/null && mcopy -spQm -i %[1]s dir deep sticky a-* file empty sparse ::`, "even xattr hardlink modes special symlink dirtime"},
	{"fat16", "mcopy", `rm dir/*link; truncate -s 20M %[1]s && mkfs.vfat -F 16 %[1]s >/dev/null && mcopy -spQm -i %[1]s dir deep sticky a-* file empty sparse ::`, "even xattr hardlink modes special symlink dirtime"},
	{"fat12", "mcopy", `rm dir/*link; truncate -s 14M %[1]s && mkfs.vfat -F 12 -s 8 %[1]s >/dev/null && mcopy -spQm -i %[1]s dir deep sticky a-* file empty sparse ::`, "even xattr hardlink modes special symlink dirtime"},
}

// makeTree makes a directory with all that a directory can have.
func makeTree(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tree")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(dir, 0o755))
	p := func(name string) string { return filepath.Join(dir, name) }
	must(os.MkdirAll(p("dir/many"), 0o755))
	must(os.MkdirAll(p("deep/1/2/3/4/5/6/7/8/9"), 0o755))
	must(os.WriteFile(p("deep/1/2/3/4/5/6/7/8/9/bottom"), []byte("bottom\n"), 0o644))
	must(os.WriteFile(p("empty"), nil, 0o644))
	must(os.WriteFile(p("file"), []byte("content\n"), 0o640))
	must(os.WriteFile(p("a-"+strings.Repeat("long", 40)+".name with space and ä"), []byte("long\n"), 0o600))
	big := bytes.Repeat([]byte("a line that compresses well, number 0123456789\n"), 40000)
	for i := range big {
		if i%4097 == 0 {
			big[i] = byte(i >> 12)
		}
	}
	must(os.WriteFile(p("dir/big"), big, 0o755))
	must(os.Chmod(p("dir/big"), 0o755|fs.ModeSetuid))
	must(os.Mkdir(p("sticky"), 0o777))
	must(os.Chmod(p("sticky"), 0o777|fs.ModeSticky))
	f, err := os.Create(p("sparse"))
	must(err)
	_, err = f.WriteAt([]byte("far"), 3<<20)
	must(err)
	must(f.Truncate(4 << 20))
	must(f.Close())
	must(os.Link(p("file"), p("dir/hard")))
	must(os.Symlink("../file", p("dir/symlink")))
	must(os.Symlink("/a/"+strings.Repeat("far/", 30)+"target", p("dir/longlink")))
	must(unix.Mkfifo(p("fifo"), 0o620))
	for i := range 300 {
		must(os.WriteFile(p(fmt.Sprintf("dir/many/name-number-%d", i)), fmt.Appendf(nil, "%d\n", i), 0o644))
	}
	if os.Geteuid() == 0 {
		must(unix.Mknod(p("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
		must(os.Chown(p("file"), 12345, 70000))
	}
	if err := unix.Setxattr(p("file"), "user.colour", []byte("blue"), 0); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		t.Fatal(err)
	}
	when := time.Date(2021, 3, 4, 5, 6, 7, 0, time.UTC)
	must(filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		ts := []unix.Timespec{unix.NsecToTimespec(when.UnixNano()), unix.NsecToTimespec(when.UnixNano())}
		return unix.UtimesNanoAt(unix.AT_FDCWD, path, ts, unix.AT_SYMLINK_NOFOLLOW)
	}))
	return dir
}

// describe turns an object into a line, without what a format lacks.
func describe(lacks string, path string, a Attr, target string, sum string, xattrs map[string][]byte) string {
	has := func(what string) bool { return !slices.Contains(strings.Fields(lacks), what) }
	typ := a.Mode & unix.S_IFMT
	var b strings.Builder
	fmt.Fprintf(&b, "%s %06o", path, typ)
	if has("modes") && typ != unix.S_IFLNK && (path != "." || has("rootmode")) {
		fmt.Fprintf(&b, " %04o %d:%d", a.Mode&0o7777, a.UID, a.GID)
	}
	if typ == unix.S_IFREG {
		fmt.Fprintf(&b, " %d %.12s", a.Size, sum)
		if has("hardlink") {
			fmt.Fprintf(&b, " links %d", a.Nlink)
		}
	}
	if (typ != unix.S_IFDIR || has("dirtime") && has("modes")) && path != "." {
		when := a.Mtime.Unix()
		if strings.Contains(lacks, "even") {
			when &^= 1
		}
		fmt.Fprintf(&b, " %d", when)
	}
	if typ == unix.S_IFCHR {
		fmt.Fprintf(&b, " %d,%d", unix.Major(a.Rdev), unix.Minor(a.Rdev))
	}
	if typ == unix.S_IFLNK {
		fmt.Fprintf(&b, " -> %s", target)
	}
	if has("xattr") {
		for _, k := range sortedKeys(xattrs) {
			fmt.Fprintf(&b, " %s=%q", k, xattrs[k])
		}
	}
	return b.String()
}

func sortedKeys(m map[string][]byte) []string {
	var keys []string
	for k := range m {
		if strings.HasPrefix(k, "user.") {
			keys = append(keys, k)
		}
	}
	sort.Strings(keys)
	return keys
}

// ofHost describes a directory of the host.
func ofHost(t *testing.T, dir, lacks string) []string {
	t.Helper()
	lack := strings.Fields(lacks)
	var lines []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		a := Attr{Mode: st.Mode, UID: st.Uid, GID: st.Gid, Size: st.Size, Nlink: uint32(st.Nlink), Rdev: st.Rdev, Mtime: time.Unix(st.Mtim.Unix())}
		var sum, target string
		xattrs := map[string][]byte{}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			h := sha256.Sum256(b)
			sum = hex.EncodeToString(h[:])
			v := make([]byte, 100)
			if n, err := unix.Getxattr(path, "user.colour", v); err == nil {
				xattrs["user.colour"] = v[:n]
			}
		case unix.S_IFLNK:
			if slices.Contains(lack, "symlink") {
				return nil
			}
			target, _ = os.Readlink(path)
		case unix.S_IFDIR:
			if d.Name() == "lost+found" {
				return fs.SkipDir
			}
		case unix.S_IFIFO:
			if slices.Contains(lack, "fifo") {
				return nil
			}
			fallthrough
		default:
			if slices.Contains(lack, "special") {
				return nil
			}
		}
		switch {
		case slices.Contains(lack, "long") && strings.HasPrefix(d.Name(), "a-"), slices.Contains(lack, "sparse") && d.Name() == "sparse":
			return nil
		}
		lines = append(lines, describe(lacks, rel, a, target, sum, xattrs))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	sort.Strings(lines)
	return lines
}

// ofImage describes what an FS has.
func ofImage(t testing.TB, fsys FS, lacks string) []string {
	t.Helper()
	var lines []string
	inodes := map[uint64]ID{}
	var walk func(path string, id ID, depth int)
	walk = func(path string, id ID, depth int) {
		if depth > 50 {
			t.Fatalf("%s: too deep", path)
		}
		a, err := fsys.Attr(id)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			return
		}
		if other, ok := inodes[a.Ino]; ok && other != id {
			t.Errorf("%s: two objects have the inode number %d", path, a.Ino)
		}
		inodes[a.Ino] = id
		var sum, target string
		switch a.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			f, err := fsys.Open(id)
			if err != nil {
				t.Errorf("open %s: %v", path, err)
				return
			}
			h := sha256.New()
			n, err := io.CopyBuffer(struct{ io.Writer }{h}, io.NewSectionReader(f, 0, a.Size), make([]byte, 70001))
			if err != nil || n != a.Size {
				t.Errorf("read %s: %d of %d, %v", path, n, a.Size, err)
			}
			sum = hex.EncodeToString(h.Sum(nil))
			if err := f.Close(); err != nil {
				t.Errorf("close %s: %v", path, err)
			}
		case unix.S_IFLNK:
			if target, err = fsys.Readlink(id); err != nil {
				t.Errorf("readlink %s: %v", path, err)
			}
		}
		xattrs, err := fsys.Xattrs(id)
		if err != nil {
			t.Errorf("xattrs %s: %v", path, err)
		}
		lines = append(lines, describe(lacks, path, a, target, sum, xattrs))
		if a.Mode&unix.S_IFMT != unix.S_IFDIR {
			return
		}
		entries, err := fsys.ReadDir(id)
		if err != nil {
			t.Errorf("list %s: %v", path, err)
		}
		for _, e := range entries {
			if e.Name == "lost+found" || e.Name == "rr_moved" {
				continue
			}
			child := filepath.Join(path, e.Name)
			if b, err := fsys.Attr(e.ID); e.Type != 0 && err == nil && b.Mode&unix.S_IFMT != e.Type {
				t.Errorf("%s is of type %o, its directory says %o", child, b.Mode&unix.S_IFMT, e.Type)
			}
			if strings.Contains(lacks, "sparse") && e.Name == "sparse" || strings.Contains(lacks, "long") && strings.HasPrefix(e.Name, "a-") {
				continue
			}
			walk(child, e.ID, depth+1)
		}
	}
	walk(".", fsys.Root(), 0)
	sort.Strings(lines)
	return lines
}

// makeImage runs a tool in a tree.
func makeImage(t testing.TB, tree, tool, script string) string {
	t.Helper()
	t.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
	if _, err := exec.LookPath(tool); err != nil {
		t.Skipf("%s is not installed", tool)
	}
	img := filepath.Join(t.TempDir(), "image")
	cmd := exec.Command("sh", "-ec", fmt.Sprintf(script, img))
	cmd.Dir = tree
	cmd.Env = append(os.Environ(), "TZ=UTC", "MTOOLS_SKIP_CHECK=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd.Args, err, out)
	}
	return img
}

// TestTools compares images that the tools made with what they were made from, and with
// what the kernel shows of them.
func TestTools(t *testing.T) {
	for _, m := range made {
		t.Run(m.name, func(t *testing.T) {
			tree := makeTree(t)
			img := makeImage(t, tree, m.tool, m.script)
			fsys, err := Open(img)
			if err != nil {
				t.Fatal(err)
			}
			defer fsys.Close()
			if want := strings.NewReplacer(" v7", "", " sparse", "").Replace(m.name); !strings.HasPrefix(want, strings.TrimSuffix(fsys.Format(), "4")) {
				t.Errorf("format %s", fsys.Format())
			}
			if s := Skipped(fsys); len(s) > 0 {
				t.Errorf("left out: %s", s)
			}
			got := ofImage(t, fsys, m.lacks)
			if diff := cmp.Diff(ofHost(t, tree, m.lacks), got); diff != "" {
				t.Errorf("tree, image:\n%s", diff)
			}
			// The kernel has no lzma.
			if strings.HasPrefix(m.name, "squashfs") && m.name != "squashfs lzma" || strings.HasPrefix(m.name, "ext") {
				if diff := cmp.Diff(ofHost(t, mount(t, img), m.lacks), got); diff != "" {
					t.Errorf("kernel, image:\n%s", diff)
				}
			}
		})
	}
}

// mount has the kernel mount an image: "" where it cannot.
func mount(t *testing.T, img string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("the kernel mounts images for root only")
	}
	at := t.TempDir()
	if out, err := exec.Command("mount", "-o", "ro,loop", img, at).CombinedOutput(); err != nil {
		t.Skipf("the kernel here does not mount it: %s", out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", at).CombinedOutput(); err != nil {
			t.Errorf("umount: %s", out)
		}
	})
	return at
}
