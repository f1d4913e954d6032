// SPDX-License-Identifier: Apache-2.0

// zip, with the attributes that Info-ZIP adds.

package image

import (
	"archive/zip"
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

func openZip(r io.ReaderAt, size int64) (FS, error) {
	if b := readHead(r, 0, 4); !bytes.Equal(b, []byte("PK\x03\x04")) && !bytes.Equal(b, []byte("PK\x05\x06")) {
		return nil, errFormat
	}
	z, err := zip.NewReader(r, size)
	if z == nil {
		return nil, corrupt("zip: %v", err)
	}
	z.RegisterDecompressor(zstd.ZipMethodWinZip, zstd.ZipDecompressor(zstd.WithDecoderMaxWindow(zstdWindow)))
	t := newTree("zip")
	for _, f := range z.File {
		if err := t.addZip(r, size, f); err != nil {
			return nil, fmt.Errorf("zip: %w", err)
		}
	}
	t.finish()
	return t, nil
}

// zipMode returns the mode of a member, if its maker knew one.
func zipMode(f *zip.File) uint32 {
	const dosReadOnly, dosDir = 0x01, 0x10
	if by := f.CreatorVersion >> 8; by == 3 || by == 19 { // Unix, OS X
		if m := f.ExternalAttrs >> 16; m&unix.S_IFMT != 0 {
			return m
		} else if m != 0 && !strings.HasSuffix(f.Name, "/") {
			return m | unix.S_IFREG
		}
	}
	mode := uint32(unix.S_IFREG | 0o644)
	if strings.HasSuffix(f.Name, "/") || f.ExternalAttrs&dosDir != 0 {
		mode = unix.S_IFDIR | 0o755
	}
	if f.ExternalAttrs&dosReadOnly != 0 {
		mode &^= 0o222
	}
	return mode
}

// zipOwner reads the field that Info-ZIP keeps owners in (0x7875).
func zipOwner(extra []byte) (uid, gid uint32) {
	uid, gid = uint32(os.Geteuid()), uint32(os.Getegid())
	for len(extra) >= 4 {
		id, n := le.Uint16(extra), int(le.Uint16(extra[2:]))
		if extra = extra[4:]; n > len(extra) {
			return uid, gid
		}
		if f := extra[:n]; id == 0x7875 && n == 11 && f[0] == 1 && f[1] == 4 && f[6] == 4 {
			return le.Uint32(f[2:]), le.Uint32(f[7:])
		}
		extra = extra[n:]
	}
	return uid, gid
}

func (t *tree) addZip(r io.ReaderAt, size int64, f *zip.File) error {
	mode := zipMode(f)
	n := &node{attr: Attr{Mode: mode, Size: int64(f.UncompressedSize64), Mtime: f.Modified, Atime: f.Modified, Ctime: f.Modified}}
	n.attr.UID, n.attr.GID = zipOwner(f.Extra)
	if n.attr.Size < 0 {
		return corrupt("%.200q has %d bytes", f.Name, f.UncompressedSize64)
	}
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		n.children, n.attr.Size = map[string]ID{}, 0
	case unix.S_IFREG:
		n.open = func() (File, error) { return openZipped(r, size, f) }
	case unix.S_IFLNK:
		target, err := zipTarget(r, size, f)
		if err != nil {
			t.skip(f.Name, err.Error())
			return nil
		}
		n.target = target
	case unix.S_IFIFO, unix.S_IFSOCK:
		n.attr.Size = 0
	default: // zip has no numbers of devices
		t.skip(f.Name, fmt.Sprintf("of mode %o", mode))
		return nil
	}
	return t.add(f.Name, n)
}

// zipTarget reads the target of a symbolic link, which is its content.
func zipTarget(r io.ReaderAt, size int64, f *zip.File) (string, error) {
	if n := f.UncompressedSize64; n == 0 || n > maxTarget {
		return "", corrupt("symbolic link of %d bytes", n)
	}
	file, err := openZipped(r, size, f)
	if err != nil {
		return "", err
	}
	defer file.Close()
	b := make([]byte, f.UncompressedSize64)
	if err := readFull(file, b, 0); err != nil {
		return "", err
	}
	if bytes.IndexByte(b, 0) >= 0 {
		return "", corrupt("symbolic link with a NUL")
	}
	return string(b), nil
}

// openZipped opens a member. What is stored is read where it is, without a look at its
// check sum; else it goes through a spool.
func openZipped(r io.ReaderAt, size int64, f *zip.File) (File, error) {
	const encrypted = 1
	if f.Flags&encrypted != 0 {
		return nil, fmt.Errorf("%.200q is encrypted: %w", f.Name, unix.EACCES)
	}
	if f.Method == zip.Store {
		at, err := f.DataOffset()
		if err != nil {
			return nil, corrupt("%v", err)
		}
		if n := int64(f.UncompressedSize64); at < 0 || at > size || n > size-at {
			return nil, corrupt("%.200q ends beyond the archive", f.Name)
		}
		return section{io.NewSectionReader(r, at, int64(f.UncompressedSize64))}, nil
	}
	if float64(f.UncompressedSize64) > 64<<20+MaxRatio*float64(min(f.CompressedSize64, uint64(size))) {
		return nil, fmt.Errorf("%.200q holds more than %d times its size: unpack it by hand if it is trusted: %w", f.Name, MaxRatio, unix.EFBIG)
	}
	src, err := f.Open()
	switch {
	case err == zip.ErrAlgorithm:
		return nil, fmt.Errorf("%.200q: compression %d: %w", f.Name, f.Method, unix.EOPNOTSUPP)
	case err != nil:
		return nil, corrupt("%v", err)
	}
	return newSpool(src, int64(f.UncompressedSize64))
}
