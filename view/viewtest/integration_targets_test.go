// SPDX-License-Identifier: Apache-2.0

// Symbolic links on the way to where something is mounted: those that the view has count.

package viewtest_test

import (
	"os"
	"path/filepath"
	"testing"

	"umrun/view/viewtest"
)

// links makes dst/link lead to path, and src/link to bin.
func links(t *testing.T, dir string) {
	t.Helper()
	for from, to := range map[string]string{"dst/link": "path", "src/link": "bin"} {
		if err := os.Symlink(filepath.Join(dir, to), filepath.Join(dir, from)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestIntegrationMountTargets: with src over dst, dst/link leads to bin. The kernel, which makes one
// mount after the other (mount(8)), says the same.
func TestIntegrationMountTargets(t *testing.T) {
	eachUser(t, func(t *testing.T, w *viewtest.World, engine string, user bool) {
		dir := mountTree(t, w, user)
		links(t, dir)
		for _, tc := range []struct{ name, mount, script, want string }{
			{"hide", "hide:" + dir + "/dst/link", "stat -c %a bin path", "0\n755\n"},
			{"hide in it", "hide:" + dir + "/dst/link/only-here", "stat -c %a,%s bin/only-here", "0,0\n"},
			{"a place that is not there", "tmpfs:" + dir + "/dst/link/in", "ls bin path; ls -A dst/link/in", "bin:\nin\nonly-here\n\npath:\nx\n"},
			{"cow", "cow::" + dir + "/dst/link", "echo new >bin/only-here; cat bin/only-here; ls path", "new\nx\n"},
			{"merge", "merge:" + dir + "/path:" + dir + "/dst/link", "ls bin path", "bin:\nonly-here\nx\n\npath:\nx\n"},
		} {
			c := umrunAs(t, w, user, "-q", "-n", "none", "--no-proc", "--fs-engine", engine, "-m", "bind:"+dir+"/src:"+dir+"/dst", "-m", tc.mount, "--", "sh", "-c", tc.script)
			c.Dir = dir
			c.Env = append(c.Env, "PWD="+dir, "LC_ALL=C")
			if r := c.Result(); r.Status != 0 || r.Stdout != tc.want {
				t.Errorf("%s: want %q, got %v", tc.name, tc.want, r)
			}
		}
		if got := readFile(t, dir+"/bin/only-here"); got != "#!/bin/sh\necho it ran\n" {
			t.Errorf("what the cow covers was changed: %q", got)
		}
		// What is named by a link of the host's is in the order of where that leads.
		if err := os.MkdirAll(dir+"/a/b/c", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(dir+"/path", dir+"/a/b/c/far"); err != nil {
			t.Fatal(err)
		}
		c := umrunAs(t, w, user, "-n", "none", "--no-proc", "--fs-engine", engine, "-m", "bind:"+dir+"/path:"+dir+"/a/b/c/far", "-m", "hide:"+dir+"/path/x", "--", "stat", "-c", "%a", dir+"/path/x")
		if r := c.Result(); r.Status != 0 || r.Stdout != "0\n" {
			t.Errorf("hidden by its own name: %v", r)
		}
	})
}

// TestIntegrationSetTargets: so it is with mounts that are made while the program runs.
func TestIntegrationSetTargets(t *testing.T) {
	eachUser(t, func(t *testing.T, w *viewtest.World, engine string, user bool) {
		v := startChanged(t, w, user, "--fs-engine", engine, "-m", "bind:DIR/src:DIR/dst")
		links(t, v.dir)
		v.says("stat -c %a DIR/bin DIR/path", "755\n755\n")
		v.set(0, "", "set", "lab", "mount", "hide:DIR/dst/link")
		v.says("stat -c %a DIR/bin DIR/path", "0\n755\n")
		v.set(0, "", "set", "lab", "umount", "DIR/dst/link")
		v.says("stat -c %a DIR/bin DIR/path", "755\n755\n")
		v.set(0, "", "set", "lab", "mount", "cow::DIR/dst/link")
		v.says("echo new >DIR/bin/f; ls DIR/bin DIR/path", "DIR/bin:\nf\nonly-here\n\nDIR/path:\nx\n")
		v.set(0, "", "set", "lab", "umount", "DIR/bin")
		v.end()
	})
}

// TestIntegrationUpperInside: what of a cow is written in the cow itself.
func TestIntegrationUpperInside(t *testing.T) {
	eachUser(t, func(t *testing.T, w *viewtest.World, engine string, user bool) {
		dir := mountTree(t, w, user)
		c := umrunAs(t, w, user, "-n", "none", "--no-proc", "--fs-engine", engine, "-m", "cow:./up:.", "--", "sh", "-c", "echo new >n; ls; ls up/upper 2>&1")
		c.Dir = filepath.Join(dir, "dst")
		c.Env = append(c.Env, "PWD="+c.Dir, "LC_ALL=C")
		want := map[string]string{
			"ns":   "a\nb\nn\nup\nls: cannot access 'up/upper': Too many levels of symbolic links\n",
			"trap": "a\nb\nn\nls: cannot access 'up/upper': No such file or directory\n",
		}[engine]
		if r := c.Result(); r.Stdout != want {
			t.Errorf("want %q, got %v", want, r)
		}
		if got := readFile(t, c.Dir+"/up/upper/n"); got != "new\n" {
			t.Errorf("UPPER has %q", got)
		}
	})
}
