// SPDX-License-Identifier: Apache-2.0

// What is covered: of which directories it is made.

package cow

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"umrun/fsmod"
)

// A Source is a tree, or what it has at a name, and where below the root of what is covered
// it is.
type Source struct {
	At   string // "": it is the root
	FS   fsmod.FS
	Name string // of FS; if that is nil, a path of the host
}

// Host is a directory of the host as all that is covered.
func Host(path string) []Source { return []Source{{Name: path}} }

// A part is one file system, or single file, of what is covered.
type part struct {
	name   string  // of where it is
	layers []layer // the first has the first word; a file has one
	dir    bool
	pseudo bool // of the kernel's own state, or of devices that cannot be copied
}

// A layer is a directory under those that are shown before it.
type layer struct {
	fsmod.Layer
	hidden []string // UPPERs that are in it, which are not shown
	ours   bool     // it is the upper one of a branch that is covered
}

// hides reports whether a name is on the way to one that is not shown, or below it.
func (l *layer) hides(name string) bool {
	return slices.ContainsFunc(l.hidden, func(h string) bool { return name == h || strings.HasPrefix(name, h+"/") })
}

func closeParts(parts []part) {
	for _, p := range parts {
		for _, l := range p.layers {
			closeAll(l.Dir)
		}
	}
}

// partsOf opens what sources are made of: the root first, parents before children. Each
// source covers what those before it have at its place.
func partsOf(sources []Source) (parts []part, err error) {
	defer func() {
		if err != nil {
			closeParts(parts)
			parts = nil
		}
	}()
	for _, s := range sources {
		more, err := s.parts()
		if err != nil {
			return parts, err
		}
		covered := func(p part) bool { return s.At == "" || p.name == s.At || strings.HasPrefix(p.name, s.At+"/") }
		for _, p := range parts {
			if covered(p) {
				closeParts([]part{p})
			}
		}
		parts = slices.DeleteFunc(parts, covered)
		for _, p := range more {
			p.name = join(s.At, p.name)
			parts = append(parts, p)
		}
	}
	slices.SortStableFunc(parts, func(a, b part) int { return depth(a.name) - depth(b.name) })
	if len(parts) == 0 || parts[0].name != "" || !parts[0].dir {
		return parts, unix.ENOTDIR
	}
	return parts, nil
}

// depth is how far below the root a name is.
func depth(name string) int {
	if name == "" {
		return 0
	}
	return 1 + strings.Count(name, "/")
}

func join(dir, name string) string { return strings.Trim(dir+"/"+name, "/") }

// parts are those of one source, named from its root on.
func (s Source) parts() ([]part, error) {
	if s.FS == nil {
		fd, err := unix.Open(s.Name, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: s.Name, Err: err}
		}
		return hostParts(fsmod.Layer{Dir: fd})
	}
	whole, name := fsmod.Whole(s.FS, s.Name)
	switch t := whole.(type) {
	case *FS:
		return t.parts(name)
	case fsmod.Layered:
		l, err := t.Layer(name)
		if err != nil {
			return nil, err
		}
		return hostParts(l)
	}
	return nil, fmt.Errorf("a %T is not made of directories: %w", whole, unix.EOPNOTSUPP)
}

// hostParts are a directory, or file, of the host's and what is mounted below it.
func hostParts(l fsmod.Layer) ([]part, error) {
	var st unix.Stat_t
	if err := unix.Fstat(l.Dir, &st); err != nil {
		closeAll(l.Dir)
		return nil, err
	}
	root := part{layers: []layer{{Layer: l}}, dir: kind(&st) == unix.S_IFDIR}
	parts := []part{root}
	path := hostPath(l.Dir)
	if path == "" || !root.dir || l.Fill != nil {
		return parts, nil
	}
	below, err := Submounts(path)
	if err != nil {
		closeParts(parts)
		return nil, err
	}
	for _, m := range below {
		fd, err := unix.Open(m.Path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			continue // it is not for us to see, now as before
		}
		parts = append(parts, part{
			name: m.Name, layers: []layer{{Layer: fsmod.Layer{Dir: fd}}}, dir: m.Dir,
			pseudo: m.Pseudo || m.Type == "devtmpfs" && !capable(unix.CAP_MKNOD), // no copy of a device could be made
		})
	}
	return parts, nil
}

// hostPath is the path by which a descriptor's file is found on the host; "": by none.
func hostPath(fd int) string {
	path, err := os.Readlink(fdPath(fd))
	if err != nil {
		return ""
	}
	var its, there unix.Statx_t
	const mask = unix.STATX_INO | unix.STATX_MNT_ID
	if unix.Statx(fd, "", unix.AT_EMPTY_PATH, mask, &its) != nil ||
		unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, mask, &there) != nil ||
		its.Ino != there.Ino || its.Mnt_id != there.Mnt_id {
		return ""
	}
	return path
}

// parts are what the tree has at a name, and below it.
func (f *FS) parts(name string) (parts []part, err error) {
	t, rest := f.at(name)
	root, err := t.part(rest)
	if err != nil {
		return nil, err
	}
	parts = []part{root}
	for _, m := range f.mounts {
		below, ok := strings.CutPrefix("/"+m.name, strings.TrimSuffix("/"+name, "/")+"/")
		if !ok || below == "" {
			continue
		}
		p, err := m.tree.part("")
		if err != nil {
			closeParts(parts)
			return nil, err
		}
		p.name = below
		parts = append(parts, p)
	}
	return parts, nil
}

// part is the directory at a name: those layers that have it.
func (b *branch) part(name string) (part, error) {
	p, err := b.find(name, false)
	if err != nil {
		return part{}, err
	}
	defer p.close()
	if err := p.enter(); err != nil {
		return part{}, err
	}
	var layers []layer
	if p.up >= 0 {
		layers = append(layers, layer{Layer: fsmod.Layer{Dir: p.up}, ours: true})
	}
	for d := range p.lowers() {
		l := b.lowers[d.layer].from(name)
		l.Dir = d.fd
		layers = append(layers, l)
	}
	for i := range layers {
		if layers[i].Dir, err = dup(layers[i].Dir); err != nil {
			closeParts([]part{{layers: layers[:i]}})
			return part{}, err
		}
	}
	return part{layers: layers, dir: true}, nil
}

// from is what is particular to a layer, from a name on.
func (l *layer) from(name string) (at layer) {
	at.ours = l.ours
	if l.Fill != nil {
		at.Fill = func(ctx context.Context, below string, content bool) error {
			return l.Fill(ctx, join(name, below), content)
		}
	}
	for _, h := range l.hidden {
		if below, ok := strings.CutPrefix("/"+h, strings.TrimSuffix("/"+name, "/")+"/"); ok {
			at.hidden = append(at.hidden, below)
		}
	}
	return at
}

func (t *through) part(name string) (p part, err error) {
	fd := -1
	if name == "" {
		fd, err = dup(t.root)
	} else {
		fd, err = openBelow(t.root, name, unix.O_PATH, 0)
	}
	if err != nil {
		return p, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		closeAll(fd)
		return p, err
	}
	return part{layers: []layer{{Layer: fsmod.Layer{Dir: fd}}}, dir: kind(&st) == unix.S_IFDIR, pseudo: t.pseudo}, nil
}

// hide has layers not show a directory of the host that is in one of them.
func hide(layers []layer, path string) error {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	}
	for i := range layers {
		dir := hostPath(layers[i].Dir)
		if name, ok := strings.CutPrefix(path, strings.TrimSuffix(dir, "/")+"/"); ok && dir != "" {
			layers[i].hidden = append(layers[i].hidden, name)
		}
	}
	return nil
}
