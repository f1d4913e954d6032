// SPDX-License-Identifier: Apache-2.0

// FAT12, FAT16 and FAT32 with long names, as of Microsoft's "FAT: General Overview of
// On-Disk Format" and the kernel's vfat.

package image

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf16"

	"golang.org/x/sys/unix"
)

// Attributes of an entry.
const (
	fatReadOnly = 0x01
	fatLabel    = 0x08
	fatDir      = 0x10
	fatLong     = 0x0f
)

// fatRoot is the ID of the root directory; that of others is the byte of their entry.
const fatRoot ID = 0

// fat is a FAT. It has no owners: all is its reader's.
type fat struct {
	r           io.ReaderAt
	size        int64
	bits        int   // of an element of the table
	table       int64 // where it begins
	cluster     int64 // bytes of one
	data        int64 // where cluster 2 begins
	clusters    uint32
	root        int64 // of FAT12 and FAT16: where the root directory is
	rootSize    int64
	rootCluster uint32 // of FAT32
	uid, gid    uint32
}

func openFAT(r io.ReaderAt, size int64) (FS, error) {
	b := readHead(r, 0, 512)
	if len(b) < 512 || b[510] != 0x55 || b[511] != 0xaa || b[0] != 0xeb && b[0] != 0xe9 {
		return nil, errFormat
	}
	sector, per := int64(le.Uint16(b[11:])), int64(b[13])
	power := func(n int64) bool { return n > 0 && n&(n-1) == 0 }
	if sector < 512 || sector > 4096 || !power(sector) || !power(per) || b[16] == 0 || b[16] > 2 || le.Uint16(b[14:]) == 0 {
		return nil, errFormat
	}
	reserved, rootEntries := int64(le.Uint16(b[14:])), int64(le.Uint16(b[17:]))
	total, length := int64(le.Uint16(b[19:])), int64(le.Uint16(b[22:]))
	if total == 0 {
		total = int64(le.Uint32(b[32:]))
	}
	f := &fat{r: r, size: size, cluster: sector * per, table: reserved * sector, rootSize: rootEntries * 32,
		uid: uint32(os.Geteuid()), gid: uint32(os.Getegid())}
	if length == 0 {
		length, f.rootCluster = int64(le.Uint32(b[36:])), le.Uint32(b[44:])
	}
	f.root = f.table + int64(b[16])*length*sector
	f.data = f.root + (f.rootSize+sector-1)/sector*sector
	count := (total*sector - f.data) / f.cluster
	if count <= 0 || f.data > size {
		return nil, corrupt("FAT: %d sectors, of which the data begins at byte %d", total, f.data)
	}
	switch {
	case f.rootCluster != 0 || le.Uint16(b[22:]) == 0:
		f.bits = 32
	case count < 4085:
		f.bits = 12
	case count < 65525:
		f.bits = 16
	default:
		f.bits = 32
	}
	count = min(count, length*sector*8/int64(f.bits)-2, 0x0ffffff5)
	if count <= 0 {
		return nil, corrupt("FAT: a table of %d sectors", length)
	}
	f.clusters = uint32(count)
	if _, err := f.ReadDir(fatRoot); err != nil {
		return nil, fmt.Errorf("FAT: root directory: %w", err)
	}
	return f, nil
}

func (f *fat) Format() string                       { return fmt.Sprintf("fat%d", f.bits) }
func (f *fat) Root() ID                             { return fatRoot }
func (f *fat) Close() error                         { return nil }
func (f *fat) Readlink(ID) (string, error)          { return "", unix.EINVAL }
func (f *fat) Xattrs(ID) (map[string][]byte, error) { return nil, nil }
func (f *fat) caseless()                            {}

// next returns the cluster after c; ok is false at the end of a chain.
func (f *fat) next(c uint32) (n uint32, ok bool, err error) {
	var b [4]byte
	switch f.bits {
	case 12:
		if err := readFull(f.r, b[:2], f.table+int64(c)*3/2); err != nil {
			return 0, false, err
		}
		if n = uint32(le.Uint16(b[:])); c&1 != 0 {
			n >>= 4
		}
		n &= 0xfff
	case 16:
		if err := readFull(f.r, b[:2], f.table+int64(c)*2); err != nil {
			return 0, false, err
		}
		n = uint32(le.Uint16(b[:]))
	default:
		if err := readFull(f.r, b[:], f.table+int64(c)*4); err != nil {
			return 0, false, err
		}
		n = le.Uint32(b[:]) & 0x0fffffff
	}
	return n, n < 0x0ffffff8&(1<<f.bits-1), nil
}

