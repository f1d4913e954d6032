// SPDX-License-Identifier: Apache-2.0

// tar: v7, ustar, pax and GNU.

package image

import (
	"archive/tar"
	"errors"
	"io"
	"strings"

	"golang.org/x/sys/unix"
)

// paxXattr begins the records of extended attributes.
const paxXattr = "SCHILY.xattr."

func openTar(r io.ReaderAt, size int64) (FS, error) {
	if b := readHead(r, 0, 512); len(b) < 512 || b[0] == 0 && string(b[257:262]) != "ustar" {
		return nil, errFormat
	}
	t := newTree("tar")
	at := io.NewSectionReader(r, 0, size)
	tr := tar.NewReader(at)
	for number := 0; ; number++ {
		h, err := tr.Next()
		switch {
		case number == 0 && err != nil && !errors.Is(err, tar.ErrInsecurePath):
			return nil, errFormat
		case errors.Is(err, io.EOF):
			t.finish()
			return t, nil
		case err != nil && !errors.Is(err, tar.ErrInsecurePath):
			return nil, corrupt("tar: after %d members: %v", number, err)
		}
		if h.Typeflag == tar.TypeLink {
			err = t.link(h.Name, h.Linkname)
		} else {
			var start int64
			if start, err = at.Seek(0, io.SeekCurrent); err != nil {
				return nil, err
			}
			err = t.addTar(r, size, h, start, number)
		}
		if err != nil {
			return nil, err
		}
	}
}

// sparse reports whether a member has holes: then where its bytes are only the reader
// knows.
func sparse(h *tar.Header) bool {
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return true
		}
	}
	return h.Typeflag == tar.TypeGNUSparse
}

// addTar adds a member whose content begins at start.
func (t *tree) addTar(r io.ReaderAt, size int64, h *tar.Header, start int64, number int) error {
	n := &node{attr: Attr{
		Mode: uint32(h.Mode & 0o7777), UID: uint32(h.Uid), GID: uint32(h.Gid),
		Mtime: h.ModTime, Atime: h.AccessTime, Ctime: h.ChangeTime,
	}}
	if n.attr.Atime.IsZero() {
		n.attr.Atime = h.ModTime
	}
	if n.attr.Ctime.IsZero() {
		n.attr.Ctime = h.ModTime
	}
	for k, v := range h.PAXRecords {
		if name, ok := strings.CutPrefix(k, paxXattr); ok && name != "" && len(name) <= maxName && len(v) <= maxXattrs {
			if n.xattrs == nil {
				n.xattrs = map[string][]byte{}
			}
			n.xattrs[name] = []byte(v)
		}
	}
	var typ uint32
	switch h.Typeflag {
	case tar.TypeDir:
		typ, n.children = unix.S_IFDIR, map[string]ID{}
	case tar.TypeSymlink:
		typ, n.target, n.attr.Size = unix.S_IFLNK, h.Linkname, int64(len(h.Linkname))
		if n.target == "" || len(n.target) > maxTarget || strings.Contains(n.target, "\x00") {
			t.skip(h.Name, "a symbolic link to nowhere")
			return nil
		}
	case tar.TypeChar, tar.TypeBlock:
		typ, n.attr.Rdev = unix.S_IFCHR, unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))
		if h.Typeflag == tar.TypeBlock {
			typ = unix.S_IFBLK
		}
	case tar.TypeFifo:
		typ = unix.S_IFIFO
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		typ, n.attr.Size = unix.S_IFREG, h.Size
		switch {
		case sparse(h) && h.Size > maxSparse:
			t.skip(h.Name, "too large")
			return nil
		case sparse(h):
			n.open = func() (File, error) { return openSparse(r, size, number) }
		case h.Size > size-start:
			return corrupt("tar: %.200q ends beyond the archive", h.Name)
		default:
			n.open = func() (File, error) { return section{io.NewSectionReader(r, start, h.Size)}, nil }
		}
	default:
		t.skip(h.Name, "of type "+string(h.Typeflag))
		return nil
	}
	n.attr.Mode |= typ
	return t.add(h.Name, n)
}

// openSparse opens a member with holes by its number.
func openSparse(r io.ReaderAt, size int64, number int) (File, error) {
	tr := tar.NewReader(io.NewSectionReader(r, 0, size))
	for i := 0; ; i++ {
		h, err := tr.Next()
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return nil, corrupt("tar: %v", err)
		}
		if i == number {
			return newSpool(io.NopCloser(tr), h.Size)
		}
	}
}
