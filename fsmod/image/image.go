// SPDX-License-Identifier: Apache-2.0

// What an image is, and which kind of one a file is.

package image

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// An ID stands for an object of an image: two names of one object, hard links, have one
// ID if the format tells. It has no meaning outside of its FS.
type ID uint64

// An FS is an opened image. Errors wrap a [unix.Errno]: EIO for what the image has wrong,
// ENOTDIR, EISDIR, EINVAL where an object is of another type than the method wants, and
// EOPNOTSUPP for what this package cannot read.
type FS interface {
	Format() string // "squashfs", "tar.gz": for people
	Root() ID
	Attr(ID) (Attr, error)
	ReadDir(ID) ([]Entry, error) // without "." and ".."; each name once
	Readlink(ID) (string, error)
	Open(ID) (File, error) // a regular file
	Xattrs(ID) (map[string][]byte, error)
	Close() error
}

// A File is the content of a regular file.
type File interface {
	io.ReaderAt // with EOF at the end, as of bytes.Reader
	io.Closer
}

// Attr are the attributes of an object.
type Attr struct {
	Ino                 uint64
	Mode                uint32 // type and permissions, as of st_mode
	Nlink               uint32
	UID, GID            uint32
	Rdev                uint64 // of a device, as of makedev(3)
	Size                int64
	Atime, Mtime, Ctime time.Time
}

// An Entry is a name in a directory.
type Entry struct {
	Name string
	ID   ID
	Type uint32 // the type of the object, S_IFMT of its mode; 0: ask Attr
}

// Bounds of what is believed.
const (
	// MaxRatio is how many times its own size, beyond the first 64 MiB, a compressed
	// image may hold.
	MaxRatio = 200

	maxEntries = 1 << 21 // of a directory, and of an archive
	maxName    = 255     // NAME_MAX
	maxTarget  = 4095    // of a symbolic link: PATH_MAX without the NUL
	maxXattrs  = 1 << 16 // XATTR_SIZE_MAX, of one value; and XATTR_LIST_MAX
	allXattrs  = 4 << 20 // bytes of all that an object has
)

// errFormat says that a file is not of some format.
var errFormat = errors.New("not of this format")

// corrupt is an EIO with its reason.
func corrupt(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), unix.EIO)
}

// Open opens the image in the file at path, for reading.
func Open(path string) (FS, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	fsys, err := New(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("image %s: %w", path, err), f.Close())
	}
	return fsys, nil
}

// New opens the image in f, a regular file or a block device. f is the FS's from then
// on; with an error it stays the caller's.
func New(f *os.File) (FS, error) {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	if st, err := f.Stat(); err != nil || st.IsDir() {
		return nil, fmt.Errorf("is a directory: %w", unix.EISDIR)
	}
	fsys, err := open(f, size)
	if err != nil {
		return nil, err
	}
	return &owner{fsys, f}, nil
}

// owner closes the file of an FS after it.
type owner struct {
	FS
	f io.Closer
}

func (o *owner) Close() error { return errors.Join(o.FS.Close(), o.f.Close()) }

// open tells the format of size bytes.
func open(r io.ReaderAt, size int64) (FS, error) {
	if c := compression(r); c != "" {
		return openCompressed(r, size, c)
	}
	return openPlain(r, size)
}

// openPlain tells the format of what is not compressed as a whole. An iso9660 image that
// boots from a disk begins as one with a FAT does, so that the order matters.
func openPlain(r io.ReaderAt, size int64) (FS, error) {
	for _, try := range []func(io.ReaderAt, int64) (FS, error){openSquash, openExt, openISO, openZip, openTar, openFAT} {
		fsys, err := try(r, size)
		if !errors.Is(err, errFormat) {
			return fsys, err
		}
	}
	if head := readHead(r, 0, 520); len(head) == 520 && (bytes.Equal(head[512:], []byte("EFI PART")) || head[510] == 0x55 && head[511] == 0xaa) {
		return nil, fmt.Errorf("a disk with partitions: give the image of one of them: %w", unix.EINVAL)
	}
	return nil, fmt.Errorf("neither squashfs, ext2 to ext4, FAT, iso9660, zip nor tar: %w", unix.EINVAL)
}

// readHead returns up to n bytes at off.
func readHead(r io.ReaderAt, off int64, n int) []byte {
	p := make([]byte, n)
	got, _ := r.ReadAt(p, off)
	return p[:got]
}

// readFull fills p from off, or fails with EIO.
func readFull(r io.ReaderAt, p []byte, off int64) error {
	if off < 0 {
		return corrupt("offset %d", off)
	}
	if n, err := r.ReadAt(p, off); n < len(p) {
		if errors.Is(err, io.EOF) {
			return corrupt("the image ends before byte %d", off+int64(len(p)))
		}
		return fmt.Errorf("read at %d: %w", off, err)
	}
	return nil
}

// validName reports whether a directory may have name.
func validName(name string) bool {
	if name == "" || name == "." || name == ".." || len(name) > maxName {
		return false
	}
	for i := range len(name) {
		if name[i] == '/' || name[i] == 0 {
			return false
		}
	}
	return true
}

// symlink is the target of a symbolic link, up to a NUL.
func symlink(b []byte) (string, error) {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	if len(b) == 0 || len(b) > maxTarget {
		return "", corrupt("symbolic link of %d bytes", len(b))
	}
	return string(b), nil
}

// An attributes collects extended attributes. Many may share one value in the image.
type attributes struct {
	all  map[string][]byte
	size int
}

func (a *attributes) add(name string, value []byte) error {
	if a.all == nil {
		a.all = map[string][]byte{}
	}
	if a.size += len(name) + len(value); a.size > allXattrs {
		return corrupt("more than %d bytes of extended attributes", allXattrs)
	}
	a.all[name] = value
	return nil
}

// A listing collects the entries of a directory: names that are none, and second ones, are
// left out.
type listing struct {
	entries []Entry
	seen    map[string]bool
	n       int // what was to be added
}

// add returns false when the directory has as many entries as may be.
func (l *listing) add(name string, id ID, typ uint32) bool {
	if l.n++; l.n > maxEntries {
		return false
	}
	if !validName(name) || l.seen[name] {
		return true
	}
	if l.seen == nil {
		l.seen = map[string]bool{}
	}
	l.seen[name] = true
	l.entries = append(l.entries, Entry{Name: name, ID: id, Type: typ})
	return true
}

// device takes the number of a device apart as the kernel's new_decode_dev does
// (linux/kdev_t.h).
func device(dev uint32) uint64 {
	return unix.Mkdev(dev&0xfff00>>8, dev&0xff|dev>>12&0xfff00)
}
