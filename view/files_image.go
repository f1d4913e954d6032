// SPDX-License-Identifier: Apache-2.0

// What the supervisor has for the program's namespace: images, which it serves, and the mounts
// that commands serve.

package view

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"umrun/fsmod"
	"umrun/fsmod/image"
	"umrun/fsmod/imagemount"
	"umrun/fsmod/nsmount"
)

// images are those of a view's mounts.
type images struct {
	log    *slog.Logger
	opened map[int]openedImage // by the number of the mount
	served map[int]*fuseServer // those that commands serve; not ours to close
	link   *net.UnixConn       // to the child
	theirs *os.File            // the child's end
	done   sync.WaitGroup      // of the receiver

	mu      sync.Mutex
	servers []*imagemount.Server // guarded by mu
}

type openedImage struct {
	image.FS
	size int64
	lock *os.File          // keeps others from writing to it
	as   *imagemount.Owner // see ownerOf
}

// Close closes the image, and lets others write to it.
func (o openedImage) Close() error { return errors.Join(o.FS.Close(), o.lock.Close()) }

// openImages opens the images among mounts and waits for their mounts, and for those who want
// what commands serve; nil: there are none. The result is to be closed after the target has
// ended.
func openImages(mounts []fsmod.Mount, served map[int]*fuseServer, log *slog.Logger) (*images, error) {
	m := &images{log: log, opened: map[int]openedImage{}, served: served}
	for i, mt := range mounts {
		if mt.Kind != fsmod.Image || mt.Served() {
			continue
		}
		fsys, err := openImage(mt, log)
		if err != nil {
			return nil, errors.Join(err, m.Close())
		}
		fsys.as = ownerOf(mounts, i)
		m.opened[i] = fsys
	}
	if len(m.opened)+len(served) == 0 {
		return nil, nil
	}
	if err := m.receive(m.serve); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// receive has serve answer what the child wants.
func (m *images) receive(serve func(n int, dev *os.File) (*os.File, error)) (err error) {
	if m.theirs, m.link, err = imagemount.Pair(); err != nil {
		return err
	}
	m.done.Go(func() { // ends with Close, or with the last copy of the child's end
		_ = imagemount.Receive(m.link, serve)
	})
	return nil
}

// ownerOf is whom the files of image i belong to; nil: to those whom the image says. They
// are the ordinary user's who lays a cow over them: what is another's could not be copied.
func ownerOf(mounts []fsmod.Mount, i int) *imagemount.Owner {
	over := func(m fsmod.Mount) bool { return m.Kind == fsmod.Cow && covers(mounts[i].Target, m.Target) }
	if !nsmount.Unprivileged() || !slices.ContainsFunc(mounts[i+1:], over) {
		return nil
	}
	return &imagemount.Owner{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
}

// openImage opens the image of a mount.
func openImage(mt fsmod.Mount, log *slog.Logger) (o openedImage, err error) {
	lock, err := os.Open(mt.Source)
	if err != nil {
		return o, &Problem{Code: ExitConfig, What: fmt.Sprintf("-m %v: %v", mt, err), Err: err}
	}
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	if err := holdImage(lock, mt, unix.LOCK_SH); err != nil {
		return o, err
	}
	if o.FS, err = image.Open(mt.Source); err != nil {
		p := &Problem{Code: ExitConfig, What: fmt.Sprintf("-m %v: %v", mt, err), Err: err}
		if errors.Is(err, unix.EUCLEAN) {
			p.Try = []string{"e2fsck -p " + mt.Source}
		}
		return o, p
	}
	for _, s := range image.Skipped(o.FS) {
		log.Warn("image: left out", "image", mt.Source, "member", s)
	}
	if st, err := os.Stat(mt.Source); err == nil {
		o.size = st.Size()
	}
	o.lock = lock
	return o, nil
}

// serve begins to serve a mount that the child has made, or gives it one that a command serves.
func (m *images) serve(n int, dev *os.File) (*os.File, error) {
	o, ok := m.opened[n]
	switch s := m.served[n]; {
	case dev == nil && s != nil:
		return s.Tree()
	case dev == nil:
		return nil, fmt.Errorf("no command serves mount %d", n)
	case !ok:
		return nil, errors.Join(fmt.Errorf("mount %d is no image", n), dev.Close())
	}
	s, err := imagemount.Serve(dev, o.FS, o.size, o.as, m.log)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.servers = append(m.servers, s)
	return nil, nil
}

// gone is closed when the first mount that is served has gone; nil: none is.
func (m *images) gone() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.servers) == 0 {
		return nil
	}
	return m.servers[0].Done()
}

// child is the child's end of the link; nil: there is none.
func (m *images) child() *os.File {
	if m == nil {
		return nil
	}
	return m.theirs
}

// started lets go of the child's end, when there is a child or there will be none.
func (m *images) started() {
	if m != nil && m.theirs != nil {
		m.theirs.Close()
	}
}

// Close waits for the mounts to go and closes the images.
func (m *images) Close() error {
	m.started()
	if m.link != nil {
		m.link.Close()
	}
	m.done.Wait()
	var errs []error
	for _, s := range m.servers {
		errs = append(errs, s.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return err // they are still needed
	}
	for _, o := range m.opened {
		errs = append(errs, o.Close())
	}
	return errors.Join(errs...)
}
