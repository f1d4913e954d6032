// SPDX-License-Identifier: Apache-2.0

// Images that are wrong: fuzzing, and what is cut or damaged.

package image

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// seeds returns small images by name, each of which holds a file "file" or "sp".
func seeds(t testing.TB) map[string][]byte {
	files, err := filepath.Glob("testdata/seeds/*.gz")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d seeds, %v", len(files), err)
	}
	all := map[string][]byte{}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		z, err := gzip.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(z)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		all[filepath.Base(name)] = b
	}
	return all
}

// visit goes through an image as far as its budget lets it, and holds every answer to
// what is promised of all images.
func visit(t testing.TB, fsys FS) (files int) {
	const most = 300
	budget := most
	check := func(err error) {
		t.Helper()
		var errno unix.Errno
		if err != nil && !errors.As(err, &errno) {
			t.Errorf("an error without an errno: %v", err)
		}
	}
	names := NewNames(fsys)
	var walk func(id ID, depth int)
	walk = func(id ID, depth int) {
		if budget--; budget < 0 || depth > 20 {
			return
		}
		a, err := fsys.Attr(id)
		check(err)
		if err != nil {
			return
		}
		if a.Size < 0 {
			t.Errorf("size %d", a.Size)
		}
		_, err = fsys.Xattrs(id)
		check(err)
		switch a.Mode & unix.S_IFMT {
		case unix.S_IFLNK:
			target, err := fsys.Readlink(id)
			check(err)
			if err == nil && (target == "" || len(target) > maxTarget) {
				t.Errorf("target of %d bytes", len(target))
			}
		case unix.S_IFREG:
			f, err := fsys.Open(id)
			check(err)
			if err != nil {
				return
			}
			files++
			b := make([]byte, 5000)
			for _, off := range []int64{0, a.Size / 2, a.Size - 100, a.Size} {
				if off < 0 || off > maxRead && off < a.Size {
					continue
				}
				n, err := f.ReadAt(b, off)
				if !errors.Is(err, io.EOF) {
					check(err)
				}
				if n > len(b) || int64(n) > a.Size-off || err == nil && n < len(b) {
					t.Errorf("read %d at %d of %d: %d, %v", len(b), off, a.Size, n, err)
				}
			}
			check(f.Close())
		case unix.S_IFDIR:
			entries, err := names.ReadDir(id)
			check(err)
			seen := map[string]bool{}
			for _, e := range entries {
				if !validName(e.Name) || seen[e.Name] {
					t.Errorf("name %q", e.Name)
				}
				seen[e.Name] = true
				if got, err := names.Lookup(id, e.Name); err != nil || got != e {
					t.Errorf("look up %q: %v, %v", e.Name, got, err)
				}
				walk(e.ID, depth+1)
			}
		}
	}
	walk(fsys.Root(), 0)
	return files
}

// maxRead is how far into a file visit reads, bytes: holes of some terabytes are nothing to a
// tar archive, whose files are read from their beginnings.
const maxRead = 256 << 20

// FuzzOpen opens whatever there is.
func FuzzOpen(f *testing.F) {
	for _, b := range seeds(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		fsys, err := open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			var errno unix.Errno
			if !errors.As(err, &errno) {
				t.Errorf("an error without an errno: %v", err)
			}
			return
		}
		visit(t, fsys)
		if err := fsys.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestSeeds holds the seeds to be images that open.
func TestSeeds(t *testing.T) {
	for name, b := range seeds(t) {
		fsys, err := open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if n := visit(t, fsys); n == 0 {
			t.Errorf("%s: no file", name)
		}
		fsys.Close()
	}
}

// TestTruncated and damaged images fail where they are damaged, in a bounded time.
func TestTruncated(t *testing.T) {
	for name, b := range seeds(t) {
		for _, n := range []int{1, 100, 513, 1100, 2000, len(b) / 2, len(b) - 1} {
			if n > len(b) {
				continue
			}
			if fsys, err := open(bytes.NewReader(b[:n]), int64(n)); err == nil {
				visit(t, fsys)
				fsys.Close()
			}
			damaged := bytes.Clone(b)
			for i := n / 2; i < min(len(b), n/2+16); i++ {
				damaged[i] ^= 0xff
			}
			if fsys, err := open(bytes.NewReader(damaged), int64(len(b))); err == nil {
				visit(t, fsys)
				fsys.Close()
			}
		}
		if t.Failed() {
			t.Fatal(name)
		}
	}
}
