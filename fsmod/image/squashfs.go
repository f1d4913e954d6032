// SPDX-License-Identifier: Apache-2.0

// squashfs 4.0: superblock, tables, inodes and directories. The format is that of the
// kernel's fs/squashfs/squashfs_fs.h.

package image

import (
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"
)

var le = binary.LittleEndian

const (
	squashMeta       = 8192       // bytes of a metadata block, decompressed
	squashNone       = 0xffffffff // no fragment, no extended attributes
	squashNoTable    = 1<<64 - 1
	squashMaxBlocks  = 1 << 22 // of a file
	squashMetaBudget = 8 << 20 // bytes of decompressed metadata that are kept
	squashDataBudget = 32 << 20
	squashMaxDict    = 8 << 20 // bytes of an lzma dictionary; mksquashfs takes those of a block, 1 MiB at most
)

// squash is a squashfs.
type squash struct {
	r          io.ReaderAt
	size       int64
	blockSize  uint32
	decompress decompressor

	inodes, dirs int64 // where the tables begin
	root         ID
	ids          []uint32
	fragments    []int64 // where the metadata blocks of the fragment table are
	nFragments   uint32
	xattrs       []int64 // the same of the table of extended attributes
	nXattrs      uint32
	xattrBase    int64

	meta cache[int64, metaBlock]
	data cache[int64, []byte]
}

// metaBlock is a metadata block, and where the next one is.
type metaBlock struct {
	data []byte
	next int64
}

func openSquash(r io.ReaderAt, size int64) (FS, error) {
	b := readHead(r, 0, 96)
	if len(b) < 96 || le.Uint32(b) != 0x73717368 {
		return nil, errFormat
	}
	if major := le.Uint16(b[28:]); major != 4 {
		return nil, fmt.Errorf("squashfs %d.%d: only 4.0 is read: %w", major, le.Uint16(b[30:]), unix.EOPNOTSUPP)
	}
	s := &squash{
		r: r, size: size, blockSize: le.Uint32(b[12:]),
		inodes: int64(le.Uint64(b[64:])), dirs: int64(le.Uint64(b[72:])),
		root: ID(le.Uint64(b[32:])),
	}
	s.meta.budget, s.data.budget = squashMetaBudget, squashDataBudget
	if s.blockSize < 4096 || s.blockSize > 1<<20 || s.blockSize&(s.blockSize-1) != 0 {
		return nil, corrupt("squashfs: blocks of %d bytes", s.blockSize)
	}
	var err error
	if s.decompress, err = squashDecompressor(le.Uint16(b[20:])); err != nil {
		return nil, err
	}
	if s.ids, err = s.readIDs(int64(le.Uint64(b[48:])), int(le.Uint16(b[26:]))); err != nil {
		return nil, fmt.Errorf("squashfs: table of owners: %w", err)
	}
	s.nFragments = le.Uint32(b[16:])
	if s.fragments, err = s.readIndex(int64(le.Uint64(b[80:])), s.nFragments, 16); err != nil {
		return nil, fmt.Errorf("squashfs: table of fragments: %w", err)
	}
	if at := le.Uint64(b[56:]); at != squashNoTable {
		var h [16]byte
		if err := readFull(r, h[:], int64(at)); err != nil {
			return nil, fmt.Errorf("squashfs: table of extended attributes: %w", err)
		}
		s.xattrBase, s.nXattrs = int64(le.Uint64(h[:])), le.Uint32(h[8:])
		if s.xattrs, err = s.readIndex(int64(at)+16, s.nXattrs, 16); err != nil {
			return nil, fmt.Errorf("squashfs: table of extended attributes: %w", err)
		}
	}
	if a, err := s.Attr(s.root); err != nil || a.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil, corrupt("squashfs: no root directory (%v)", err)
	}
	return s, nil
}

func (s *squash) Format() string { return "squashfs" }
func (s *squash) Root() ID       { return s.root }
func (s *squash) Close() error   { return nil }

// readIndex reads where the metadata blocks of a table of n elements are.
func (s *squash) readIndex(at int64, n uint32, each int64) ([]int64, error) {
	blocks := (int64(n)*each + squashMeta - 1) / squashMeta
	if blocks*8 > s.size {
		return nil, corrupt("%d elements", n)
	}
	b := make([]byte, blocks*8)
	if err := readFull(s.r, b, at); err != nil {
		return nil, err
	}
	index := make([]int64, blocks)
	for i := range index {
		index[i] = int64(le.Uint64(b[8*i:]))
	}
	return index, nil
}

