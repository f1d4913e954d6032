// SPDX-License-Identifier: Apache-2.0

// Tests of what an image may cost.

package image

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"
	"golang.org/x/sys/unix"
)

// TestXattrsBound: many attributes that share a large value.
func TestXattrsBound(t *testing.T) {
	e := &ext{bs: 65536}
	b := make([]byte, e.bs)
	for i := range 1024 {
		at := b[32+20*i:]
		at[0], at[1] = 4, 1 // length and prefix of the name
		le.PutUint32(at[8:], 32<<10)
		copy(at[16:], fmt.Sprintf("%04d", i))
	}
	var all attributes
	if err := e.parseXattrs(&all, b[32:], b); !errors.Is(err, unix.EIO) || len(all.all) > 256 {
		t.Errorf("%d of them, %v", len(all.all), err)
	}
}

// TestXZ: blocks of xz, which may ask for any dictionary.
func TestXZ(t *testing.T) {
	content := bytes.Repeat([]byte("some content "), 300)
	for _, check := range []byte{xz.None, xz.CRC32, xz.CRC64, xz.SHA256} {
		var b bytes.Buffer
		w, err := xz.WriterConfig{CheckSum: check, NoCheckSum: check == xz.None}.NewWriter(&b)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		p := b.Bytes()
		header := p[12:][:(int(p[12])+1)*4]
		header[bytes.Index(header, []byte{0x21, 1})+2] = 40 // 4 GiB
		le.PutUint32(header[len(header)-4:], crc32.ChecksumIEEE(header[:len(header)-4]))
		if out, err := unxz(p, 8192); err != nil || !bytes.Equal(out, content) {
			t.Errorf("check %d: %d bytes, %v", check, len(out), err)
		}
		if _, err := unxz(p, len(content)-1); !errors.Is(err, errTooMuch) {
			t.Errorf("check %d: for less room: %v", check, err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _ = unxz(p, 8192)
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; took > 16<<20 {
			t.Errorf("check %d: took %d bytes", check, took)
		}
		for n := range p {
			_, _ = unxz(p[:n], 8192) // no panic
		}
		if check == xz.None {
			continue
		}
		for at := 12 + len(header); at < 12+len(header)+30; at++ {
			p[at] ^= 0x10
			if out, err := unxz(p, 8192); err == nil && !bytes.Equal(out, content) {
				t.Errorf("check %d: damage at %d is not found", check, at)
			}
			p[at] ^= 0x10
		}
	}
}

// TestFATLoop: a file whose chain leads back into itself costs what its size wants.
func TestFATLoop(t *testing.T) {
	b := make([]byte, 1024)
	le.PutUint32(b[8:], 2) // what follows cluster 2
	le.PutUint16(b[64+26:], 2)
	le.PutUint32(b[64+28:], 10)
	f := &fat{r: bytes.NewReader(b), size: 1024, bits: 32, cluster: 512, data: 512, clusters: 0x0ffffff5}
	file, err := f.Open(64)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(file.(*fatFile).chain); n != 1 {
		t.Errorf("%d clusters", n)
	}
	le.PutUint32(b[64+28:], 513)
	if file, err := f.Open(64); err != nil || len(file.(*fatFile).chain) != 2 {
		t.Errorf("of two clusters: %v", err)
	}
	b[64+11] = fatDir
	if _, err := f.ReadDir(64); !errors.Is(err, unix.EIO) {
		t.Errorf("a directory: %v", err)
	}
}

// TestListingBound: names that are left out count, too.
func TestListingBound(t *testing.T) {
	l := listing{n: maxEntries - 1}
	if !l.add("..", 1, 0) || l.add("..", 1, 0) {
		t.Errorf("%d names", l.n)
	}
}

// TestXZDictionary: a file that asks for a large dictionary is refused, in whichever block
// and stream it does.
func TestXZDictionary(t *testing.T) {
	stream := func(dict int, blockSize int64) []byte {
		var b bytes.Buffer
		w, err := xz.WriterConfig{DictCap: 1 << 20, BlockSize: blockSize, CheckSum: xz.SHA256}.NewWriter(&b)
		if err == nil {
			random := make([]byte, 300_000) // chunks that are not compressed, and others
			_, _ = rand.NewChaCha8([32]byte{}).Read(random)
			_, err = w.Write(append(random, make([]byte, 300_000)...))
		}
		if err == nil {
			err = w.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		p := b.Bytes()
		if dict > 0 {
			// The last block says another dictionary.
			i := bytes.LastIndex(p, []byte{0x21, 1, lzma.EncodeDictCap(1 << 20)})
			p[i+2] = byte(dict)
			block := p[i-2:] // size and flags are before it
			size := (int(block[0]) + 1) * 4
			le.PutUint32(block[size-4:], crc32.ChecksumIEEE(block[:size-4]))
		}
		return p
	}
	plain, blocks := stream(0, 0), stream(0, 100_000)
	fits, huge := stream(int(lzma.EncodeDictCap(xzDictionary)), 0), stream(40, 0)
	for _, tc := range []struct {
		name    string
		parts   [][]byte
		refused bool
	}{
		{"one", [][]byte{plain}, false},
		{"several blocks, and streams with padding", [][]byte{blocks, make([]byte, 8), plain, plain}, false},
		{"as large as may be", [][]byte{fits}, false},
		{"4 GiB", [][]byte{huge}, true},
		{"4 GiB in a later block", [][]byte{stream(40, 100_000)}, true},
		{"4 GiB in a later stream", [][]byte{blocks, make([]byte, 4), huge}, true},
	} {
		file := bytes.Join(tc.parts, nil)
		err := boundXZ(bytes.NewReader(file))
		if refused := errors.Is(err, unix.EFBIG); refused != tc.refused || !refused && err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
		if tc.refused {
			continue
		}
		d, err := xz.NewReader(bytes.NewReader(file))
		if err == nil {
			_, err = io.Copy(io.Discard, d)
		}
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
	for n := range len(blocks) / 500 {
		_ = boundXZ(bytes.NewReader(blocks[:n*500])) // no panic, and an end
	}
}
