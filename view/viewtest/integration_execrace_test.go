// SPDX-License-Identifier: Apache-2.0

// Programs whose path another thread changes while they are executed.

package viewtest_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"umrun/view/viewtest"
)

// TestIntegrationExecRace: what is covered is not there for execve(2) either, whatever becomes of
// the path after it was read: not even the errno says that it is (EACCES, as it may not be
// executed).
func TestIntegrationExecRace(t *testing.T) {
	w := viewtest.New(t)
	race := viewtest.Target(t, "execrace", viewtest.Dynamic)
	dir := filepath.Join(w.Home(), "covered")
	secret := filepath.Join(dir, "secret")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(secret, []byte("#!/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	args := []string{race, "/bin/true", secret, "2"}
	native := w.HostCmd(context.Background(), args...).Result()
	if native.Status != 0 || !strings.HasPrefix(native.Stdout, "tries many, ok some") || !strings.Contains(native.Stdout, "EACCES") {
		t.Fatalf("natively: %v", native)
	}
	for _, engine := range []string{"trap", "ns"} {
		view := []string{"-q", "-n", "none", "--no-proc", "-m", "tmpfs:" + dir, "--fs-engine", engine, "--"}
		r := umrunAs(t, w, false, append(view, args...)...).Result()
		if r.Status != 0 || !strings.HasPrefix(r.Stdout, "tries many, ok some, ENOENT") || strings.Contains(r.Stdout, "EACCES") || !strings.Contains(r.Stderr, "killed 0\n") {
			t.Errorf("%s: %v", engine, r)
		}
	}
	w.NoStrays(t)
}
