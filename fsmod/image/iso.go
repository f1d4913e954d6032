// SPDX-License-Identifier: Apache-2.0

// iso9660 (ECMA-119) with Joliet: volume descriptors, directories, content.

package image

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf16"

	"golang.org/x/sys/unix"
)

const (
	isoSector   = 2048
	isoMaxDir   = 256 << 20 // bytes of a directory
	isoMaxParts = 1 << 12   // of a file

	isoDir  = 0x02 // flags of a record
	isoMore = 0x80
)

// iso is an iso9660. An object's ID is the byte at which its record is; that of a
// directory that Rock Ridge moved, and of the root, its own "." record.
type iso struct {
	r        io.ReaderAt
	size     int64
	bs       int64 // bytes of a block
	root     ID
	joliet   bool
	rock     bool
	skip     int // bytes before Rock Ridge's fields
	uid, gid uint32
}

func openISO(r io.ReaderAt, size int64) (FS, error) {
	var primary, joliet []byte
	for at := int64(16); at < 16+64; at++ {
		b := readHead(r, at*isoSector, isoSector)
		if len(b) < isoSector || string(b[1:6]) != "CD001" {
			break
		}
		escape := string(b[88:91])
		switch {
		case b[0] == 1 && primary == nil:
			primary = b
		case b[0] == 2 && (escape == "%/@" || escape == "%/C" || escape == "%/E"):
			joliet = b
		}
		if b[0] == 255 {
			break
		}
	}
	if primary == nil {
		return nil, errFormat
	}
	i := &iso{r: r, size: size, bs: int64(le.Uint16(primary[128:])), uid: uint32(os.Geteuid()), gid: uint32(os.Getegid())}
	if i.bs != 512 && i.bs != 1024 && i.bs != 2048 {
		return nil, corrupt("iso9660: blocks of %d bytes", i.bs)
	}
	i.root = ID(int64(le.Uint32(primary[158:])) * i.bs)
	if err := i.findRock(); err != nil {
		return nil, fmt.Errorf("iso9660: root directory: %w", err)
	}
	if !i.rock && joliet != nil {
		i.joliet, i.root = true, ID(int64(le.Uint32(joliet[158:]))*i.bs)
	}
	if a, err := i.Attr(i.root); err != nil || a.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil, corrupt("iso9660: no root directory (%v)", err)
	}
	return i, nil
}

func (i *iso) Format() string                       { return "iso9660" }
func (i *iso) Root() ID                             { return i.root }
func (i *iso) Close() error                         { return nil }
func (i *iso) Xattrs(ID) (map[string][]byte, error) { return nil, nil }

// isoRecord is a directory record.
type isoRecord struct {
	id      ID
	raw     []byte // all of it
	name    string // as it is written
	flags   byte
	at, len int64 // what it stands for
	rock    rock
}

// errEnd says that there is no record up to the end of a sector.
var errEnd = errors.New("no record")

// record reads the record at a byte.
func (i *iso) record(at int64) (*isoRecord, error) {
	room := min(255, isoSector-at%isoSector)
	if at < 0 || at > i.size {
		return nil, corrupt("directory record at %d", at)
	}
	b := readHead(i.r, at, int(room))
	if len(b) == 0 || b[0] == 0 {
		return nil, errEnd
	}
	if len(b) < 34 || int(b[0]) < 34 || int(b[0]) > len(b) || 33+int(b[32]) > int(b[0]) {
		return nil, corrupt("directory record at %d", at)
	}
	b = b[:b[0]]
	rec := &isoRecord{id: ID(at), raw: b, flags: b[25], name: string(b[33 : 33+b[32]]),
		at: (int64(le.Uint32(b[2:])) + int64(b[1])) * i.bs, len: int64(le.Uint32(b[10:]))}
	if i.rock {
		use := b[min(len(b), 33+int(b[32])+1-int(b[32])&1+i.skip):]
		if err := i.readRock(&rec.rock, use); err != nil {
			return nil, err
		}
	}
	return rec, nil
}

// displayed is the name as it is shown without Rock Ridge.
func (i *iso) displayed(rec *isoRecord) string {
	name := rec.name
	if i.joliet {
		u := make([]uint16, len(name)/2)
		for k := range u {
			u[k] = uint16(name[2*k])<<8 | uint16(name[2*k+1])
		}
		name = string(utf16.Decode(u))
		name, _, _ = strings.Cut(name, ";")
		return name
	}
	// As mount's map=normal.
	name, _, _ = strings.Cut(name, ";")
	return strings.ToLower(strings.TrimSuffix(name, "."))
}

// isoTime is the time of a record, ECMA-119 9.1.5.
func isoTime(b []byte) time.Time {
	if b[1] == 0 {
		return time.Unix(0, 0)
	}
	t := time.Date(1900+int(b[0]), time.Month(b[1]), int(b[2]), int(b[3]), int(b[4]), int(b[5]), 0, time.UTC)
	return t.Add(-time.Duration(int8(b[6])) * 15 * time.Minute)
}

