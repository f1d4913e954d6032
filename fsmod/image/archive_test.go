// SPDX-License-Identifier: Apache-2.0

// Archives that mean no good, and what is compressed as a whole.

package image

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// members returns the paths of an archive with what they are: content, or -> target.
func members(t *testing.T, b []byte) (lines []string, skipped []string) {
	t.Helper()
	fsys, err := open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	defer fsys.Close()
	var walk func(path string, id ID)
	walk = func(path string, id ID) {
		entries, err := fsys.ReadDir(id)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			p := path + e.Name
			switch e.Type {
			case unix.S_IFDIR:
				walk(p+"/", e.ID)
			case unix.S_IFLNK:
				target, err := fsys.Readlink(e.ID)
				lines = append(lines, fmt.Sprint(p, " -> ", target, err))
			default:
				f, err := fsys.Open(e.ID)
				if err != nil {
					t.Fatal(err)
				}
				a, _ := fsys.Attr(e.ID)
				content, err := io.ReadAll(io.NewSectionReader(f, 0, a.Size))
				lines = append(lines, fmt.Sprint(p, " ", string(content), err))
				f.Close()
			}
		}
	}
	walk("", fsys.Root())
	return lines, Skipped(fsys)
}

func TestHostileTar(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []tar.Header{
		{Name: "../../escape"}, {Name: "a/../../escape"}, {Name: "/etc/absolute"}, {Name: "./././here"},
		{Name: "link", Typeflag: tar.TypeSymlink, Linkname: "/etc"}, {Name: "link/passwd"},
		{Name: "twice", PAXRecords: map[string]string{"comment": "first"}}, {Name: "twice"},
		{Name: "full/file"}, {Name: "full"}, {Name: "twice/below"},
		{Name: "hard", Typeflag: tar.TypeLink, Linkname: "here"}, {Name: "nowhere", Typeflag: tar.TypeLink, Linkname: "../../etc/passwd"},
		{Name: "itself", Typeflag: tar.TypeLink, Linkname: "itself"}, {Name: "todir", Typeflag: tar.TypeLink, Linkname: "full"},
		{Name: strings.Repeat("n", 256)}, {Name: strings.Repeat("d/", 2000) + "deep"},
	} {
		content := ""
		if h.Typeflag == 0 {
			content = fmt.Sprint("of ", min(len(h.Name), 20))
			if h.PAXRecords != nil {
				content = "old"
			}
			h.Size, h.Mode = int64(len(content)), 0o644
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	lines, skipped := members(t, b.Bytes())
	want := []string{"etc/absolute of 13<nil>", "full/file of 9<nil>", "hard of 10<nil>", "here of 10<nil>", "link -> /etc<nil>", "twice of 5<nil>"}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Error(diff)
	}
	if len(skipped) != 10 {
		t.Errorf("left out: %s", strings.Join(skipped, "\n"))
	}
}

func TestHostileZip(t *testing.T) {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, name := range []string{"../escape", "/abs", "a/b", "a/b/c", "twice", "twice"} {
		f, err := w.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(f, name, b.Len())
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	lines, skipped := members(t, b.Bytes())
	if len(lines) != 3 || len(skipped) != 2 || !strings.HasPrefix(lines[0], "a/b a/b") || !strings.HasPrefix(lines[1], "abs /abs") {
		t.Errorf("%q, left out %q", lines, skipped)
	}
	// A member that says it is larger than it is, and one that is.
	for _, size := range []uint32{1 << 30, 1 << 20, 3} {
		damaged := bytes.Clone(b.Bytes())
		at := bytes.LastIndex(damaged, []byte("twice")) - 46 + 24
		le.PutUint32(damaged[at:], size)
		fsys, err := open(bytes.NewReader(damaged), int64(len(damaged)))
		if err != nil {
			t.Fatal(err)
		}
		e, err := NewNames(fsys).Lookup(fsys.Root(), "twice")
		if err != nil {
			t.Fatal(err)
		}
		f, err := fsys.Open(e.ID)
		if size > 64<<20 {
			if !errors.Is(err, unix.EFBIG) {
				t.Errorf("of %d bytes: %v", size, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.ReadAt(make([]byte, 10), 0); !errors.Is(err, unix.EIO) {
			t.Errorf("of %d bytes: %v", size, err)
		}
		f.Close()
	}
}

// TestBomb: what unpacks to too much is refused, and what is merely large is not.
func TestBomb(t *testing.T) {
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	chunk := make([]byte, 1<<20)
	for range 66 {
		if _, err := w.Write(chunk); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := open(bytes.NewReader(b.Bytes()), int64(b.Len())); !errors.Is(err, unix.EFBIG) {
		t.Errorf("of %d bytes: %v", b.Len(), err)
	}
	for most, want := range map[int64]error{1 << 20: nil, 1<<20 - 1: unix.EFBIG} {
		f, err := temporary()
		if err != nil {
			t.Fatal(err)
		}
		if n, err := unpack(f, bytes.NewReader(chunk), most); !errors.Is(err, want) || err == nil && n != 1<<20 {
			t.Errorf("at most %d: %d, %v", most, n, err)
		}
		f.Close()
	}
}

// TestCompressed: a file system may be compressed as a whole.
func TestCompressed(t *testing.T) {
	all := seeds(t)
	for _, name := range []string{"a.ext4.gz", "a.fat12.gz", "a.iso.gz"} {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		if _, err := w.Write(all[name]); err != nil {
			t.Fatal(err)
		}
		w.Close()
		fsys, err := open(bytes.NewReader(b.Bytes()), int64(b.Len()))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if n := visit(t, fsys); n == 0 {
			t.Errorf("%s: no file", name)
		}
		fsys.Close()
	}
}

// TestCase: it does not matter in FAT, and it does elsewhere.
func TestCase(t *testing.T) {
	all := seeds(t)
	for name, want := range map[string]error{"a.fat12.gz": nil, "a.ext4.gz": unix.ENOENT} {
		fsys, err := open(bytes.NewReader(all[name]), int64(len(all[name])))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := NewNames(fsys).Lookup(fsys.Root(), "FILE"); !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
