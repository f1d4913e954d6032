// SPDX-License-Identifier: Apache-2.0

// squashfs: blocks of xz, as of "The .xz File Format". The library's reader makes a
// dictionary of the size that a block says, up to 4 GiB for some bytes of content.

package image

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"hash/crc64"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

var (
	errXZ     = errors.New("not xz as mksquashfs writes it")
	errFilter = errors.New("xz with a filter (-Xbcj), which is not read")
)

var ecma = crc64.MakeTable(crc64.ECMA)

// unxz decompresses a stream of one block with one filter, LZMA2, to at most n bytes,
// and needs no larger dictionary for that.
func unxz(b []byte, n int) ([]byte, error) {
	const header = 12 // magic, flags, check sum
	if len(b) < header+8 || string(b[:7]) != "\xfd7zXZ\x00\x00" {
		return nil, errXZ
	}
	check, block := b[7], b[header:]
	size := (int(block[0]) + 1) * 4
	if block[0] == 0 || size > len(block) || crc32.ChecksumIEEE(block[:size-4]) != le.Uint32(block[size-4:]) {
		return nil, errXZ
	}
	flags, fields := block[1], block[2:size-4]
	if flags&0x3f != 0 { // more filters than one, or what is reserved
		return nil, errFilter
	}
	for _, sized := range []byte{0x40, 0x80} { // of the block, compressed and not
		if flags&sized == 0 {
			continue
		}
		_, k := binary.Uvarint(fields)
		if k <= 0 {
			return nil, errXZ
		}
		fields = fields[k:]
	}
	if len(fields) < 3 || fields[0] != 0x21 || fields[1] != 1 {
		return nil, errXZ
	}
	data := bytes.NewReader(block[size:])
	r, err := lzma.Reader2Config{DictCap: max(n, lzma.MinDictCap)}.NewReader2(data)
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
	end := len(block) - data.Len()
	return out.Bytes(), checkXZ(check, out.Bytes(), block[min(len(block), (end+3)&^3):])
}

// checkXZ compares content with the check sum that begins sum.
func checkXZ(kind byte, content, sum []byte) error {
	var want []byte
	switch kind {
	case 0:
	case 1:
		want = le.AppendUint32(nil, crc32.ChecksumIEEE(content))
	case 4:
		want = le.AppendUint64(nil, crc64.Checksum(content, ecma))
	case 10:
		all := sha256.Sum256(content)
		want = all[:]
	default:
		return errXZ
	}
	if !bytes.HasPrefix(sum, want) {
		return errors.New("wrong check sum")
	}
	return nil
}