func (s *squash) readIDs(at int64, n int) ([]uint32, error) {
	index, err := s.readIndex(at, uint32(n), 4)
	if err != nil {
		return nil, err
	}
	ids := make([]uint32, 0, n)
	for _, at := range index {
		block, err := s.metaAt(at)
		if err != nil {
			return nil, err
		}
		for b := block.data; len(b) >= 4 && len(ids) < n; b = b[4:] {
			ids = append(ids, le.Uint32(b))
		}
	}
	if len(ids) != n {
		return nil, corrupt("%d of %d", len(ids), n)
	}
	return ids, nil
}

// metaAt reads the metadata block at a byte of the image.
func (s *squash) metaAt(at int64) (metaBlock, error) {
	if b, ok := s.meta.get(at); ok {
		return b, nil
	}
	var h [2]byte
	if err := readFull(s.r, h[:], at); err != nil {
		return metaBlock{}, err
	}
	n := int(le.Uint16(h[:]) & 0x7fff)
	if n == 0 || n > squashMeta {
		return metaBlock{}, corrupt("metadata block of %d bytes at %d", n, at)
	}
	raw := make([]byte, n)
	if err := readFull(s.r, raw, at+2); err != nil {
		return metaBlock{}, err
	}
	b := metaBlock{data: raw, next: at + 2 + int64(n)}
	if le.Uint16(h[:])&0x8000 == 0 {
		var err error
		if b.data, err = s.decompress(raw, squashMeta); err != nil {
			return metaBlock{}, corrupt("metadata block at %d: %v", at, err)
		}
	}
	s.meta.put(at, b, len(b.data)+64)
	return b, nil
}

// A metaReader reads on through metadata blocks.
type metaReader struct {
	s    *squash
	next int64
	data []byte
}

// metaFrom begins at an offset in a block.
func (s *squash) metaFrom(at int64, off int) (*metaReader, error) {
	b, err := s.metaAt(at)
	if err != nil {
		return nil, err
	}
	if off > len(b.data) {
		return nil, corrupt("offset %d in a metadata block of %d bytes", off, len(b.data))
	}
	return &metaReader{s, b.next, b.data[off:]}, nil
}

func (m *metaReader) read(p []byte) error {
	for len(p) > 0 {
		if len(m.data) == 0 {
			b, err := m.s.metaAt(m.next)
			if err != nil {
				return err
			}
			if len(b.data) == 0 {
				return corrupt("empty metadata block")
			}
			m.data, m.next = b.data, b.next
		}
		n := copy(p, m.data)
		p, m.data = p[n:], m.data[n:]
	}
	return nil
}

func (m *metaReader) bytes(n int) ([]byte, error) {
	p := make([]byte, n)
	return p, m.read(p)
}

// Types of inodes; those of the extended ones are seven more.
const (
	squashDir = 1 + iota
	squashFile
	squashLink
	squashBlock
	squashChar
	squashFIFO
	squashSocket
)

var squashTypes = [...]uint32{0, unix.S_IFDIR, unix.S_IFREG, unix.S_IFLNK, unix.S_IFBLK, unix.S_IFCHR, unix.S_IFIFO, unix.S_IFSOCK}

// squashInode is an inode, without the list of a file's blocks.
type squashInode struct {
	attr     Attr
	xattr    uint32
	start    int64 // of a directory's listing, relative to the table; of a file's blocks
	offset   uint32
	fragment uint32
	target   string
	rest     *metaReader // where the list of a file's blocks begins
}

// inode reads the inode of an ID, which is a reference: block and offset.
func (s *squash) inode(id ID) (*squashInode, error) {
	m, err := s.metaFrom(s.inodes+int64(id>>16&0xffffffff), int(id&0xffff))
	if err != nil {
		return nil, err
	}
	h, err := m.bytes(16)
	if err != nil {
		return nil, err
	}
	typ := le.Uint16(h)
	extended := typ > 7
	if extended {
		typ -= 7
	}
	uid, gid := int(le.Uint16(h[4:])), int(le.Uint16(h[6:]))
	if typ == 0 || typ > squashSocket || uid >= len(s.ids) || gid >= len(s.ids) {
		return nil, corrupt("inode of type %d, owner %d:%d", typ, uid, gid)
	}
	t := time.Unix(int64(int32(le.Uint32(h[8:]))), 0)
	in := &squashInode{xattr: squashNone, fragment: squashNone, rest: m, attr: Attr{
		Ino: uint64(le.Uint32(h[12:])), Mode: squashTypes[typ] | uint32(le.Uint16(h[2:])&0o7777), Nlink: 1,
		UID: s.ids[uid], GID: s.ids[gid], Atime: t, Mtime: t, Ctime: t,
	}}
	return in, in.body(m, typ, extended)
}

