// SPDX-License-Identifier: Apache-2.0

// Tests of what an image may cost.

package image

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

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
