// SPDX-License-Identifier: Apache-2.0

// Images that are compressed as a whole.

package image

import (
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"golang.org/x/sys/unix"
)

// zstdWindow is the largest window that is made room for: that of zstd --long=27.
const zstdWindow = 128 << 20

// compression tells how a file is compressed, "" for not at all.
func compression(r io.ReaderAt) string {
	head := readHead(r, 0, 6)
	for _, c := range []struct{ magic, name string }{
		{"\x1f\x8b\x08", "gz"}, {"\x28\xb5\x2f\xfd", "zst"}, {"\xfd7zXZ\x00", "xz"}, {"BZh", "bz2"},
	} {
		if bytes.HasPrefix(head, []byte(c.magic)) {
			return c.name
		}
	}
	return ""
}

// decompressed is the content of r.
func decompressed(r io.Reader, c string) (io.ReadCloser, error) {
	switch c {
	case "gz":
		return gzip.NewReader(r)
	case "xz":
		d, err := xz.NewReader(r)
		return io.NopCloser(d), err
	case "bz2":
		return io.NopCloser(bzip2.NewReader(r)), nil
	}
	d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(zstdWindow))
	if err != nil {
		return nil, err
	}
	return d.IOReadCloser(), nil
}

// openCompressed opens what is in a compressed file, through a temporary one.
func openCompressed(r io.ReaderAt, size int64, c string) (FS, error) {
	if c == "xz" {
		if err := boundXZ(io.NewSectionReader(r, 0, size)); err != nil {
			return nil, fmt.Errorf("xz: %w", err)
		}
	}
	d, err := decompressed(io.NewSectionReader(r, 0, size), c)
	if err != nil {
		return nil, corrupt("%s: %v", c, err)
	}
	defer d.Close()
	f, err := temporary()
	if err != nil {
		return nil, fmt.Errorf("temporary file: %w", err)
	}
	n, err := unpack(f, d, 64<<20+MaxRatio*size)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", c, err), f.Close())
	}
	fsys, err := openPlain(f, n)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", c, err), f.Close())
	}
	if t, ok := fsys.(*tree); ok {
		t.format += "." + c
	}
	return &owner{fsys, f}, nil
}

// unpack writes what d gives to f, up to most bytes.
func unpack(f io.WriterAt, d io.Reader, most int64) (n int64, err error) {
	b := make([]byte, spoolChunk)
	for err == nil {
		got := 0
		for got < len(b) && err == nil {
			var k int
			k, err = d.Read(b[got:])
			got += k
		}
		if n+int64(got) > most {
			return 0, fmt.Errorf("holds more than %d times its size: unpack it by hand if it is trusted: %w", MaxRatio, unix.EFBIG)
		}
		// Holes stay holes, but for the last one, which sets the size.
		if p := b[:got]; got > 0 && (err != nil || !bytes.Equal(p, zeros[:got])) {
			if _, err := f.WriteAt(p, n); err != nil {
				return 0, fmt.Errorf("temporary file: %w", err)
			}
		}
		n += int64(got)
	}
	if !errors.Is(err, io.EOF) {
		return 0, corrupt("%v", err)
	}
	return n, nil
}