// body reads what comes after the head of an inode.
func (in *squashInode) body(m *metaReader, typ uint16, extended bool) error {
	sizes := map[bool][8]int{
		false: {squashDir: 16, squashFile: 16, squashLink: 8, squashBlock: 8, squashChar: 8, squashFIFO: 4, squashSocket: 4},
		true:  {squashDir: 24, squashFile: 40, squashLink: 8, squashBlock: 12, squashChar: 12, squashFIFO: 8, squashSocket: 8},
	}
	b, err := m.bytes(sizes[extended][typ])
	if err != nil {
		return err
	}
	u32 := func(at int) uint32 { return le.Uint32(b[at:]) }
	a := &in.attr
	switch typ {
	case squashDir:
		if extended {
			a.Nlink, a.Size, in.start = u32(0), int64(u32(4)), int64(u32(8))
			in.offset, in.xattr = uint32(le.Uint16(b[18:])), u32(20)
		} else {
			in.start, a.Nlink, a.Size = int64(u32(0)), u32(4), int64(le.Uint16(b[8:]))
			in.offset = uint32(le.Uint16(b[10:]))
		}
	case squashFile:
		if extended {
			in.start, a.Size, a.Nlink = int64(le.Uint64(b)), int64(le.Uint64(b[8:])), u32(24)
			in.fragment, in.offset, in.xattr = u32(28), u32(32), u32(36)
		} else {
			in.start, in.fragment, in.offset, a.Size = int64(u32(0)), u32(4), u32(8), int64(u32(12))
		}
		if a.Size < 0 {
			return corrupt("file of %d bytes", uint64(a.Size))
		}
	case squashLink:
		n := u32(4)
		if a.Nlink = u32(0); n == 0 || n > maxTarget {
			return corrupt("symbolic link of %d bytes", n)
		}
		target, err := m.bytes(int(n))
		if err != nil {
			return err
		}
		if in.target, a.Size = string(target), int64(n); extended {
			x, err := m.bytes(4)
			if err != nil {
				return err
			}
			in.xattr = le.Uint32(x)
		}
	case squashBlock, squashChar:
		a.Nlink, a.Rdev = u32(0), device(u32(4))
		if extended {
			in.xattr = u32(8)
		}
	default:
		if a.Nlink = u32(0); extended {
			in.xattr = u32(4)
		}
	}
	return nil
}

func (s *squash) Attr(id ID) (Attr, error) {
	in, err := s.inode(id)
	if err != nil {
		return Attr{}, err
	}
	return in.attr, nil
}

func (s *squash) Readlink(id ID) (string, error) {
	in, err := s.inode(id)
	if err != nil {
		return "", err
	}
	if in.attr.Mode&unix.S_IFMT != unix.S_IFLNK {
		return "", unix.EINVAL
	}
	return symlink([]byte(in.target))
}

func (s *squash) ReadDir(id ID) ([]Entry, error) {
	in, err := s.inode(id)
	if err != nil {
		return nil, err
	}
	if in.attr.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil, unix.ENOTDIR
	}
	var l listing
	left := in.attr.Size - 3 // the kernel's count has "." and ".." in it
	if left <= 0 {
		return nil, nil
	}
	m, err := s.metaFrom(s.dirs+in.start, int(in.offset))
	if err != nil {
		return nil, err
	}
	for left >= 12 {
		h, err := m.bytes(12)
		if err != nil {
			return nil, err
		}
		left -= 12
		n, block := le.Uint32(h), ID(le.Uint32(h[4:]))
		if n >= 256 {
			return nil, corrupt("run of %d names", n)
		}
		for range n + 1 {
			e, err := m.bytes(8)
			if err != nil {
				return nil, err
			}
			name, err := m.bytes(int(le.Uint16(e[6:])) + 1)
			if err != nil {
				return nil, err
			}
			if left -= 8 + int64(len(name)); left < 0 {
				return nil, corrupt("names beyond the end of their directory")
			}
			typ := le.Uint16(e[4:])
			if typ > squashSocket {
				typ -= 7
			}
			if typ == 0 || typ > squashSocket {
				return nil, corrupt("name of type %d", typ)
			}
			if !l.add(string(name), block<<16|ID(le.Uint16(e)), squashTypes[typ]) {
				return nil, corrupt("directory of more than %d names", maxEntries)
			}
		}
	}
	return l.entries, nil
}
