// SPDX-License-Identifier: Apache-2.0

// Tests of programs that the kernel finds as well.

package fsmod_test

import (
	"os"
	"strings"
	"testing"

	"umrun/fsmod"
)

// execFlips executes a path in memory that another process writes to, or that names one file and then
// another, and tells how the children ended: by what the program returned, or by a signal.
const execFlips = `
import ctypes, mmap, os, signal, sys
good, other = sys.argv[2].encode(), sys.argv[3].encode()
libc = ctypes.CDLL(None)
shared = mmap.mmap(-1, 4096)
shared[:len(good)] = good
at = ctypes.addressof(ctypes.c_char.from_buffer(shared))
argv = (ctypes.c_char_p * 2)(b"prog", None)
env = (ctypes.c_char_p * 1)(None)
flipper = os.fork()
if flipper == 0:
    while os.getppid() != 1:
        if sys.argv[1] == "path":
            shared[:len(other)] = other
            for i in range(20): pass
            shared[:len(good)] = good
            for i in range(20): pass
        else:
            libc.renameat2(-100, good, -100, other, 2) # RENAME_EXCHANGE
ends = set()
for i in range(300):
    pid = os.fork()
    if pid == 0:
        while True: libc.execve(ctypes.c_void_p(at), argv, env)
    ends.add(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
os.kill(flipper, signal.SIGKILL)
os.waitpid(flipper, 0)
print(*sorted(ends))
`

// TestExecFlips: what is covered is not executed, whenever the path in memory changes; and who
// executes what is replaced at the same time executes the one or the other.
func TestExecFlips(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"open", "hide"} {
		if err := os.Mkdir(dir+"/"+name, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	copyOf := func(path, from string) string {
		b, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good, hidden, next := copyOf(dir+"/open/p", "/bin/true"), copyOf(dir+"/hide/p", "/bin/false"), copyOf(dir+"/open/q", "/bin/true")
	mounts := []fsmod.Mount{{Kind: fsmod.Hide, Target: dir + "/hide"}}
	for _, tt := range []struct {
		how, other string
		ends       []string
	}{
		{"path", hidden, []string{"0", "-9 0"}},
		{"names", next, []string{"0"}},
	} {
		got := strings.TrimSpace(mountedIn(t, dir, mounts, "/usr/bin/python3", "-c", execFlips, tt.how, good, tt.other))
		if !strings.Contains("|"+strings.Join(tt.ends, "|")+"|", "|"+got+"|") {
			t.Errorf("%s: children ended with %s, want one of %q", tt.how, got, tt.ends)
		}
		t.Log(tt.how, got)
	}
}
