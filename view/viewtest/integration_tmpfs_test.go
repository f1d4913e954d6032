// SPDX-License-Identifier: Apache-2.0

// Directories in memory: whose they are.

package viewtest_test

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"umrun/view/viewtest"
)

// TestIntegrationTmpfsOwner: a tmpfs has the owner of what it covers, and is its maker's where
// that owner has no number, or may not be given anything: in a user namespace, without CAP_CHOWN.
func TestIntegrationTmpfsOwner(t *testing.T) {
	viewtest.Need(t, "root", "unshare", "setpriv")
	w := viewtest.New(t)
	for _, tt := range []struct {
		name    string
		as      []string
		maker   bool // is the owner
		engines []string
	}{
		{"root", nil, false, []string{"trap", "ns"}},
		{"a user namespace", []string{"unshare", "-Ur"}, true, []string{"trap", "ns"}},
		{"no CAP_CHOWN", []string{"setpriv", "--bounding-set", "-chown", "--inh-caps", "-chown"}, true, []string{"trap"}},
	} {
		dir := mountTree(t, w, false)
		if err := errors.Join(os.Chown(dir+"/dst", viewtest.UID, viewtest.GID), os.Chmod(dir+"/dst", 0o755)); err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("%d %d 755\nkept\n", viewtest.UID, viewtest.GID)
		if tt.maker {
			want = "0 0 755\nkept\n"
		}
		for _, engine := range tt.engines {
			script := fmt.Sprintf("cd %s/dst && stat -c '%%u %%g %%a' . && echo kept >f && cat f", dir)
			args := append(tt.as, viewtest.Binary(t), "-q", "-n", "none", "--no-proc", "--fs-engine", engine, "-m", "tmpfs:"+dir+"/dst", "--", "sh", "-c", script)
			if r := w.HostCmd(t.Context(), args...).Result(); r.Status != 0 || r.Stdout != want {
				t.Errorf("%s, %s: wanted %q: %v", tt.name, engine, want, r)
			}
		}
	}
	w.NoStrays(t)
}
