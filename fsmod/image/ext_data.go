// SPDX-License-Identifier: Apache-2.0

// ext4: where the blocks of a file are, directories, and content.

package image

import (
	"fmt"
	"io"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	extMaxDir   = 256 << 20 // bytes of a directory
	extMaxDepth = 5         // of a tree of extents
)

// An extRun says where blocks of a file are: n of them from block of the image at, or
// nowhere.
type extRun struct {
	first uint64 // in the file
	n     uint64
	at    uint64 // 0: a hole
}

// run finds where block i of a file is. What follows in one piece is in it.
func (e *ext) run(in *extInode, i uint64) (extRun, error) {
	if i >= 1<<32 {
		return extRun{}, corrupt("block %d of a file", i)
	}
	if in.flags&extExtents != 0 {
		return e.extent(in.raw[40:100], i, extMaxDepth)
	}
	return e.indirect(in, i)
}

// extent looks in a node of a tree of extents.
func (e *ext) extent(node []byte, i uint64, depth int) (extRun, error) {
	n, level := int(le.Uint16(node[2:])), int(le.Uint16(node[6:]))
	if le.Uint16(node) != 0xf30a || 12+12*n > len(node) || level > depth {
		return extRun{}, corrupt("node of extents: %d at level %d", n, level)
	}
	end := uint64(1) << 32 // where the next one begins
	var child uint64
	for k := n - 1; k >= 0; k-- {
		x := node[12+12*k:]
		first := uint64(le.Uint32(x))
		if first > i {
			end = min(end, first)
			continue
		}
		if level > 0 {
			child = uint64(le.Uint32(x[4:])) | uint64(le.Uint16(x[8:]))<<32
			break
		}
		length, at := uint64(le.Uint16(x[4:])), uint64(le.Uint32(x[8:]))|uint64(le.Uint16(x[6:]))<<32
		unwritten := length > 32768
		if unwritten {
			length -= 32768
		}
		if i >= first+length {
			break
		}
		r := extRun{first: i, n: first + length - i}
		if !unwritten {
			r.at = at + i - first
		}
		return r, nil
	}
	if child == 0 {
		return extRun{first: i, n: end - i}, nil
	}
	b, err := e.block(child)
	if err != nil {
		return extRun{}, err
	}
	r, err := e.extent(b, i, level-1)
	r.n = min(r.n, end-i) // of a hole at the end of the child
	return r, err
}

// indirect follows the block map of ext2.
func (e *ext) indirect(in *extInode, i uint64) (extRun, error) {
	per := uint64(e.bs / 4)
	one := func(b []byte, k uint64) uint64 { return uint64(le.Uint32(b[4*k:])) }
	if i < 12 {
		return extRun{i, 1, one(in.raw[40:], i)}, nil
	}
	rest, span := i-12, uint64(1)
	for level := uint64(0); level < 3; level++ {
		if rest >= span*per {
			rest -= span * per
			span *= per
			continue
		}
		at := one(in.raw[40:], 12+level)
		for ; at != 0; span /= per {
			b, err := e.block(at)
			if err != nil {
				return extRun{}, err
			}
			at = one(b, rest/span%per)
			if span == 1 {
				return extRun{i, 1, at}, nil
			}
		}
		return extRun{i, span*per - rest%(span*per), 0}, nil
	}
	return extRun{}, corrupt("block %d of a file with a block map", i)
}

// extFile is an open file.
type extFile struct {
	e  *ext
	in *extInode

	mu   sync.Mutex
	last extRun // guarded by mu
}

func (e *ext) Open(id ID) (File, error) {
	in, err := e.inode(id)
	if err != nil {
		return nil, err
	}
	switch {
	case in.typ() == unix.S_IFDIR:
		return nil, unix.EISDIR
	case in.typ() != unix.S_IFREG:
		return nil, unix.EINVAL
	case in.flags&extEncrypted != 0:
		return nil, unix.ENOKEY // as without the key
	}
	return &extFile{e: e, in: in}, nil
}

func (f *extFile) Close() error { return nil }