// chain returns the clusters from first on, up to most: more says that it goes on, which
// those do without end that lead back into themselves. One that leads to no cluster is an
// error.
func (f *fat) chain(first uint32, most int64) (all []uint32, more bool, err error) {
	for c, ok := first, first != 0; ok; {
		if int64(len(all)) >= most {
			return all, true, nil
		}
		if c < 2 || c-2 >= f.clusters {
			return nil, false, corrupt("chain from cluster %d, at %d after %d", first, c, len(all))
		}
		all = append(all, c)
		if c, ok, err = f.next(c); err != nil {
			return nil, false, err
		}
	}
	return all, false, nil
}

func (f *fat) at(cluster uint32) int64 { return f.data + int64(cluster-2)*f.cluster }

// entry reads the 32 bytes of an object's entry.
func (f *fat) entry(id ID) ([]byte, error) {
	b := make([]byte, 32)
	if int64(id) < f.root {
		return nil, corrupt("entry at %d", id)
	}
	return b, readFull(f.r, b, int64(id))
}

// first returns the cluster at which what an entry stands for begins.
func (f *fat) first(b []byte) uint32 {
	c := uint32(le.Uint16(b[26:]))
	if f.bits == 32 {
		c |= uint32(le.Uint16(b[20:])) << 16
	}
	return c
}

// fatTime is a date and a time of day; there is no zone, and UTC is taken for it.
func fatTime(date, clock uint16, hundredths byte) time.Time {
	if date == 0 {
		return time.Unix(0, 0)
	}
	return time.Date(1980+int(date>>9), time.Month(date>>5&15), int(date&31),
		int(clock>>11), int(clock>>5&63), int(clock&31)*2, int(hundredths)*1e7, time.UTC)
}

func (f *fat) Attr(id ID) (Attr, error) {
	dir := Attr{Ino: 1, Mode: unix.S_IFDIR | 0o755, Nlink: 2, UID: f.uid, GID: f.gid, Size: f.cluster,
		Atime: time.Unix(0, 0), Mtime: time.Unix(0, 0), Ctime: time.Unix(0, 0)}
	if id == fatRoot {
		return dir, nil
	}
	b, err := f.entry(id)
	if err != nil {
		return Attr{}, err
	}
	a := dir
	a.Ino = uint64(id)
	a.Mtime = fatTime(le.Uint16(b[24:]), le.Uint16(b[22:]), 0)
	a.Atime, a.Ctime = fatTime(le.Uint16(b[18:]), 0, 0), a.Mtime
	if b[11]&fatDir == 0 {
		a.Mode, a.Nlink, a.Size = unix.S_IFREG|0o755, 1, int64(le.Uint32(b[28:]))
	}
	if b[11]&fatReadOnly != 0 {
		a.Mode &^= 0o222
	}
	return a, nil
}

func (f *fat) ReadDir(id ID) ([]Entry, error) {
	const maxDir = 65536 * 32 // bytes, as of the kernel's FAT_MAX_DIR_SIZE
	first := f.rootCluster
	if id != fatRoot {
		b, err := f.entry(id)
		if err != nil {
			return nil, err
		}
		if b[11]&fatDir == 0 {
			return nil, unix.ENOTDIR
		}
		first = f.first(b)
	}
	var n fatNames
	if id == fatRoot && f.bits != 32 {
		b := make([]byte, f.rootSize)
		if err := readFull(f.r, b, f.root); err != nil {
			return nil, err
		}
		_, err := n.block(b, f.root)
		return n.list.entries, err
	}
	chain, more, err := f.chain(first, maxDir/f.cluster+1)
	if err == nil && more {
		err = corrupt("directory of more than %d bytes", maxDir)
	}
	if err != nil {
		return nil, err
	}
	b := make([]byte, f.cluster)
	for _, c := range chain {
		if err := readFull(f.r, b, f.at(c)); err != nil {
			return nil, err
		}
		if end, err := n.block(b, f.at(c)); end || err != nil {
			return n.list.entries, err
		}
	}
	return n.list.entries, nil
}

// fatNames collects the names of a directory, of which long ones are in pieces before
// the entry that they belong to, the last piece first.
type fatNames struct {
	list listing
	long []uint16
	want byte // the number of the piece that must come next
	sum  byte // of the short name that they belong to
}

