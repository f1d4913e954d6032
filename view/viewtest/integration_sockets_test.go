// SPDX-License-Identifier: Apache-2.0

// The paths of AF_UNIX addresses in a view with mounts: they are the view's.

package viewtest_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"umrun/view/viewtest"

	"github.com/google/go-cmp/cmp"
)

// TestIntegrationSocketPaths holds what sockets do in mounts against a plain directory.
func TestIntegrationSocketPaths(t *testing.T) {
	viewtest.Need(t, "/usr/bin/python3")
	w := viewtest.New(t)
	script, err := filepath.Abs("testdata/sockets/names.py")
	if err != nil {
		t.Fatal(err)
	}
	want := w.HostCmd(context.Background(), "/usr/bin/python3", script, filepath.Join(mountTree(t, w, false), "dst")).Result()
	if want.Status != 0 || strings.Count(want.Stdout, "\n") < 20 {
		t.Fatal(want)
	}
	for _, user := range []bool{false, true} {
		for _, engine := range []string{"ns", "trap"} {
			for _, kind := range []string{"bind:DIR/src:DIR/dst", "tmpfs:DIR/dst", "cow::DIR/dst", "hide:DIR/bin"} {
				name := fmt.Sprintf("user=%v/%s/%s", user, engine, kind)
				networks := []string{"none"}
				if kind == "hide:DIR/bin" {
					networks = append(networks, "host") // where other calls trap
				}
				for _, network := range networks {
					t.Run(name+"/"+network, func(t *testing.T) {
						dir := mountTree(t, w, user)
						flags := []string{"-q", "-n", network, "--fs-engine", engine, "-m", strings.ReplaceAll(kind, "DIR", dir)}
						got := umrunAs(t, w, user, append(flags, "--", "/usr/bin/python3", w.File(t, "names.py", readFile(t, script)), dir+"/dst")...).Result()
						if diff := cmp.Diff(want.Stdout, got.Stdout); diff != "" || got.Status != 0 {
							t.Errorf("natively -, in the view +:\n%s%v", diff, got)
						}
					})
				}
			}
		}
	}
	w.NoStrays(t)
}

// TestIntegrationHiddenSockets: what is hidden is not reached by any path that changes while
// it is used. Natively the same program reaches it.
func TestIntegrationHiddenSockets(t *testing.T) {
	viewtest.Need(t, "/usr/bin/python3")
	w := viewtest.New(t)
	script := w.File(t, "race.py", readFile(t, "testdata/sockets/race.py"))
	lab := func(t *testing.T) string {
		dir := mountTree(t, w, false)
		for _, name := range []string{"open", "secret"} {
			if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
				t.Fatal(err)
			}
			ln, err := net.Listen("unix", filepath.Join(dir, name, "sock"))
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() { // ends with its listener
				defer close(done)
				for {
					c, err := ln.Accept()
					if err != nil {
						return
					}
					c.Write([]byte(name))
					c.Close()
				}
			}()
			t.Cleanup(func() {
				ln.Close()
				<-done
			})
		}
		return dir
	}
	reached := func(t *testing.T, r viewtest.Result) (open, secret int) {
		if _, err := fmt.Sscanf(r.Stdout, "open %d secret %d", &open, &secret); err != nil || open == 0 {
			t.Fatal(r)
		}
		return open, secret
	}
	t.Run("native", func(t *testing.T) {
		if _, secret := reached(t, w.HostCmd(context.Background(), "/usr/bin/python3", script, lab(t)).Result()); secret == 0 {
			t.Error("nothing is reached, so that the test tells nothing")
		}
	})
	for _, engine := range []string{"ns", "trap"} {
		for _, network := range []string{"none", "host"} {
			t.Run(engine+"/"+network, func(t *testing.T) {
				dir := lab(t)
				r := umrunAs(t, w, false, "-q", "-n", network, "--fs-engine", engine, "-m", "hide:"+dir+"/secret", "--", "/usr/bin/python3", script, dir).Result()
				if open, secret := reached(t, r); secret > 0 || open < 10 {
					t.Errorf("%d times what is open, %d times what is hidden", open, secret)
				}
			})
		}
	}
}
