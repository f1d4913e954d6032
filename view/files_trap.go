// SPDX-License-Identifier: Apache-2.0

// Files of the view that umrun itself serves: what is opened for a start.

package view

import (
	"context"
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
	case fsmod.Bind, fsmod.Tmpfs, fsmod.Hide, fsmod.File, fsmod.Cow, fsmod.Merge, fsmod.Image, fsmod.Fuse:
		return true
	}
	return m.Kind == fsmod.Dev && (m.Source == fsmod.Null || m.Source == fsmod.Zero)
}

// trapFiles opens the trees of the plan's mounts, which the module closes.
func (p *Plan) trapFiles(ctx context.Context, v *View) (mounts []fsmod.Mounted, err error) {
	defer func() {
		if err != nil {
			for _, m := range mounts {
				closeMounted(m)
			}
			mounts = nil
		}
	}()
	for _, m := range fsmod.Order(p.conf.Mounts) {
		mt, err := p.trapMount(ctx, m, mounts)
		if err != nil {
			return mounts, err
		}
		mounts = append(mounts, mt)
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

// closeMounted closes a tree that no module has.
func closeMounted(m fsmod.Mounted) {
	m.FS.Close()
	if m.Gone != nil {
		_ = m.Gone() // a later umrun removes it
	}
}

// trapMount opens the tree of one mount, over those that are made before it. Errors are
// Problems.
func (p *Plan) trapMount(ctx context.Context, m fsmod.Mount, earlier []fsmod.Mounted) (mt fsmod.Mounted, err error) {
	mt.Mount = m
	switch {
	case m.Served():
		err = p.trapServed(ctx, &mt)
	case m.Kind == fsmod.Image:
		mt.FS, err = p.trapImage(m)
	case m.Kind == fsmod.Cow, m.Kind == fsmod.Merge:
		err = openOver(&mt, earlier)
	default:
		mt.FS, err = fsmod.OpenBuiltin(m)
	}
	if problem := (*Problem)(nil); err != nil && !errors.As(err, &problem) {
		err = &Problem{Code: ExitConfig, What: fmt.Sprintf("-m %v: %v", m, err), Err: err}
	}
	return mt, err
}

// trapServed runs the command that serves a mount, and opens what it has mounted.
func (p *Plan) trapServed(ctx context.Context, mt *fsmod.Mounted) error {
	s, err := p.startFuse(ctx, mt.Mount)
	if err != nil {
		return err
	}
	mt.Gone = s.Close
	if mt.FS, err = fsmod.OpenRoot(s.Root); err != nil {
		return errors.Join(err, s.Close())
	}
	return nil
}

// openOver opens the tree of a cow or a merge.
func openOver(mt *fsmod.Mounted, earlier []fsmod.Mounted) error {
	m := mt.Mount
	low, err := lowerOf(m, earlier)
	if err != nil {
		return err
	}
	if m.Kind == fsmod.Merge {
		mt.Alias = true
		mt.FS, err = cow.NewMerge(m.Source, low.path, low.fill)
		return err
	}
	mt.Alias = low.alias
	conf := cow.Config{Lower: low.path, Fill: low.fill, Upper: m.Source}
	if m.Source == "" {
		var place string
		if place, mt.Gone, err = fsmod.Private(); err != nil {
			return err
		}
		conf.Upper, conf.Volatile = filepath.Join(place, "upper"), true
	}
	if mt.FS, err = cow.New(conf); err == nil {
		return nil
	}
	if errors.Is(err, unix.EBUSY) {
		err = upperBusy(m)
	}
	if mt.Gone != nil {
		err = errors.Join(err, mt.Gone())
	}
	return err
}

// A lower is what a cow or a merge covers.
type lower struct {
	path  string                                                     // of the host
	fill  func(ctx context.Context, name string, content bool) error // see [cow.Config]; nil: all is there
	alias bool                                                       // path has a name of its own in the view
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
		if !ok || e.Served() {
			return lower{}, noLower(m, e.Mount)
		}
		name := strings.TrimPrefix(strings.TrimPrefix(at, root), "/")
		l := lower{path: filepath.Join(placed.Place(), name), alias: e.Kind == fsmod.Bind}
		if t, ok := e.FS.(*imagetree.Tree); ok {
			l.fill = func(ctx context.Context, below string, content bool) error {
				return t.Ready(ctx, filepath.Join(name, below), content)
			}
			if err := t.Ready(context.Background(), name, false); err != nil {
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
		if e.Kind == fsmod.Cow || e.Kind == fsmod.Merge || e.Served() {
			return noLower(m, e)
		}
		return nil
	}
	return nil
}

// noLower says that the trap engine cannot lay one mount over another.
func noLower(m, over fsmod.Mount) *Problem {
	if over.Served() {
		return &Problem{Code: ExitConfig, What: fmt.Sprintf("-m %v lies over -m %v, which --fs-engine trap does not do: what a command serves has no path on the host", m, over),
			Try: []string{"--fs-engine ns"}}
	}
	return &Problem{Code: ExitConfig, What: fmt.Sprintf("-m %v lies over -m %v, which --fs-engine trap does not do: of what lies over a mount it has two layers, and these are three", m, over),
		Try: []string{"--fs-engine ns"}}
}

// trapImage opens the tree of an image.
func (p *Plan) trapImage(m fsmod.Mount) (fsmod.FS, error) {
	o, err := openImage(m, p.conf.Log)
	if err != nil {
		return nil, err
	}
	return p.treeOf(o)
}

// treeOf makes the tree of an open image, which closes that.
func (p *Plan) treeOf(o openedImage) (fsmod.FS, error) {
	place, gone, err := fsmod.Private()
	if err != nil {
		return nil, errors.Join(err, o.Close())
	}
	t, err := imagetree.New(o.FS, place, func() error { return errors.Join(gone(), o.lock.Close()) }, p.conf.Log)
	if err != nil {
		return nil, errors.Join(err, o.Close(), gone())
	}
	return t, nil
}

// imageOf opens the tree of an image that is in file, whatever it is called in the view.
func (p *Plan) imageOf(file string, m fsmod.Mount) (mt fsmod.Mounted, format string, err error) {
	at := m
	at.Source = file
	o, err := openImage(at, p.conf.Log)
	if err != nil {
		return mt, "", err
	}
	format = o.Format()
	mt.Mount = m
	mt.FS, err = p.treeOf(o)
	return mt, format, err
}
