// SPDX-License-Identifier: Apache-2.0

// Trees that show something of others.

package fsmod_test

import (
	"errors"
	"log/slog"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"umrun/fsmod"
)

// A closing is a tree that tells when it is closed.
type closing struct {
	fsmod.FS
	name string
	log  *[]string
}

func (c *closing) Close() error {
	*c.log = append(*c.log, c.name)
	return c.FS.Close()
}

// TestOver: a tree is closed after those that show something of it, also where it is no mount
// of its own any more; and none is laid over one that has gone.
func TestOver(t *testing.T) {
	place := t.TempDir()
	var log []string
	tree := func(name string, over ...fsmod.FS) fsmod.Mounted {
		m := fsmod.Mount{Kind: fsmod.Tmpfs, Target: place}
		fs, err := fsmod.OpenBuiltin(m)
		if err != nil {
			t.Fatal(err)
		}
		return fsmod.Mounted{Mount: m, FS: &closing{fs, name, &log}, Over: over}
	}
	first := tree("first")
	m, err := fsmod.New(fsmod.Config{Mounts: []fsmod.Mounted{first, tree("second", first.FS)}, Mountable: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	third := tree("third", first.FS)
	if err := m.Mount(third); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := m.Unmount(place, false); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"third", "second"}; !slices.Equal(log, want) {
		t.Errorf("closed are %v, want %v", log, want)
	}
	late := tree("late", third.FS)
	if err := m.Mount(late); !errors.Is(err, unix.ENOENT) {
		t.Errorf("over one that has gone: %v", err)
	}
	if err := late.FS.Close(); err != nil {
		t.Error(err)
	}
	fourth := tree("fourth", first.FS)
	if err := m.Mount(fourth); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if want := []string{"third", "second", "late", "fourth", "first"}; !slices.Equal(log, want) {
		t.Errorf("closed are %v, want %v", log, want)
	}
}
