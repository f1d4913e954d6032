// SPDX-License-Identifier: Apache-2.0

// ext2, ext3 and ext4: superblock, group descriptors and inodes. The format is that of
// the kernel's Documentation/filesystems/ext4.

package image

import (
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"
)

// Features that say how to read (incompat) and how the groups are (compat, ro_compat).
const (
	extFiletype = 1 << 1
	extRecover  = 1 << 2
	extMetaBG   = 1 << 4
	ext64Bit    = 1 << 7
	extEAInode  = 1 << 10

	// filetype, meta_bg, extents, 64bit, mmp, flex_bg, ea_inode, csum_seed, largedir,
	// inline_data, casefold
	extKnown = 1<<1 | 1<<4 | 1<<6 | 1<<7 | 1<<8 | 1<<9 | 1<<10 | 1<<13 | 1<<14 | 1<<15 | 1<<17

	extSparseSuper  = 1 << 0
	extSparseSuper2 = 1 << 9
)

// Flags of inodes.
const (
	extEncrypted = 0x800
	extExtents   = 0x80000
	extInline    = 0x10000000
)

// ext is an ext2, ext3 or ext4.
type ext struct {
	r        io.ReaderAt
	size     int64
	bs       int64 // bytes of a block
	incompat uint32
	sparse   bool // sparse_super
	sparse2  bool
	backups  [2]uint32 // of sparse_super2

	inodeCount, inodesPerGroup, blocksPerGroup, firstData, firstMeta uint32
	inodeSize, descSize                                              int64
}

func openExt(r io.ReaderAt, size int64) (FS, error) {
	b := readHead(r, 1024, 1024)
	if len(b) < 1024 || le.Uint16(b[56:]) != 0xef53 {
		return nil, errFormat
	}
	e := &ext{
		r: r, size: size, incompat: le.Uint32(b[96:]),
		inodeCount: le.Uint32(b), inodesPerGroup: le.Uint32(b[40:]), blocksPerGroup: le.Uint32(b[32:]),
		firstData: le.Uint32(b[20:]), firstMeta: le.Uint32(b[260:]),
		sparse: le.Uint32(b[100:])&extSparseSuper != 0, sparse2: le.Uint32(b[92:])&extSparseSuper2 != 0,
		backups: [2]uint32{le.Uint32(b[588:]), le.Uint32(b[592:])}, inodeSize: 128, descSize: 32,
	}
	logBS := le.Uint32(b[24:])
	if le.Uint32(b[76:]) > 0 { // revision 1 and above
		e.inodeSize = int64(le.Uint16(b[88:]))
	} else {
		e.incompat = 0
	}
	if e.incompat&ext64Bit != 0 {
		e.descSize = int64(le.Uint16(b[254:]))
	}
	switch unknown := e.incompat &^ (extKnown | extRecover); {
	case unknown != 0:
		return nil, fmt.Errorf("ext4: features %#x are not read: %w", unknown, unix.EOPNOTSUPP)
	case e.incompat&extRecover != 0:
		return nil, fmt.Errorf("ext4: it was not unmounted, and its journal has what is not in its place yet: e2fsck -p first: %w", unix.EUCLEAN)
	case logBS > 6:
		return nil, corrupt("ext4: blocks of 1024<<%d bytes", logBS)
	}
	if e.bs = 1024 << logBS; e.inodeSize < 128 || e.inodeSize > e.bs || e.descSize < 32 || e.descSize > e.bs ||
		e.inodesPerGroup == 0 || e.blocksPerGroup == 0 {
		return nil, corrupt("ext4: inodes of %d bytes, %d in a group, descriptors of %d", e.inodeSize, e.inodesPerGroup, e.descSize)
	}
	if a, err := e.Attr(e.Root()); err != nil || a.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil, corrupt("ext4: no root directory (%v)", err)
	}
	return e, nil
}

func (e *ext) Format() string { return "ext4" }
func (e *ext) Root() ID       { return 2 }
func (e *ext) Close() error   { return nil }

// block reads a block.
func (e *ext) block(n uint64) ([]byte, error) {
	if n == 0 || n > uint64(e.size/e.bs) {
		return nil, corrupt("block %d", n)
	}
	b := make([]byte, e.bs)
	return b, readFull(e.r, b, int64(n)*e.bs)
}

// hasSuper reports whether a group begins with a copy of the superblock.
func (e *ext) hasSuper(g uint32) bool {
	power := func(of uint32) bool {
		n := uint64(of)
		for n < uint64(g) {
			n *= uint64(of)
		}
		return n == uint64(g)
	}
	switch {
	case e.sparse2:
		return g == 0 || g == e.backups[0] || g == e.backups[1]
	case e.sparse:
		return g <= 1 || power(3) || power(5) || power(7)
	}
	return true
}

