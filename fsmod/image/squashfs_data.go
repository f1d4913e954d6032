// SPDX-License-Identifier: Apache-2.0

// squashfs: the content of files, extended attributes, and what decompresses both.

package image

import (
	"bytes"
	"compress/zlib"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz/lzma"
	"golang.org/x/sys/unix"
)

// A decompressor decompresses one block, to at most n bytes.
type decompressor func(b []byte, n int) ([]byte, error)

// errTooMuch says that a block holds more than a block can.
var errTooMuch = errors.New("decompresses to more than a block")

// squashDecompressor returns the one of a compression's number.
func squashDecompressor(id uint16) (decompressor, error) {
	stream := func(open func(io.Reader) (io.Reader, error)) (decompressor, error) {
		return func(b []byte, n int) ([]byte, error) {
			r, err := open(bytes.NewReader(b))
			if err != nil {
				return nil, err
			}
			var out bytes.Buffer
			if _, err := io.Copy(&out, io.LimitReader(r, int64(n)+1)); err != nil {
				return nil, err
			}
			if out.Len() > n {
				return nil, errTooMuch
			}
			return out.Bytes(), nil
		}, nil
	}
	switch id {
	case 1:
		return stream(func(r io.Reader) (io.Reader, error) { return zlib.NewReader(r) })
	case 2:
		return stream(func(r io.Reader) (io.Reader, error) { return lzma.ReaderConfig{DictCap: squashMaxDict}.NewReader(r) })
	case 4:
		return unxz, nil
	case 5:
		return func(b []byte, n int) ([]byte, error) {
			out := make([]byte, n)
			got, err := lz4.UncompressBlock(b, out)
			if err != nil {
				return nil, err
			}
			return out[:got], nil
		}, nil
	case 6:
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(2<<20), zstd.WithDecoderMaxWindow(2<<20))
		if err != nil {
			return nil, err
		}
		return func(b []byte, n int) ([]byte, error) {
			out, err := d.DecodeAll(b, make([]byte, 0, n))
			if err == nil && len(out) > n {
				err = errTooMuch
			}
			return out, err
		}, nil
	}
	return nil, fmt.Errorf("squashfs: compression %d (3 is lzo) is not read: %w", id, unix.EOPNOTSUPP)
}

// squashOpen is an open file: where each of its blocks is.
type squashOpen struct {
	s      *squash
	in     *squashInode
	sizes  []uint32
	starts []int64
}

func (s *squash) Open(id ID) (File, error) {
	in, err := s.inode(id)
	if err != nil {
		return nil, err
	}
	switch in.attr.Mode & unix.S_IFMT {
	case unix.S_IFREG:
	case unix.S_IFDIR:
		return nil, unix.EISDIR
	default:
		return nil, unix.EINVAL
	}
	bs := int64(s.blockSize)
	blocks := in.attr.Size / bs
	if in.fragment == squashNone && in.attr.Size%bs != 0 {
		blocks++
	}
	if blocks > squashMaxBlocks {
		return nil, corrupt("file of %d blocks", blocks)
	}
	f := &squashOpen{s: s, in: in}
	var b [4]byte
	at := in.start
	for range blocks {
		if err := in.rest.read(b[:]); err != nil {
			return nil, err
		}
		n := le.Uint32(b[:])
		f.sizes, f.starts = append(f.sizes, n), append(f.starts, at)
		at += int64(n & 0xffffff)
	}
	in.rest = nil
	return f, nil
}

func (f *squashOpen) Close() error { return nil }

func (f *squashOpen) ReadAt(p []byte, off int64) (int, error) {
	return readBlocks(p, off, f.in.attr.Size, int64(f.s.blockSize), f.block)
}

// readBlocks reads from a file of whole blocks, which block returns: nil is a hole, and
// a short one has zeros after it.
func readBlocks(p []byte, off, size, bs int64, block func(i int64) ([]byte, error)) (n int, err error) {
	if off < 0 {
		return 0, unix.EINVAL
	}
	var eof error
	if off >= size {
		return 0, io.EOF
	}
	if int64(len(p)) > size-off {
		p, eof = p[:size-off], io.EOF
	}
	for len(p) > 0 {
		b, err := block(off / bs)
		if err != nil {
			return n, err
		}
		in := off % bs
		part := p[:min(int64(len(p)), bs-in)]
		clear(part)
		if in < int64(len(b)) {
			copy(part, b[in:])
		}
		n, off, p = n+len(part), off+int64(len(part)), p[len(part):]
	}
	return n, eof
}

