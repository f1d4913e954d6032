// SPDX-License-Identifier: Apache-2.0

// Files that are compressed as a whole by xz: "The .xz File Format", version 1.2. The
// library makes a dictionary of the size that a block says, up to 4 GiB for some bytes of
// content, so the blocks are looked at before.

package image

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/ulikunitz/xz/lzma"
	"golang.org/x/sys/unix"
)

// xzDictionary is the largest dictionary that is made room for, bytes: twice that of xz -9,
// and as much as for zstd.
const xzDictionary = 128 << 20

// An xzScan goes over a file without decompressing it.
type xzScan struct {
	r   io.ReaderAt
	off int64
	n   uint64 // blocks of the stream
	err error  // of reading; io.EOF past the end
}

// boundXZ refuses a file with a block that asks for a larger dictionary than xzDictionary.
// What is malformed is left to the library, which stops there too.
func boundXZ(r io.ReaderAt) error {
	s := &xzScan{r: r}
	for s.err == nil {
		head := s.take(12) // magic, flags, check sum
		if s.err != nil || string(head[:6]) != "\xfd7zXZ\x00" {
			return nil
		}
		if err := s.blocks(xzCheckSize(head[7])); err != nil {
			return err
		}
		s.index()
		s.take(12)         // footer
		for s.err == nil { // padding of the stream
			if b := s.take(4); s.err != nil || string(b) != "\x00\x00\x00\x00" {
				s.off -= 4
				break
			}
		}
	}
	return nil
}

// xzCheckSize is how many bytes the check sum of a block has.
func xzCheckSize(flags byte) int64 {
	return [...]int64{0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64}[flags&15]
}

// take reads the next n bytes.
func (s *xzScan) take(n int) []byte {
	b := make([]byte, n)
	if s.err == nil {
		if got, err := s.r.ReadAt(b, s.off); got < n {
			s.err = err
		}
		s.off += int64(n)
	}
	return b
}

// blocks goes over those of a stream, to where the index begins.
func (s *xzScan) blocks(check int64) error {
	for s.n = 0; s.err == nil; s.n++ {
		size := s.take(1)[0]
		if s.err != nil || size == 0 {
			return nil
		}
		dict, ok := xzFilter(s.take((int(size)+1)*4 - 1))
		if s.err != nil || !ok {
			s.err = io.ErrUnexpectedEOF
			return nil
		}
		if dict > xzDictionary {
			return fmt.Errorf("asks for a dictionary of %d MiB, and %d are the most: unpack it by hand, or compress it anew with xz -9: %w", dict>>20, xzDictionary>>20, unix.EFBIG)
		}
		s.chunks()
		s.off = (s.off+3)&^3 + check
	}
	return nil
}

// xzFilter tells the dictionary of a block with one filter, LZMA2, by what is behind the first
// byte of its header.
func xzFilter(b []byte) (dict int64, ok bool) {
	flags, fields := b[0], b[1:]
	if flags&0x3f != 0 {
		return 0, false
	}
	for _, sized := range []byte{0x40, 0x80} { // of the block, compressed and not
		if flags&sized == 0 {
			continue
		}
		_, k := binary.Uvarint(fields)
		if k <= 0 {
			return 0, false
		}
		fields = fields[k:]
	}
	if len(fields) < 3 || fields[0] != 0x21 || fields[1] != 1 {
		return 0, false
	}
	dict, err := lzma.DecodeDictCap(fields[2])
	return dict, err == nil
}

// chunks goes over those of LZMA2, as xz-embedded's linux/lib/xz/xz_dec_lzma2.c has them.
func (s *xzScan) chunks() {
	for s.err == nil {
		control := s.take(1)[0]
		switch {
		case s.err != nil || control == 0:
			return
		case control >= 0x80:
			b := s.take(4)
			s.off += int64(binary.BigEndian.Uint16(b[2:])) + 1
			if control >= 0xc0 {
				s.off++ // properties
			}
		case control <= 2:
			s.off += int64(binary.BigEndian.Uint16(s.take(2))) + 1
		default:
			s.err = io.ErrUnexpectedEOF
		}
	}
}

// index goes over the index of a stream, whose first byte is behind.
func (s *xzScan) index() {
	begin := s.off - 1
	if s.varint() != s.n {
		s.err = io.ErrUnexpectedEOF
	}
	for left := 2 * s.n; left > 0 && s.err == nil; left-- { // each in two numbers
		s.varint()
	}
	s.off = begin + (s.off-begin+3)&^3 + 4 // padding, check sum
}

func (s *xzScan) varint() (n uint64) {
	for shift := 0; s.err == nil; shift += 7 {
		b := s.take(1)[0]
		if n |= uint64(b&0x7f) << shift; b&0x80 == 0 {
			return n
		}
		if shift > 56 {
			s.err = io.ErrUnexpectedEOF
		}
	}
	return n
}