// inodeTable returns the byte at which the inodes of a group begin.
func (e *ext) inodeTable(g uint32) (int64, error) {
	per := uint32(e.bs / e.descSize)
	at := int64(e.firstData) + 1 + int64(g/per)
	if e.incompat&extMetaBG != 0 && g/per >= e.firstMeta {
		first := g / per * per
		at = int64(e.firstData) + int64(first)*int64(e.blocksPerGroup)
		if e.hasSuper(first) {
			at++
		}
	}
	b := make([]byte, e.descSize)
	if err := readFull(e.r, b, at*e.bs+int64(g%per)*e.descSize); err != nil {
		return 0, err
	}
	table := uint64(le.Uint32(b[8:]))
	if e.descSize >= 64 {
		table |= uint64(le.Uint32(b[0x28:])) << 32
	}
	if table == 0 || table > uint64(e.size/e.bs) {
		return 0, corrupt("inodes of group %d in block %d", g, table)
	}
	return int64(table) * e.bs, nil
}

// extInode is an inode, as it is on disk.
type extInode struct {
	raw   []byte
	ino   uint64
	mode  uint32
	size  int64
	flags uint32
}

func (i *extInode) typ() uint32 { return i.mode & unix.S_IFMT }

func (e *ext) inode(id ID) (*extInode, error) {
	if id == 0 || id > ID(e.inodeCount) {
		return nil, corrupt("inode %d of %d", id, e.inodeCount)
	}
	n := uint32(id - 1)
	table, err := e.inodeTable(n / e.inodesPerGroup)
	if err != nil {
		return nil, err
	}
	b := make([]byte, e.inodeSize)
	if err := readFull(e.r, b, table+int64(n%e.inodesPerGroup)*e.inodeSize); err != nil {
		return nil, err
	}
	in := &extInode{raw: b, ino: uint64(id), mode: uint32(le.Uint16(b)), flags: le.Uint32(b[32:])}
	in.size = int64(uint64(le.Uint32(b[4:])) | uint64(le.Uint32(b[108:]))<<32)
	if in.size < 0 {
		return nil, corrupt("inode %d of %d bytes", id, uint64(in.size))
	}
	return in, nil
}

// time returns the time at a byte of the inode, with the byte of what extends it.
func (i *extInode) time(at, extra int) time.Time {
	s, ns := int64(int32(le.Uint32(i.raw[at:]))), int64(0)
	if len(i.raw) > 128+4 && extra+4 <= 128+int(le.Uint16(i.raw[128:])) && extra+4 <= len(i.raw) {
		x := le.Uint32(i.raw[extra:])
		s += int64(x&3) << 32
		ns = int64(x >> 2)
	}
	return time.Unix(s, ns)
}

func (e *ext) Attr(id ID) (Attr, error) {
	in, err := e.inode(id)
	if err != nil {
		return Attr{}, err
	}
	b := in.raw
	a := Attr{
		Ino: in.ino, Mode: in.mode, Nlink: uint32(le.Uint16(b[26:])), Size: in.size,
		UID:   uint32(le.Uint16(b[2:])) | uint32(le.Uint16(b[120:]))<<16,
		GID:   uint32(le.Uint16(b[24:])) | uint32(le.Uint16(b[122:]))<<16,
		Atime: in.time(8, 140), Ctime: in.time(12, 132), Mtime: in.time(16, 136),
	}
	switch in.typ() {
	case unix.S_IFCHR, unix.S_IFBLK:
		if old := le.Uint32(b[40:]); old != 0 {
			a.Rdev = unix.Mkdev(old>>8&0xff, old&0xff)
		} else {
			a.Rdev = device(le.Uint32(b[44:]))
		}
	case unix.S_IFREG, unix.S_IFDIR, unix.S_IFLNK, unix.S_IFIFO, unix.S_IFSOCK:
	default:
		return Attr{}, corrupt("inode %d of mode %o", id, in.mode)
	}
	return a, nil
}

func (e *ext) Readlink(id ID) (string, error) {
	in, err := e.inode(id)
	if err != nil {
		return "", err
	}
	if in.typ() != unix.S_IFLNK {
		return "", unix.EINVAL
	}
	if in.size > maxTarget || in.flags&extEncrypted != 0 {
		return "", corrupt("symbolic link of %d bytes", in.size)
	}
	if in.flags&(extExtents|extInline) == 0 && in.size < 60 {
		return symlink(in.raw[40 : 40+in.size])
	}
	b := make([]byte, in.size)
	if err := readFull(&extFile{e: e, in: in}, b, 0); err != nil {
		return "", err
	}
	return symlink(b)
}
