// SPDX-License-Identifier: Apache-2.0

// Files of the view that umrun itself serves: what is opened for a start.

package view

import (
	"errors"
	"fmt"
	"path/filepath"

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
		t, err := p.trapFS(v, m)
		if problem := (*Problem)(nil); errors.As(err, &problem) {
			return mounts, problem
		}
		if err != nil {
			return mounts, &Problem{Code: ExitConfig, What: fmt.Sprintf("-m %v: %v", m, err), Err: err}
		}
		mounts = append(mounts, fsmod.Mounted{Mount: m, FS: t})
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

// trapFS opens the tree of one mount.
func (p *Plan) trapFS(v *View, m fsmod.Mount) (fsmod.FS, error) {
	switch m.Kind {
	case fsmod.Merge:
		return cow.NewMerge(m.Source, m.Target)
	case fsmod.Image:
		return p.trapImage(m)
	case fsmod.Cow:
	default:
		return fsmod.OpenBuiltin(m)
	}
	conf := cow.Config{Lower: m.Target, Upper: m.Source}
	if m.Source == "" {
		place, gone, err := fsmod.Private()
		if err != nil {
			return nil, err
		}
		v.kept = append(v.kept, closerFunc(gone))
		conf.Upper, conf.Volatile = filepath.Join(place, "upper"), true
	}
	fs, err := cow.New(conf)
	if errors.Is(err, unix.EBUSY) {
		return nil, upperBusy(m)
	}
	return fs, err
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
