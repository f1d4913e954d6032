// SPDX-License-Identifier: Apache-2.0

// The name of the machine that a view has.

package viewtest_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"umrun/view/viewtest"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// TestIntegrationName has programs of 64 and 32 bits ask for the name by every call there is: but for the
// name it is what they are told natively, also in a UTS namespace of their own. And nobody
// in the view, root neither, changes the host's.
func TestIntegrationName(t *testing.T) {
	viewtest.Need(t, "amd64", "gcc")
	w := viewtest.New(t)
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	dir := mountTree(t, w, false)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, bits := range []string{"-m64", "-m32"} {
		bin := filepath.Join(dir, "name"+bits)
		if out, err := exec.Command("gcc", bits, "-static", "-w", "-o", bin, "testdata/i386/name.c").CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for _, user := range []bool{false, true} {
			host := w.HostCmd(context.Background(), bin)
			if user {
				host = host.AsUser(w.Home())
			}
			native := host.Result()
			if native.Status != 0 || !strings.Contains(native.Stdout, "["+name[:min(len(name), 8)]) || !strings.Contains(native.Stdout, "2.6.") {
				t.Fatal(native)
			}
			for _, its := range []string{name, "box.example"} {
				t.Run(map[bool]string{false: "root/", true: "user/"}[user]+bits+"/"+its, func(t *testing.T) {
					got := umrunAs(t, w, user, "-q", "-n", "none", "--fs-engine", "trap", "--hostname", its, "--", bin).Result()
					var want strings.Builder
					for line := range strings.Lines(native.Stdout) {
						was, is := name, its
						if strings.Contains(line, " 59:") { // the oldest has room for 8 bytes
							was, is = was[:min(len(was), 8)], is[:min(len(is), 8)]
						}
						want.WriteString(strings.ReplaceAll(line, "["+was+"]", "["+is+"]"))
					}
					if diff := cmp.Diff(want.String(), got.Stdout); diff != "" || got.Status != 0 {
						t.Errorf("natively -, in the view +:\n%s%v", diff, got)
					}
				})
			}
		}
	}
	t.Run("root does not change the host's", func(t *testing.T) {
		got := umrunAs(t, w, false, "-q", "-n", "none", "--fs-engine", "trap", "--hostname", "box", "--", "sh", "-c",
			"hostname umrun-lab; domainname umrun-lab; echo umrun-lab >/proc/sys/kernel/hostname; hostname; cat /proc/sys/kernel/hostname").Result()
		if got.Stdout != "box\nbox\n" {
			t.Error(got)
		}
		var u unix.Utsname
		if err := unix.Uname(&u); err != nil || unix.ByteSliceToString(u.Nodename[:]) != name || unix.ByteSliceToString(u.Domainname[:]) == "umrun-lab" {
			_ = unix.Sethostname([]byte(name))
			t.Errorf("the host's name is now %q", u.Nodename)
		}
	})
	w.NoStrays(t)
}
