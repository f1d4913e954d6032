// SPDX-License-Identifier: Apache-2.0

// Directories of tests that other users come to.

package mounttest

import (
	"os"
	"path/filepath"
	"testing"
)

// Public lets everybody come to a directory of the test's, wherever TMPDIR is.
func Public(t testing.TB, dir string) {
	t.Helper()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for up := filepath.Dir(dir); len(up) > 1; up = filepath.Dir(up) {
		info, err := os.Stat(up)
		if err == nil && info.Mode()&0o001 == 0 { // the one above t.TempDir, or somebody's own
			was := info.Mode()
			err = os.Chmod(up, was|0o011)
			t.Cleanup(func() { _ = os.Chmod(up, was) })
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
