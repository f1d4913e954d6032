// SPDX-License-Identifier: Apache-2.0

// Tests of finding the program.

package view

import (
	"os"
	"path/filepath"
	"testing"
)

func TestLookPath(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"a/run": 0o755, "b/run": 0o644, "b/other": 0o755, "c/dir/x": 0o644} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	a, b, c := dir+"/a", dir+"/b", dir+"/c"
	tests := []struct {
		name, prog, path, dir, want string
		code                        int
	}{
		{"first in PATH", "run", a + ":" + b, "", a + "/run", 0},
		{"not executable is skipped", "run", b + ":" + a, "", a + "/run", 0},
		{"only not executable", "run", b, "", "", ExitNotExec},
		{"nowhere", "nothing", a + ":" + b, "", "", ExitNotFound},
		{"no PATH", "run", "", "", "", ExitNotFound},
		{"a directory is no program", "dir", c, "", "", ExitNotExec},
		{"a file in the place of a directory", "run", a + "/run", "", "", ExitNotFound},
		{"with a slash", a + "/run", b, "", a + "/run", 0},
		{"with a slash, absent", "./absent", b, "", "", ExitNotFound},
		{"relative to the directory", "./run", "", a, "./run", 0},
		{"empty element of PATH", "run", ":" + b, a, "./run", 0},
		{"empty", "", a, "", "", ExitNotFound},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := lookPath(tt.prog, tt.path, tt.dir)
			if got != tt.want || ExitCode(err) != tt.code {
				t.Errorf("got %q, status %d (%v); want %q, status %d", got, ExitCode(err), err, tt.want, tt.code)
			}
		})
	}
}
