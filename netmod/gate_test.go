// SPDX-License-Identifier: Apache-2.0

// What a killed umrun leaves.

package netmod

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestSweepNooks: what a killed umrun has left goes, and nothing else.
func TestSweepNooks(t *testing.T) {
	base := t.TempDir()
	old := time.Now().Add(-time.Hour)
	mk := func(name string, at time.Time, file string) string {
		t.Helper()
		dir := filepath.Join(base, name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if file != "" {
			if err := os.WriteFile(filepath.Join(dir, file), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chtimes(dir, at, at); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	gone := []string{mk(nookPrefix+"1", old, "s"), mk(nookPrefix+"2", old, "")}
	kept := []string{mk(nookPrefix+"3", time.Now(), "s"), mk("umrun-4", old, "s"), mk(nookPrefix+"5", old, "other")}
	sweepNooks([]string{base})
	for _, dir := range gone {
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("%s: %v", dir, err)
		}
	}
	for _, dir := range kept {
		if _, err := os.Stat(dir); err != nil {
			t.Error(err)
		}
	}
}
