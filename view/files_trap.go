// SPDX-License-Identifier: Apache-2.0

// Files of the view that umrun itself serves: what is opened for a start.

package view

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"umrun/fsmod"
	"umrun/fsmod/cow"
	"umrun/fsmod/imagetree"
	"umrun/fsmod/nsmount"
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
		m.Target = fsmod.RealPath(mounts, m.Target)
		mt, err := p.trapMount(ctx, m, mounts)
		if err != nil {
			return mounts, err
		}
		mounts = append(mounts, mt)
	}
	const sysctl = "/proc/sys/kernel/hostname"
	generated := p.hostFiles()
	if name := p.conf.Hostname; name != "" {
		generated = append(generated, nsmount.Generated{Target: sysctl, Content: []byte(name + "\n")})
	}
	for _, g := range generated {
		t, err := fsmod.OpenContent(g.Content, 0o644)
		if err != nil {
			return mounts, err
		}
		mounts = append(mounts, fsmod.Mounted{Mount: fsmod.Mount{Kind: fsmod.File, Target: fsmod.RealPath(mounts, g.Target), ReadOnly: g.Target == sysctl}, FS: t})
	}
	return mounts, nil
}

// disown closes the trees of mounts if, for err, there is no module to have them.
func (v *View) disown(mounts []fsmod.Mounted, err error) {
	if err == nil || v.files != nil {
		return
	}
	for _, m := range mounts {
		closeMounted(m)
	}
}

// closeMounted closes a tree that no module has.
func closeMounted(m fsmod.Mounted) {
	m.FS.Close()
	if m.Gone != nil {
		_ = m.Gone() // a later umrun removes it
	}
}

// trapMount opens the tree of one mount, over those that are made before it; their targets, and
// that of a cow or merge, have no symbolic links. Errors are Problems.
func (p *Plan) trapMount(ctx context.Context, m fsmod.Mount, earlier []fsmod.Mounted) (mt fsmod.Mounted, err error) {
	mt.Mount = m
	switch {
	case m.Served():
		err = p.trapServed(ctx, &mt, m.Source)
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

// trapServed runs the command that serves a mount, whose image is in file, and opens what it has
// mounted.
func (p *Plan) trapServed(ctx context.Context, mt *fsmod.Mounted, file string) error {
	s, err := p.startFuse(ctx, mt.Mount, file)
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
func openOver(mt *fsmod.Mounted, earlier []fsmod.Mounted) (err error) {
	m := mt.Mount
	lower := lay(mt, earlier)
	if m.Kind == fsmod.Merge {
		mt.Alias = true
		mt.FS, err = cow.NewMerge(m.Source, lower)
		return err
	}
	conf := cow.Config{Lower: lower, Upper: m.Source}
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

// lay lays a mount over those that are made before it: what is seen of them at its target
// and below is what it covers.
func lay(mt *fsmod.Mounted, earlier []fsmod.Mounted) (lower []cow.Source) {
	at := mt.Target
	lower = cow.Host(at)
	for _, e := range earlier {
		switch root := e.Target; {
		case covers(root, at):
			lower, mt.Over, mt.Alias = []cow.Source{{FS: e.FS, Name: below(root, at)}}, nil, false
		case covers(at, root):
			lower = append(lower, cow.Source{At: below(at, root), FS: e.FS})
		default:
			continue
		}
		mt.Over = append(mt.Over, e.FS)
		mt.Alias = mt.Alias || e.Alias || e.Kind == fsmod.Bind
	}
	return lower
}

// below is the name of a path in a directory that it is in.
func below(dir, path string) string { return strings.Trim(strings.TrimPrefix(path, dir), "/") }

// real is path without symbolic links, if it is there.
func real(path string) string {
	if r, err := filepath.EvalSymlinks(path); err == nil {
		return r
	}
	return path
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

// targetImage is imageOf for mount(2) by the program. What cannot be written to is EROFS, after
// which mount(8) asks for it to be read.
func (p *Plan) targetImage(ctx context.Context, file string, m fsmod.Mount) (mt fsmod.Mounted, format string, err error) {
	mt, format, err = p.imageOf(ctx, file, m)
	if err != nil && m.Served() && !errors.Is(err, unix.EBUSY) {
		err = fmt.Errorf("%w: %w", unix.EROFS, err)
	}
	return mt, format, err
}

// imageOf opens the tree of an image that is in file, whatever it is called in the view.
func (p *Plan) imageOf(ctx context.Context, file string, m fsmod.Mount) (mt fsmod.Mounted, format string, err error) {
	if m.Served() {
		mt.Mount = m
		if err := checkWritable(m, file); err != nil {
			return mt, "", err
		}
		err = p.trapServed(ctx, &mt, file) // which changes mt
		return mt, "ext4", err
	}
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
