// SPDX-License-Identifier: Apache-2.0

// What a killed umrun leaves goes with the next one.

package fsmod

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestSweep(t *testing.T) {
	base := t.TempDir()
	place := func(name string, age time.Duration) string {
		dir := filepath.Join(base, name)
		if err := os.MkdirAll(filepath.Join(dir, "sys-class-net", "lo"), 0o755); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(-age)
		if err := os.Chtimes(dir, at, at); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	dead, young, other := place(privatePrefix+"dead", time.Hour), place(privatePrefix+"young", 0), place("umrun-else", time.Hour)
	living, lock, err := makePrivateIn(base)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(living, old, old); err != nil {
		t.Fatal(err)
	}
	sweep(base)
	for dir, want := range map[string]bool{dead: false, young: true, other: true, living: true} {
		if _, err := os.Stat(dir); (err == nil) != want {
			t.Errorf("%s: there %v, want %v", filepath.Base(dir), err == nil, want)
		}
	}
}