// block reads entries that are at a byte of the image; end says that there are no more.
func (n *fatNames) block(b []byte, at int64) (end bool, err error) {
	for ; len(b) >= 32; b, at = b[32:], at+32 {
		switch {
		case b[0] == 0:
			return true, nil
		case b[0] == 0xe5: // removed
			n.long = nil
		case b[11]&0x3f == fatLong:
			n.piece(b[:32])
		case b[11]&fatLabel != 0:
			n.long = nil
		default:
			typ := uint32(unix.S_IFREG)
			if b[11]&fatDir != 0 {
				typ = unix.S_IFDIR
			}
			if !n.list.add(n.name(b[:32]), ID(at), typ) {
				return true, corrupt("directory of more than %d names", maxEntries)
			}
		}
	}
	return false, nil
}

func (n *fatNames) piece(b []byte) {
	num := b[0] & 0x3f
	if b[0]&0x40 != 0 {
		n.long, n.want, n.sum = make([]uint16, 0, 13*int(num)), num, b[13]
	}
	if n.long == nil || num == 0 || num != n.want || num > 20 || b[13] != n.sum {
		n.long = nil
		return
	}
	n.want--
	piece := make([]uint16, 0, 13)
	for _, part := range [][]byte{b[1:11], b[14:26], b[28:32]} {
		for ; len(part) > 0; part = part[2:] {
			piece = append(piece, le.Uint16(part))
		}
	}
	n.long = append(piece, n.long...)
}

// name returns the name of an entry: the long one, if it is this one's.
func (n *fatNames) name(b []byte) string {
	long := n.long
	n.long = nil
	var sum byte
	for _, c := range b[:11] {
		sum = sum<<7 + sum>>1 + c
	}
	if long != nil && n.want == 0 && sum == n.sum {
		for i, u := range long {
			if u == 0 {
				long = long[:i]
				break
			}
		}
		return string(utf16.Decode(long))
	}
	short := append([]byte(nil), b[:11]...)
	if short[0] == 0x05 {
		short[0] = 0xe5
	}
	base, extension := strings.TrimRight(oem(short[:8]), " "), strings.TrimRight(oem(short[8:]), " ")
	if b[12]&0x08 != 0 { // as Windows NT marks it
		base = strings.ToLower(base)
	}
	if b[12]&0x10 != 0 {
		extension = strings.ToLower(extension)
	}
	if extension != "" {
		base += "." + extension
	}
	return base
}

// oem takes what is not ASCII for Latin-1, which is not what DOS took it for, but makes
// names that differ from others.
func oem(b []byte) string {
	r := make([]rune, len(b))
	for i, c := range b {
		r[i] = rune(c)
	}
	return string(r)
}

// fatFile is an open file.
type fatFile struct {
	f     *fat
	size  int64
	chain []uint32
}

func (f *fat) Open(id ID) (File, error) {
	if id == fatRoot {
		return nil, unix.EISDIR
	}
	b, err := f.entry(id)
	if err != nil {
		return nil, err
	}
	if b[11]&fatDir != 0 {
		return nil, unix.EISDIR
	}
	file := &fatFile{f: f, size: int64(le.Uint32(b[28:]))}
	need := (file.size + f.cluster - 1) / f.cluster
	// A chain may be longer than the file.
	if file.chain, _, err = f.chain(f.first(b), need); err == nil && int64(len(file.chain)) < need {
		err = corrupt("file of %d clusters has %d", need, len(file.chain))
	}
	return file, err
}

func (f *fatFile) Close() error { return nil }

func (f *fatFile) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, unix.EINVAL
	}
	if off >= f.size {
		return 0, io.EOF
	}
	var eof error
	if int64(len(p)) > f.size-off {
		p, eof = p[:f.size-off], io.EOF
	}
	cs := f.f.cluster
	for len(p) > 0 {
		i, in := off/cs, off%cs
		k := i + 1 // the end of what is in one piece
		for want := in + int64(len(p)); (k-i)*cs < want && k < int64(len(f.chain)) && f.chain[k] == f.chain[k-1]+1; {
			k++
		}
		part := p[:min(int64(len(p)), (k-i)*cs-in)]
		if err := readFull(f.f.r, part, f.f.at(f.chain[i])+in); err != nil {
			return n, err
		}
		n, off, p = n+len(part), off+int64(len(part)), p[len(part):]
	}
	return n, eof
}