func (f *extFile) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, unix.EINVAL
	}
	if off >= f.in.size {
		return 0, io.EOF
	}
	var eof error
	if int64(len(p)) > f.in.size-off {
		p, eof = p[:f.in.size-off], io.EOF
	}
	if f.in.flags&extInline != 0 {
		b, err := f.e.inline(f.in)
		if err != nil {
			return 0, err
		}
		clear(p)
		if off < int64(len(b)) {
			copy(p, b[off:])
		}
		return len(p), eof
	}
	bs := uint64(f.e.bs)
	for len(p) > 0 {
		r, err := f.run(uint64(off) / bs)
		if err != nil {
			return n, err
		}
		skip := uint64(off) - r.first*bs
		part := p[:min(uint64(len(p)), r.n*bs-skip)]
		if r.at == 0 {
			clear(part)
		} else if r.at > uint64(f.e.size)/bs {
			return n, corrupt("block %d", r.at)
		} else if err := readFull(f.e.r, part, int64(r.at*bs+skip)); err != nil {
			return n, err
		}
		n, off, p = n+len(part), off+int64(len(part)), p[len(part):]
	}
	return n, eof
}

// run is that of the block, or the one before if it is in it.
func (f *extFile) run(i uint64) (extRun, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.last.n > 0 && i >= f.last.first && i < f.last.first+f.last.n {
		return f.last, nil
	}
	r, err := f.e.run(f.in, i)
	if err == nil && r.n == 0 {
		err = corrupt("empty run")
	}
	if err == nil {
		f.last = r
	}
	return r, err
}

// inline returns the data that an inode has in itself and among its extended attributes.
func (e *ext) inline(in *extInode) ([]byte, error) {
	b := append([]byte(nil), in.raw[40:100]...)
	if in.size > 60 {
		all, err := e.attributes(in)
		if err != nil {
			return nil, err
		}
		b = append(b, all["system.data"]...)
	}
	return b[:min(int64(len(b)), in.size)], nil
}

var extTypes = [...]uint32{0, unix.S_IFREG, unix.S_IFDIR, unix.S_IFCHR, unix.S_IFBLK, unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFLNK}

func (e *ext) ReadDir(id ID) ([]Entry, error) {
	in, err := e.inode(id)
	if err != nil {
		return nil, err
	}
	switch {
	case in.typ() != unix.S_IFDIR:
		return nil, unix.ENOTDIR
	case in.size > extMaxDir:
		return nil, corrupt("directory of %d bytes", in.size)
	case in.flags&extEncrypted != 0:
		return nil, fmt.Errorf("encrypted directory: %w", unix.EOPNOTSUPP)
	}
	var l listing
	if in.flags&extInline != 0 {
		b, err := e.inline(in)
		if err != nil {
			return nil, err
		}
		if len(b) < 4 { // the number of the parent
			return nil, corrupt("directory of %d bytes", len(b))
		}
		// The two parts are blocks of their own.
		if err := e.names(&l, b[4:min(60, len(b))]); err != nil || len(b) <= 60 {
			return l.entries, err
		}
		return l.entries, e.names(&l, b[60:])
	}
	f := &extFile{e: e, in: in}
	b := make([]byte, e.bs)
	for off := int64(0); off < in.size; off += e.bs {
		r, err := f.run(uint64(off / e.bs))
		if err != nil {
			return nil, err
		}
		if r.at == 0 {
			off = max(off, int64(r.first+r.n-1)*e.bs)
			continue
		}
		if err := readFull(f, b[:min(e.bs, in.size-off)], off); err != nil {
			return nil, err
		}
		if err := e.names(&l, b); err != nil {
			return nil, err
		}
	}
	return l.entries, nil
}

// names reads a block of a directory. Those of a hashed one's index look like an unused
// entry.
func (e *ext) names(l *listing, b []byte) error {
	for len(b) >= 8 {
		ino, length, n, typ := le.Uint32(b), int(le.Uint16(b[4:])), int(b[6]), b[7]
		if length == 0xffff || length == 0 && e.bs > 65535 {
			length = 65536
		}
		if e.incompat&extFiletype == 0 {
			typ = 0
		}
		if length < 8 || length > len(b) || 8+n > length {
			return corrupt("entry of %d bytes with a name of %d", length, n)
		}
		if ino != 0 && ino <= e.inodeCount {
			var mode uint32
			if int(typ) < len(extTypes) {
				mode = extTypes[typ]
			}
			if !l.add(string(b[8:8+n]), ID(ino), mode) {
				return corrupt("directory of more than %d names", maxEntries)
			}
		}
		b = b[length:]
	}
	return nil
}
