// SPDX-License-Identifier: Apache-2.0

// Files of the view that umrun itself serves: what is opened for a start.

package view

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"umrun/fsmod"
	"umrun/fsmod/cow"
	"umrun/fsmod/imagetree"
)

// trapSupports reports whether the trap engine can serve a mount.
func trapSupports(m fsmod.Mount) bool {
	switch m.Kind {
	case fsmod.Bind, fsmod.Tmpfs, fsmod.Hide, fsmod.File, fsmod.Cow, fsmod.Merge, fsmod.Image:
		return true
	}
	return m.Kind == fsmod.Dev && (m.Source == fsmod.Null || m.Source == fsmod.Zero)
}

// trapFiles opens the trees of the plan's mounts, which the module closes.
func (p *Plan) trapFiles(v *View) (mounts []fsmod.Mounted, err error) {
	defer func() {
		if err != nil {
			for _, m := range mounts {
				m.FS.Close()
			}
			mounts = nil
		}
	}()
	for _, m := range fsmod.Order(p.conf.Mounts) {
		t, alias, err := p.trapFS(v, m, mounts)
		if problem := (*Problem)(nil); errors.As(err, &problem) {
			return mounts, problem
		}
		if err != nil {
			return mounts, &Problem{Code: ExitConfig, What: fmt.Sprintf("-m %v: %v", m, err), Err: err}
		}
		mounts = append(mounts, fsmod.Mounted{Mount: m, FS: t, Alias: alias})
	}
	for _, g := range p.hostFiles() {
		t, err := fsmod.OpenContent(g.Content, 0o644)
		if err != nil {
			return mounts, err
		}
		mounts = append(mounts, fsmod.Mounted{Mount: fsmod.Mount{Kind: fsmod.File, Target: g.Target}, FS: t})
	}
	return mounts, nil
}

// trapFS opens the tree of one mount. alias is as in [fsmod.Mounted].
func (p *Plan) trapFS(v *View, m fsmod.Mount, earlier []fsmod.Mounted) (fs fsmod.FS, alias bool, err error) {
	switch m.Kind {
	case fsmod.Image:
		fs, err = p.trapImage(m)
		return fs, false, err
	case fsmod.Cow, fsmod.Merge:
	default:
		fs, err = fsmod.OpenBuiltin(m)
		return fs, false, err
	}
	low, err := lowerOf(m, earlier)
	if err != nil {
		return nil, false, err
	}
	if m.Kind == fsmod.Merge {
		fs, err = cow.NewMerge(m.Source, low.path, low.fill)
		return fs, true, err
	}
	conf := cow.Config{Lower: low.path, Fill: low.fill, Upper: m.Source}
	if m.Source == "" {
		place, gone, err := fsmod.Private()
		if err != nil {
			return nil, false, err
		}
		v.kept = append(v.kept, closerFunc(gone))
		conf.Upper, conf.Volatile = filepath.Join(place, "upper"), true
	}
	fs, err = cow.New(conf)
	if errors.Is(err, unix.EBUSY) {
		return nil, false, upperBusy(m)
	}
	return fs, low.alias, err
}

// A lower is what a cow or a merge covers.
type lower struct {
	path  string                                // of the host
	fill  func(name string, content bool) error // see [cow.Config]; nil: all is there
	alias bool                                  // path has a name of its own in the view
}

// lowerOf is what a mount covers: what those that are made before it show at its target.
func lowerOf(m fsmod.Mount, earlier []fsmod.Mounted) (lower, error) {
	at := real(m.Target)
	for _, e := range slices.Backward(earlier) {
		root := real(e.Target)
		if !covers(root, at) || showsThrough(e.Mount) {
			continue
		}
		placed, ok := e.FS.(fsmod.Placed)
		if !ok {
			return lower{}, noLower(m, e.Mount)
		}
		name := strings.TrimPrefix(strings.TrimPrefix(at, root), "/")
		l := lower{path: filepath.Join(placed.Place(), name), alias: e.Kind == fsmod.Bind}
		if t, ok := e.FS.(*imagetree.Tree); ok {
			l.fill = func(below string, content bool) error { return t.Ready(filepath.Join(name, below), content) }
			if err := t.Ready(name, false); err != nil {
				return l, err
			}
		}
		if err := noLinks(placed.Place(), name); err != nil {
			return l, fmt.Errorf("%s in -m %v: %w", m.Target, e.Mount, err)
		}
		return l, nil
	}
	return lower{path: m.Target}, nil
}

// real is path without symbolic links, if it is there.
func real(path string) string {
	if r, err := filepath.EvalSymlinks(path); err == nil {
		return r
	}
	return path
}

// showsThrough reports whether a mount shows at the start just what it covers: then what
// covers it covers the same.
func showsThrough(m fsmod.Mount) bool { return m.Kind == fsmod.Cow && m.Source == "" }

// noLinks refuses a name that leads through a symbolic link: it would be the host's to say
// where that leads.
func noLinks(dir, name string) error {
	if name == "" {
		return nil
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_BENEATH}
	there, err := unix.Openat2(fd, name, &how)
	if err != nil {
		return err
	}
	return unix.Close(there)
}

// trapLower says why a mount cannot be laid over those that are made before it; nil: it can.
func trapLower(m fsmod.Mount, earlier []fsmod.Mount) error {
	if m.Kind != fsmod.Cow && m.Kind != fsmod.Merge {
		return nil
	}
	at := real(m.Target)
	for _, e := range slices.Backward(earlier) {
		if !covers(real(e.Target), at) || showsThrough(e) {
			continue
		}
		if e.Kind == fsmod.Cow || e.Kind == fsmod.Merge {
			return noLower(m, e)
		}
		return nil
	}
	return nil
}

// noLower says that the trap engine cannot lay one mount over another.
func noLower(m, over fsmod.Mount) *Problem {
	return &Problem{Code: ExitConfig, What: fmt.Sprintf("-m %v lies over -m %v, which --fs-engine trap does not do: of what lies over a mount it has two layers, and these are three", m, over),
		Try: []string{"--fs-engine ns"}}
}

// trapImage opens the tree of an image.
func (p *Plan) trapImage(m fsmod.Mount) (fsmod.FS, error) {
	o, err := openImage(m, p.conf.Log)
	if err != nil {
		return nil, err
	}
	place, gone, err := fsmod.Private()
	if err != nil {
		return nil, errors.Join(err, o.Close())
	}
	t, err := imagetree.New(o.FS, place, gone, p.conf.Log)
	if err != nil {
		return nil, errors.Join(err, o.Close(), gone())
	}
	return t, nil
}

// closerFunc makes a function a closer.
type closerFunc func() error

func (f closerFunc) Close() error { return f() }
