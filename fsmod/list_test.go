// SPDX-License-Identifier: Apache-2.0

// Who reads a merged directory beside another one.

package fsmod

import (
	"bytes"
	"encoding/binary"
	"strconv"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// TestListBeside: of those who read one description at the same time each gets other entries,
// and together they get all.
func TestListBeside(t *testing.T) {
	dir, err := unix.Open(t.TempDir(), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dir)
	var ls listings
	var l listing
	for i := range 5000 {
		l.entries = append(l.entries, Dirent{Name: strconv.Itoa(i), Ino: 1})
	}
	var mu sync.Mutex
	seen := make(map[string]int)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				_, _, b, err := ls.take(&l, dir, 100)
				if err != nil {
					t.Error(err)
				}
				if len(b) == 0 {
					return
				}
				mu.Lock()
				for ; len(b) > 0; b = b[binary.NativeEndian.Uint16(b[16:]):] {
					name, _, _ := bytes.Cut(b[19:], []byte{0})
					seen[string(name)]++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for i := range l.entries {
		if n := seen[l.entries[i].Name]; n != 1 {
			t.Fatalf("entry %d came %d times", i, n)
		}
	}
	if _, err := unix.Seek(dir, 0, unix.SEEK_SET); err != nil {
		t.Fatal(err)
	}
	at, next, _, _ := ls.take(&l, dir, 100)
	ls.putBack(dir, at, next+1) // somebody has read on
	if now, _ := unix.Seek(dir, 0, unix.SEEK_CUR); now != next {
		t.Errorf("at %d, not %d", now, next)
	}
	ls.putBack(dir, at, next)
	if now, _ := unix.Seek(dir, 0, unix.SEEK_CUR); now != at {
		t.Errorf("at %d, not %d", now, at)
	}
}
