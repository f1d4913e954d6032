// SPDX-License-Identifier: Apache-2.0

// How many numbers of files a copy on write notes.

package cow

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestIdentitiesBounded: who makes and removes files for ever, here on the device of the upper layer,
// which is not the lower one's, and by copies of the lower layer's, does not have ever more noted; a file
// that is removed while it is open is shown as before.
func TestIdentitiesBounded(t *testing.T) {
	const lowers = 100
	content := map[string]string{}
	for i := range lowers {
		content[fmt.Sprintf("low%d", i)] = "x"
	}
	lower, _ := lowerWith(t, content)
	upper, err := os.MkdirTemp("/dev/shm", "umrun-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(upper) })
	fs := open(t, lower, upper+"/up")
	var below, st unix.Stat_t
	if err := unix.Stat(lower, &below); err != nil {
		t.Fatal(err)
	}
	made := func(name string, flags int) (fd int) {
		t.Helper()
		fd, err := fs.Open(name, flags, 0o644)
		if err != nil {
			t.Fatal(name, err)
		}
		return fd
	}
	noted := func() int {
		fs.ids.mu.RLock()
		defer fs.ids.mu.RUnlock()
		return len(fs.ids.m)
	}

	kept := made("kept", unix.O_CREAT|unix.O_WRONLY)
	defer unix.Close(kept)
	if err := fs.Remove("kept", false); err != nil {
		t.Fatal(err)
	}
	for i := range lowers { // by copies
		name := fmt.Sprintf("low%d", i)
		unix.Close(made(name, unix.O_WRONLY))
		if err := fs.Remove(name, false); err != nil {
			t.Fatal(err)
		}
	}
	if unix.Fstat(kept, &st) != nil || st.Dev == below.Dev {
		t.Fatalf("the layers are on one device, %d: nothing is tested", st.Dev)
	}
	if dev, _, ok := fs.Shown(st.Dev, st.Ino); !ok || dev != below.Dev {
		t.Errorf("what was removed is shown on device %d (%v), not %d", dev, ok, below.Dev)
	}
	before := noted()
	for i := range 3 * keptRemoved {
		unix.Close(made("f", unix.O_CREAT|unix.O_WRONLY))
		switch {
		case i%3 == 0:
			err = fs.Remove("f", false)
		case i%3 == 1:
			err = fs.Rename("f", "g", 0)
		default:
			if err = fs.Remove("f", false); err == nil {
				if err = fs.Mkdir("d", 0o755); err == nil {
					err = fs.Remove("d", true)
				}
			}
		}
		if err != nil {
			t.Fatal(i, err)
		}
	}
	if n := noted(); n > before+keptRemoved+2 {
		t.Errorf("%d are noted, %d before", n, before)
	}
}
