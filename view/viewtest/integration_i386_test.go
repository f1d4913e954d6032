// SPDX-License-Identifier: Apache-2.0

// 32-bit programs in a view with mounts: their calls have numbers of their own.

package viewtest_test

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"umrun/view/viewtest"

	"github.com/google/go-cmp/cmp"
)

// TestIntegrationI386Paths has such a program make every call with a path, natively and in
// mounts of the engine trap. What is refused there is listed in docs/limits.md.
func TestIntegrationI386Paths(t *testing.T) {
	viewtest.Need(t, "amd64", "gcc")
	w := viewtest.New(t)
	bin := filepath.Join(t.TempDir(), "paths")
	if out, err := exec.Command("gcc", "-m32", "-static", "-w", "-o", bin, "testdata/i386/paths.c").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	// lab makes a directory in which f has the text, and one whose f is another.
	lab := func(t *testing.T, user bool) (dir string) {
		dir = mountTree(t, w, false)
		writeFiles(t, dir, map[string]string{"in/f": "source\n", "in/prog": readFile(t, bin), "in/script": "#!/bin/sh\necho script $0\nexit 3\n", "at/f": "covered, and longer\n"})
		if user {
			give(t, dir)
		}
		return dir
	}
	for _, user := range []bool{false, true} {
		dir := lab(t, user)
		host := w.HostCmd(context.Background(), dir+"/in/prog", dir+"/in")
		if user {
			host = host.AsUser(w.Home())
		}
		native := host.Result()
		if native.Status != 0 || strings.Count(native.Stdout, "\n") < 50 {
			t.Fatal(native)
		}
		var want strings.Builder
		for line := range strings.Lines(native.Stdout) {
			switch call, _, _ := strings.Cut(line, " "); call {
			case "oldstat", "stat16", "lstat16":
				line = call + " ENOSYS\n" // glibc has not called them since 2.2
			case "umount":
				line = call + " EINVAL\n" // it is no mount; natively an ordinary user hears EPERM first
			case "mount", "open_by_handle", "quotactl":
				line = call + " EPERM\n"
			}
			want.WriteString(line)
		}
		for _, mount := range []string{"bind:DIR/in:DIR/at", "cow::DIR/in"} {
			t.Run(map[bool]string{false: "root/", true: "user/"}[user]+mount, func(t *testing.T) {
				dir := lab(t, user)
				at := strings.ReplaceAll(mount[strings.LastIndexByte(mount, ':')+1:], "DIR", dir)
				got := umrunAs(t, w, user, "-q", "-n", "none", "--fs-engine", "trap", "-m", strings.ReplaceAll(mount, "DIR", dir), "--", at+"/prog", at).Result()
				if diff := cmp.Diff(want.String(), got.Stdout); diff != "" || got.Status != 0 {
					t.Errorf("natively -, in the view +:\n%s%v", diff, got)
				}
				if b := readFile(t, dir+"/at/f"); b != "covered, and longer\n" {
					t.Errorf("what is covered holds %q", b)
				}
			})
		}
	}
	w.NoStrays(t)
}
