// SPDX-License-Identifier: Apache-2.0

// What a file of the host is called in the tree.

package cow

import (
	"os"
	"strings"
)

// A named says what a directory of the host is called.
type named struct{ host, name string }

// name asks where the layers are: upper ones first, which may lie in a lower one.
func (f *FS) name() {
	parts := append(append([]mounted(nil), f.mounts...), mounted{"", f.root})
	for _, upper := range []bool{true, false} {
		for _, p := range parts {
			fd := -1
			switch t := p.tree.(type) {
			case *branch:
				if fd = t.lower; upper {
					fd = t.upper
				}
			case *through:
				if !upper {
					fd = t.root
				}
			}
			if host, err := os.Readlink(fdPath(fd)); err == nil {
				f.names = append(f.names, named{strings.TrimSuffix(host, "/"), p.name})
			}
		}
	}
}

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
