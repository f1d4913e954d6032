// SPDX-License-Identifier: Apache-2.0

// ext4: extended attributes.

package image

import "encoding/binary"

const extXattrMagic = 0xea020000

var extPrefixes = map[byte]string{
	1: "user.", 2: "system.posix_acl_access", 3: "system.posix_acl_default", 4: "trusted.", 6: "security.", 7: "system.",
}

func (e *ext) Xattrs(id ID) (map[string][]byte, error) {
	in, err := e.inode(id)
	if err != nil {
		return nil, err
	}
	all, err := e.attributes(in)
	delete(all, "system.data") // content
	return all, err
}

// attributes reads those in the inode and those in a block of their own.
func (e *ext) attributes(in *extInode) (map[string][]byte, error) {
	var all attributes
	b := in.raw
	if len(b) > 132 {
		if at := 128 + int(le.Uint16(b[128:])); at+4 <= len(b) && le.Uint32(b[at:]) == extXattrMagic {
			if err := e.parseXattrs(&all, b[at+4:], b[at+4:]); err != nil {
				return nil, err
			}
		}
	}
	if n := uint64(le.Uint32(b[104:])) | uint64(le.Uint16(b[118:]))<<32; n != 0 {
		block, err := e.block(n)
		if err != nil {
			return nil, err
		}
		if le.Uint32(block) != extXattrMagic {
			return nil, corrupt("extended attributes in block %d", n)
		}
		if err := e.parseXattrs(&all, block[32:], block); err != nil {
			return nil, err
		}
	}
	return all.all, nil
}

// parseXattrs reads the entries b, whose values are at offsets of values.
func (e *ext) parseXattrs(all *attributes, b, values []byte) error {
	for len(b) >= 16 && le.Uint32(b) != 0 {
		n, index := int(b[0]), b[1]
		off, inode, size := int(le.Uint16(b[2:])), le.Uint32(b[4:]), le.Uint32(b[8:])
		if 16+n > len(b) || size > maxXattrs {
			return corrupt("extended attribute of %d bytes with a name of %d", size, n)
		}
		name := extPrefixes[index] + string(b[16:16+n])
		var value []byte
		switch {
		case inode != 0 && e.incompat&extEAInode != 0:
			in, err := e.inode(ID(inode))
			if err != nil {
				return err
			}
			value = make([]byte, size)
			if in.flags&extInline != 0 {
				return corrupt("extended attribute in inode %d", inode)
			}
			if err := readFull(&extFile{e: e, in: in}, value, 0); err != nil {
				return err
			}
		case off+int(size) > len(values):
			return corrupt("extended attribute at %d of %d", off, len(values))
		default:
			value = append(value, values[off:off+int(size)]...)
		}
		if index == 2 || index == 3 {
			value = posixACL(value)
		}
		if extPrefixes[index] != "" && value != nil || index == 1 {
			if err := all.add(name, value); err != nil {
				return err
			}
		}
		b = b[min(len(b), (16+n+3)&^3):]
	}
	return nil
}

// posixACL turns an ACL as ext4 keeps it (fs/ext4/acl.h) into one as the kernel tells it
// (linux/posix_acl_xattr.h). nil: it is none.
func posixACL(b []byte) []byte {
	const user, group = 0x02, 0x08
	if len(b) < 4 || le.Uint32(b) != 1 {
		return nil
	}
	out := binary.LittleEndian.AppendUint32(nil, 2)
	for b = b[4:]; len(b) >= 4; {
		tag, id := le.Uint16(b), uint32(0xffffffff)
		out = append(out, b[:4]...)
		if b = b[4:]; tag == user || tag == group {
			if len(b) < 4 {
				return nil
			}
			id, b = le.Uint32(b), b[4:]
		}
		out = binary.LittleEndian.AppendUint32(out, id)
	}
	return out
}