// block returns a block of the file, the last of which may be in a fragment.
func (f *squashOpen) block(i int64) ([]byte, error) {
	if i < int64(len(f.sizes)) {
		return f.s.dataAt(f.starts[i], f.sizes[i])
	}
	s := f.s
	if f.in.fragment >= s.nFragments {
		return nil, corrupt("fragment %d of %d", f.in.fragment, s.nFragments)
	}
	const per = squashMeta / 16
	b, err := s.metaAt(s.fragments[f.in.fragment/per])
	if err != nil {
		return nil, err
	}
	at := int(f.in.fragment % per * 16)
	if at+16 > len(b.data) {
		return nil, corrupt("fragment %d beyond its table", f.in.fragment)
	}
	data, err := s.dataAt(int64(le.Uint64(b.data[at:])), le.Uint32(b.data[at+8:]))
	if err != nil {
		return nil, err
	}
	tail := f.in.attr.Size % int64(s.blockSize)
	if int64(f.in.offset)+tail > int64(len(data)) {
		return nil, corrupt("the end of a file beyond its fragment")
	}
	return data[f.in.offset : int64(f.in.offset)+tail], nil
}

// dataAt reads a block of data.
func (s *squash) dataAt(at int64, size uint32) ([]byte, error) {
	n := size & 0xffffff
	if n == 0 {
		return nil, nil // a hole
	}
	if n > s.blockSize {
		return nil, corrupt("block of %d bytes", n)
	}
	if b, ok := s.data.get(at); ok {
		return b, nil
	}
	b := make([]byte, n)
	if err := readFull(s.r, b, at); err != nil {
		return nil, err
	}
	if size&(1<<24) == 0 {
		var err error
		if b, err = s.decompress(b, int(s.blockSize)); err != nil {
			return nil, corrupt("block at %d: %v", at, err)
		}
	}
	s.data.put(at, b, len(b))
	return b, nil
}

var squashPrefixes = [...]string{"user.", "trusted.", "security."}

func (s *squash) Xattrs(id ID) (map[string][]byte, error) {
	in, err := s.inode(id)
	if err != nil || in.xattr == squashNone || s.xattrs == nil {
		return nil, err
	}
	if in.xattr >= s.nXattrs {
		return nil, corrupt("extended attributes %d of %d", in.xattr, s.nXattrs)
	}
	const per = squashMeta / 16
	index, err := s.metaAt(s.xattrs[in.xattr/per])
	if err != nil {
		return nil, err
	}
	at := int(in.xattr % per * 16)
	if at+16 > len(index.data) {
		return nil, corrupt("extended attributes beyond their table")
	}
	ref, count := le.Uint64(index.data[at:]), le.Uint32(index.data[at+8:])
	if count > maxXattrs/8 {
		return nil, corrupt("%d extended attributes", count)
	}
	m, err := s.metaFrom(s.xattrBase+int64(ref>>16), int(ref&0xffff))
	if err != nil {
		return nil, err
	}
	var all attributes
	for range count {
		h, err := m.bytes(4)
		if err != nil {
			return nil, err
		}
		typ := le.Uint16(h)
		name, err := m.bytes(int(le.Uint16(h[2:])))
		if err != nil {
			return nil, err
		}
		value, err := s.xattrValue(m)
		if err == nil && typ&0x100 != 0 { // the value is elsewhere
			if len(value) != 8 {
				return nil, corrupt("reference to an extended attribute of %d bytes", len(value))
			}
			var there *metaReader
			ref := le.Uint64(value)
			if there, err = s.metaFrom(s.xattrBase+int64(ref>>16), int(ref&0xffff)); err == nil {
				value, err = s.xattrValue(there)
			}
		}
		if err != nil {
			return nil, err
		}
		if typ &= 0xff; int(typ) < len(squashPrefixes) && len(name) > 0 {
			if err := all.add(squashPrefixes[typ]+string(name), value); err != nil {
				return nil, err
			}
		}
	}
	return all.all, nil
}

func (s *squash) xattrValue(m *metaReader) ([]byte, error) {
	h, err := m.bytes(4)
	if err != nil {
		return nil, err
	}
	n := le.Uint32(h)
	if n > maxXattrs {
		return nil, corrupt("extended attribute of %d bytes", n)
	}
	return m.bytes(int(n))
}