func (i *iso) Attr(id ID) (Attr, error) {
	rec, err := i.record(int64(id))
	if err != nil {
		return Attr{}, corruptEnd(err)
	}
	t := isoTime(rec.raw[18:])
	a := Attr{Ino: uint64(id), Mode: unix.S_IFREG | 0o555, Nlink: 1, UID: i.uid, GID: i.gid, Size: rec.len, Atime: t, Mtime: t, Ctime: t}
	if rec.flags&isoDir != 0 {
		a.Mode, a.Nlink = unix.S_IFDIR|0o555, 2
	} else if rec.flags&isoMore != 0 {
		parts, err := i.parts(rec)
		if err != nil {
			return Attr{}, err
		}
		a.Size = parts[len(parts)-1].end
	}
	rec.rock.attr(&a)
	return a, nil
}

func corruptEnd(err error) error {
	if errors.Is(err, errEnd) {
		return corrupt("no directory record")
	}
	return err
}

func (i *iso) Readlink(id ID) (string, error) {
	rec, err := i.record(int64(id))
	if err != nil {
		return "", corruptEnd(err)
	}
	if rec.rock.mode&unix.S_IFMT != unix.S_IFLNK {
		return "", unix.EINVAL
	}
	return symlink([]byte(rec.rock.target))
}

func (i *iso) ReadDir(id ID) ([]Entry, error) {
	dir, err := i.record(int64(id))
	if err != nil {
		return nil, corruptEnd(err)
	}
	if dir.flags&isoDir == 0 {
		return nil, unix.ENOTDIR
	}
	if dir.len > isoMaxDir {
		return nil, corrupt("directory of %d bytes", dir.len)
	}
	var l listing
	more := false // what came before goes on in this record
	for at, end := dir.at, dir.at+dir.len; at < end; {
		rec, err := i.record(at)
		if errors.Is(err, errEnd) {
			at = (at/isoSector + 1) * isoSector
			continue
		} else if err != nil {
			return nil, err
		}
		at += int64(len(rec.raw))
		first := !more
		more = rec.flags&isoMore != 0
		if !first || rec.name == "\x00" || rec.name == "\x01" || rec.rock.moved {
			continue // a later part, "." or ".."
		}
		name, where := rec.rock.name, rec.id
		if name == "" {
			name = i.displayed(rec)
		}
		typ := rec.rock.mode & unix.S_IFMT
		if rec.rock.child != 0 {
			where, typ = ID(int64(rec.rock.child)*i.bs), unix.S_IFDIR
		} else if typ == 0 && rec.flags&isoDir != 0 {
			typ = unix.S_IFDIR
		} else if typ == 0 {
			typ = unix.S_IFREG
		}
		if !l.add(name, where, typ) {
			return nil, corrupt("directory of more than %d names", maxEntries)
		}
	}
	return l.entries, nil
}

// isoPart is a piece of a file, which ends at a byte of it.
type isoPart struct{ at, len, end int64 }

// parts returns where a file is: most are in one piece.
func (i *iso) parts(rec *isoRecord) ([]isoPart, error) {
	var parts []isoPart
	end, at := int64(0), int64(rec.id)
	for {
		end += rec.len
		parts = append(parts, isoPart{rec.at, rec.len, end})
		if rec.flags&isoMore == 0 {
			return parts, nil
		}
		if len(parts) == isoMaxParts {
			return nil, corrupt("file of more than %d parts", isoMaxParts)
		}
		at += int64(len(rec.raw))
		var err error
		if rec, err = i.record(at); errors.Is(err, errEnd) {
			at = (at/isoSector + 1) * isoSector
			rec, err = i.record(at)
		}
		if err != nil {
			return nil, corruptEnd(err)
		}
	}
}

// isoFile is an open file.
type isoFile struct {
	r     io.ReaderAt
	parts []isoPart
}

func (i *iso) Open(id ID) (File, error) {
	rec, err := i.record(int64(id))
	if err != nil {
		return nil, corruptEnd(err)
	}
	typ := rec.rock.mode & unix.S_IFMT
	switch {
	case rec.flags&isoDir != 0:
		return nil, unix.EISDIR
	case typ != 0 && typ != unix.S_IFREG:
		return nil, unix.EINVAL
	case rec.rock.packed:
		return nil, fmt.Errorf("zisofs: %w", unix.EOPNOTSUPP)
	}
	parts, err := i.parts(rec)
	if err != nil {
		return nil, err
	}
	return &isoFile{i.r, parts}, nil
}

func (f *isoFile) Close() error { return nil }

func (f *isoFile) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, unix.EINVAL
	}
	for _, part := range f.parts {
		if off >= part.end || len(p) == 0 {
			continue
		}
		in := off - (part.end - part.len)
		piece := p[:min(int64(len(p)), part.len-in)]
		if err := readFull(f.r, piece, part.at+in); err != nil {
			return n, err
		}
		n, off, p = n+len(piece), off+int64(len(piece)), p[len(piece):]
	}
	if len(p) > 0 {
		return n, io.EOF
	}
	return n, nil
}
