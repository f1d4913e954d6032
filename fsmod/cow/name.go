// SPDX-License-Identifier: Apache-2.0

// What a file of the host is called in the tree.

package cow

import (
	"os"
	"slices"
	"strings"
)

// A named says what a directory of the host is called.
type named struct{ host, name string }

// name asks where the layers are: those first that are above others, in which they may lie.
func (f *FS) name() {
	parts := append(slices.Clone(f.mounts), mounted{"", f.root})
	for left, nth := true, 0; left; nth++ {
		left = false
		for _, p := range parts {
			dirs := p.tree.dirs()
			if nth >= len(dirs) {
				continue
			}
			left = true
			if host, err := os.Readlink(fdPath(dirs[nth])); err == nil {
				f.names = append(f.names, named{strings.TrimSuffix(host, "/"), p.name})
			}
		}
	}
}

// dirs are the roots of the layers, the upper one first.
func (b *branch) dirs() []int {
	dirs := []int{b.upper}
	for _, l := range b.lowers {
		dirs = append(dirs, l.Dir)
	}
	return dirs
}

// dirs has no upper layer.
func (t *through) dirs() []int { return []int{-1, t.root} }

// Name returns the name in the tree of a path of the host, as /proc names a file that is
// open. What the view shows there may be another file.
func (f *FS) Name(host string) (string, bool) {
	for _, n := range f.names {
		if host == n.host || host == "/" && n.host == "" {
			return n.name, true
		}
		if rest, ok := strings.CutPrefix(host, n.host+"/"); ok {
			return strings.TrimPrefix(n.name+"/"+rest, "/"), true
		}
	}
	return "", false
}
