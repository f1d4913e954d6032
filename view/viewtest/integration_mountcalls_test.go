// SPDX-License-Identifier: Apache-2.0

// mount(2) and umount2(2) by programs, with either engine.

package viewtest_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"umrun/fsmod/mounttest"
	"umrun/view/viewtest"
)

// scriptTree makes the tree that the scripts of package mounttest have.
func scriptTree(t testing.TB, w *viewtest.World, user bool) string {
	t.Helper()
	dir, err := os.MkdirTemp(filepath.Dir(mountTree(t, w, user)), "lab")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	writeFiles(t, dir, map[string]string{
		"src/file": "source\n", "src/sub/x": "x\n", "at/file": "covered\n", "at/hidden": "hidden\n", "at/sub/covered": "covered\n",
		"deep/secret/f": "hidden\n", "open/f": "open\n", "other/f": "other\n",
	})
	for _, name := range []string{"free", "free2"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("at/sub", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if user {
		give(t, dir)
	}
	return dir
}

// TestIntegrationMountScripts runs each script in a user and mount namespace of its own, or as
// root in a mount namespace, and in views.
func TestIntegrationMountScripts(t *testing.T) {
	viewtest.Need(t, "/usr/bin/python3", "unshare", "findmnt")
	w := viewtest.New(t)
	for _, user := range []bool{false, true} {
		unshare := []string{"unshare", "-m", "--propagation", "private"}
		if user {
			unshare = []string{"unshare", "-Ucm", "--keep-caps", "--propagation", "private"}
		}
		for _, tc := range mounttest.Calls {
			script := mounttest.Prelude + tc.Script
			dir := scriptTree(t, w, user)
			native := w.HostCmd(context.Background(), append(unshare, "/usr/bin/python3", "-c", script, dir)...)
			if user {
				native = native.AsUser(w.Home())
			}
			native.Env = append(native.Env, "LC_ALL=C")
			want := native.Result()
			if want.Status != 0 {
				t.Fatal(want)
			}
			for _, engine := range setEngines {
				t.Run(fmt.Sprintf("%s/%s/user=%v", tc.Name, engine, user), func(t *testing.T) {
					there := scriptTree(t, w, user)
					u := umrunAs(t, w, user, "-n", "none", "--no-proc", "--fs-engine", engine, "--", "/usr/bin/python3", "-c", script, there)
					u.Env = append(u.Env, "LC_ALL=C")
					r := u.Result()
					if diff := cmp.Diff(strings.ReplaceAll(want.Stdout, dir, "DIR"), strings.ReplaceAll(r.Stdout, there, "DIR")); diff != "" || r.Stderr != "" {
						t.Errorf("natively -, in the view +:\n%s\n%s", diff, r.Stderr)
					}
				})
			}
		}
	}
	w.NoStrays(t)
}

// TestIntegrationMountLocked: what was mounted by others than the program stays, and hides what
// it hides.
func TestIntegrationMountLocked(t *testing.T) {
	viewtest.Need(t, "/usr/bin/python3")
	w := viewtest.New(t)
	for _, user := range []bool{false, true} {
		for _, engine := range setEngines {
			t.Run(fmt.Sprintf("%s/user=%v", engine, user), func(t *testing.T) {
				dir := scriptTree(t, w, user)
				want := mounttest.LockedWant
				if user {
					want = mounttest.LockedWantUser
					if engine == "trap" { // who is in a directory that is covered goes on in what covers it
						want = strings.Replace(want, "ok EACCES ENOENT ok EINVAL", "ok ENOENT ENOENT ok EINVAL", 1)
					}
				}
				r := umrunAs(t, w, user, "-n", "none", "--no-proc", "--fs-engine", engine, "-m", "hide:"+dir+"/deep/secret", "-m", "bind:"+dir+"/open:"+dir+"/other:ro", "--",
					"/usr/bin/python3", "-c", mounttest.Locked, dir).Result()
				if diff := cmp.Diff(want, r.Stdout); diff != "" || r.Stderr != "" {
					t.Errorf("wanted -, got +:\n%s\n%s", diff, r.Stderr)
				}
			})
		}
	}
	w.NoStrays(t)
}
