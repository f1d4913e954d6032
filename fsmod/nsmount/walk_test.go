// SPDX-License-Identifier: Apache-2.0

// Tests of how a path is looked up.

package nsmount

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestWalk: a walker finds what the kernel finds, or the same error.
func TestWalk(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "a/b"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "a/f"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	dots := strings.Repeat("./", 1500)
	links := map[string]string{
		"abs": filepath.Join(dir, "a"), "up": "a/b/..", "dangling": "none", "self": "self", "a/b/out": "../../up/f",
		"long": dots + "a", "l0": "a",
	}
	for i := range 41 {
		links[fmt.Sprintf("l%d", i+1)] = fmt.Sprintf("l%d", i)
	}
	for name, target := range links {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	open := func(name string) int {
		fd, err := openPath(unix.AT_FDCWD, name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	w := walker{root: open("/"), cwd: open(dir), pid: os.Getpid(), tid: unix.Gettid(), fds: open("/proc/self/fd")}
	identify := func(fd int, err error) string {
		if err != nil {
			return err.Error()
		}
		defer unix.Close(fd)
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(st.Dev, st.Ino)
	}
	for _, path := range []string{
		"", ".", "..", "/", "//", "/..", "a", "a/", "a//b/", "a/f", "a/f/", "a/f/..", "a/none", "none/..", "abs/f", "abs/..", "up/f", "up/",
		"dangling", "dangling/", "self", "self/x", "a/b/out", "l39", "l40", "l39/f", "l40/f", "long/" + dots + "f", "long/" + dots + "long",
		strings.Repeat("./", 2047) + "a", strings.Repeat("./", 2047) + "aa", strings.Repeat("n", 256), filepath.Join(dir, "abs/b"), "/proc/self", "/proc/self/status",
	} {
		for _, follow := range []bool{false, true} {
			flags := unix.O_PATH | unix.O_CLOEXEC
			if !follow {
				flags |= unix.O_NOFOLLOW
			}
			want := identify(unix.Openat(w.cwd, path, flags, 0))
			if got := identify(w.find(path, follow)); got != want {
				t.Errorf("%.40q, follow=%t: %s, and the kernel finds %s", path, follow, got, want)
			}
		}
	}
}
