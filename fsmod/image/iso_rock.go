// SPDX-License-Identifier: Apache-2.0

// Rock Ridge (IEEE P1282) over SUSP (P1281): what iso9660 lacks to be a file system of
// Unix.

package image

import (
	"errors"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// maxContinued is how many areas a record may go on in.
const maxContinued = 32

// rock is what the fields of a record say.
type rock struct {
	name   string // NM
	mode   uint32 // PX; 0: none
	nlink  uint32
	uid    uint32
	gid    uint32
	rdev   uint64 // PN
	target string // SL
	child  uint32 // CL: the block of the directory that this record stands for
	moved  bool   // RE: a directory that is to be seen elsewhere
	packed bool   // ZF
	times  [3]time.Time

	open bool // the last component of target goes on
}

// attr puts into a what the fields say.
func (r *rock) attr(a *Attr) {
	if r.mode == 0 {
		return
	}
	a.Mode, a.Nlink, a.UID, a.GID, a.Rdev = r.mode, r.nlink, r.uid, r.gid, r.rdev
	if r.mode&unix.S_IFMT == unix.S_IFLNK {
		a.Size = int64(len(r.target))
	}
	for k, t := range []*time.Time{&a.Mtime, &a.Atime, &a.Ctime} {
		if !r.times[k].IsZero() {
			*t = r.times[k]
		}
	}
}

// findRock looks for Rock Ridge in the root directory's "." record.
func (i *iso) findRock() error {
	rec, err := i.record(int64(i.root))
	if err != nil {
		return corruptEnd(err)
	}
	use := rec.raw[min(len(rec.raw), 34):]
	if len(use) < 7 || string(use[:2]) != "SP" || use[4] != 0xbe || use[5] != 0xef {
		return nil
	}
	i.skip = int(use[6])
	var r rock
	if err := i.readRock(&r, use); err == nil && r.mode != 0 {
		i.rock = true
	} else if err != nil && !errors.Is(err, unix.EIO) {
		return err
	}
	return nil
}

// readRock reads the fields in b and in the areas that it goes on in.
func (i *iso) readRock(r *rock, b []byte) error {
	for range maxContinued {
		var block, off, n uint32
	fields:
		for len(b) >= 4 {
			length := int(b[2])
			if length < 4 || length > len(b) {
				break // padding
			}
			f := b[:length]
			b = b[length:]
			switch string(f[:2]) {
			case "ST":
				break fields
			case "CE":
				if len(f) >= 28 {
					block, off, n = le.Uint32(f[4:]), le.Uint32(f[12:]), le.Uint32(f[20:])
				}
			default:
				r.field(f)
			}
		}
		if n == 0 {
			return nil
		}
		if n > isoSector || off > isoSector {
			return corrupt("Rock Ridge goes on for %d bytes", n)
		}
		b = make([]byte, n)
		if err := readFull(i.r, b, int64(block)*i.bs+int64(off)); err != nil {
			return err
		}
	}
	return corrupt("Rock Ridge goes on in more than %d areas", maxContinued)
}

// field takes in one field.
func (r *rock) field(f []byte) {
	switch string(f[:2]) {
	case "PX":
		if len(f) >= 36 {
			r.mode, r.nlink, r.uid, r.gid = le.Uint32(f[4:])&0xffff, le.Uint32(f[12:]), le.Uint32(f[20:]), le.Uint32(f[28:])
		}
	case "PN":
		if len(f) >= 20 {
			high, low := le.Uint32(f[4:]), le.Uint32(f[12:])
			if high == 0 && low > 0xff { // as the kernel's parse_rock_ridge_inode
				high, low = low>>8, low&0xff
			}
			r.rdev = unix.Mkdev(high, low)
		}
	case "NM":
		if len(f) >= 5 && f[4]&6 == 0 && len(r.name) <= maxName {
			r.name += string(f[5:])
		}
	case "SL":
		if len(f) >= 5 {
			r.components(f[5:])
		}
	case "TF":
		if len(f) >= 5 {
			r.stamps(f[4], f[5:])
		}
	case "CL":
		if len(f) >= 12 {
			r.child = le.Uint32(f[4:])
		}
	case "RE":
		r.moved = true
	case "ZF":
		r.packed = true
	}
}

// components adds those of an SL field to the target.
func (r *rock) components(b []byte) {
	for len(b) >= 2 && len(r.target) <= maxTarget {
		flags, n := b[0], int(b[1])
		if 2+n > len(b) {
			return
		}
		if !r.open && r.target != "" && !strings.HasSuffix(r.target, "/") {
			r.target += "/"
		}
		switch {
		case flags&2 != 0:
			r.target += "."
		case flags&4 != 0:
			r.target += ".."
		case flags&8 != 0:
			r.target = "/"
		default:
			r.target += string(b[2 : 2+n])
		}
		r.open = flags&1 != 0
		b = b[2+n:]
	}
}

// stamps reads those of a TF field: creation, then the three that there are here.
func (r *rock) stamps(flags byte, b []byte) {
	size := 7
	if flags&0x80 != 0 {
		size = 17
	}
	for bit := range 4 {
		if flags&(1<<bit) == 0 {
			continue
		}
		if len(b) < size {
			return
		}
		if bit > 0 {
			if size == 7 {
				r.times[bit-1] = isoTime(b)
			} else {
				r.times[bit-1] = isoLongTime(b)
			}
		}
		b = b[size:]
	}
}

// isoLongTime is a time in digits, ECMA-119 8.4.26.1.
func isoLongTime(b []byte) time.Time {
	t, err := time.Parse("20060102150405", string(b[:14]))
	if err != nil {
		return time.Unix(0, 0)
	}
	var hundredths time.Duration
	if b[14] >= '0' && b[14] <= '9' && b[15] >= '0' && b[15] <= '9' {
		hundredths = time.Duration(b[14]-'0')*10 + time.Duration(b[15]-'0')
	}
	return t.Add(hundredths*10*time.Millisecond - time.Duration(int8(b[16]))*15*time.Minute)
}
