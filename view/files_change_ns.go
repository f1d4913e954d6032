// SPDX-License-Identifier: Apache-2.0

// Mounts of the kernel's that come and go while a view runs.

package view

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"umrun/fsmod"
	"umrun/fsmod/fusemount"
	"umrun/fsmod/nsmount"
)

// kernelMounts are those of a view that the kernel serves.
type kernelMounts struct {
	mu  sync.Mutex
	all []kernelMount // in the order in which they were made; guarded by mu

	// left is what those hold that went lazily, whose users may still write, and images;
	// guarded by mu.
	left closers

	watching sync.WaitGroup // the goroutines of keepUntil
}

// keep keeps something until the view ends.
func (k *kernelMounts) keep(c io.Closer) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.left = append(k.left, c)
}

// keepUntil keeps something until gone is closed, or the view ends, of which life tells before Close.
func (k *kernelMounts) keepUntil(life context.Context, gone <-chan struct{}, s *programServer, log *slog.Logger) {
	k.keep(s)
	k.watching.Go(func() {
		select {
		case <-gone:
		case <-life.Done():
			return
		}
		err := s.Close()
		k.mu.Lock()
		i := slices.Index(k.left, io.Closer(s))
		if i >= 0 {
			k.left = slices.Delete(k.left, i, i+1)
		}
		k.mu.Unlock()
		if i >= 0 && err != nil { // else the view's end tells
			log.Warn("a mount that has gone", "err", err)
		}
	})
}

// programs returns what serves mounts that programs have made.
func (k *kernelMounts) programs() (all []*programServer) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range k.left {
		if s, ok := c.(*programServer); ok {
			all = append(all, s)
		}
	}
	return all
}

// A kernelMount is one with what is to be closed when it is gone.
type kernelMount struct {
	fsmod.Mount
	held io.Closer // may be nil
}

// list returns the mounts.
func (k *kernelMounts) list() []fsmod.Mount {
	k.mu.Lock()
	defer k.mu.Unlock()
	var all []fsmod.Mount
	for _, m := range k.all {
		all = append(all, m.Mount)
	}
	return all
}

// namespace is that of the view, when there is one: see View.ns.
func (v *View) namespace() (*nsmount.Namespace, error) {
	<-v.known
	if v.sup == nil {
		return nil, unix.ESRCH
	}
	return nsmount.NewNamespace(v.sup.Handed())
}

// changeable is the namespace, if mounts can be made in it from outside.
func (v *View) changeable() (*nsmount.Namespace, error) {
	if v.plan.conf.Name == "" { // the host's mounts were not kept
		return nil, &Problem{Code: ExitConfig, What: "only the mounts of a view with a name can be changed", Try: []string{"--name NAME"}}
	}
	return v.ns()
}

// kernelMount makes a mount in the view's namespace.
func (v *View) kernelMount(m fsmod.Mount) error {
	ns, err := v.changeable()
	if err != nil {
		return err
	}
	switch err := nsmount.Supports(m); {
	case m.Target == "/":
		return NotBuilt(fmt.Sprintf("-m %v in a running view with --fs-engine ns", m))
	case err != nil:
		return NotBuilt(fmt.Sprintf("-m %v: %v", m, err))
	}
	check, disk := checkMount, v.diskOf(m)
	if disk != nil { // which has no place on the host
		check = checkPlace
	}
	if _, err := check(m, v.Mounts()); err != nil {
		return err
	}
	if m.Target, err = ns.Real(m.Target); err != nil {
		return err
	}
	held, server, err := v.hold(m, disk)
	if err != nil {
		return err
	}
	err = v.kernel.make(ns, kernelMount{m, held}, v.plan.places(), server.child())
	server.started()
	if err != nil && held != nil {
		err = errors.Join(err, held.Close())
	}
	return err
}

// hold begins what a mount needs as long as it is there: held, which may be nil, and what is
// asked for it while it is made. disk is that of an image, or nil.
func (v *View) hold(m fsmod.Mount, disk *fsmod.Disk) (held io.Closer, server *images, err error) {
	file, used := m.Source, closers{}
	if disk != nil {
		file, used = disk.Path(), closers{disk.Claimed()}
		if m.Served() {
			err = checkWritable(m, file)
		}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, used.Close())
		}
	}()
	switch {
	case err != nil:
	case m.Kind == fsmod.Cow && m.Source != "":
		held, err = holdUpper(m)
	case m.Served():
		var s *fuseServer
		if s, err = v.plan.startFuse(v.life, m, file); err != nil {
			return nil, nil, err
		}
		if server, err = openImages([]fsmod.Mount{m}, map[int]*fuseServer{0: s}, v.plan.conf.Log); err != nil {
			return nil, nil, errors.Join(err, s.Close())
		}
		held = &servedMount{closers: append(closers{server, s}, used...), writer: s}
	case m.Kind == fsmod.Image:
		m.Source = file
		if server, err = openImages([]fsmod.Mount{m}, nil, v.plan.conf.Log); err == nil {
			held = append(closers{server}, used...)
		}
	}
	return held, server, err
}

// make makes a mount in a namespace. The error is a [*Problem].
func (k *kernelMounts) make(ns *nsmount.Namespace, m kernelMount, places []string, link *os.File) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	err := ns.Do(nsmount.Change{Mount: m.Mount, Places: places}, link)
	if err == nil {
		k.all = append(k.all, m)
		return nil
	}
	code := ExitFailed
	var failed *nsmount.ChangeError
	var try []string
	if errors.As(err, &failed) && failed.Err == unix.ENOENT {
		code = ExitConfig
		if strings.HasPrefix(failed.Text, "stat "+m.Target+":") { // the place
			try = []string{placeFor(m.Mount)}
		}
	}
	return &Problem{Code: code, What: fmt.Sprintf("-m %v: %v", m.Mount, err), Try: try, Err: err}
}

// placeFor is the command that makes what a mount can be made on.
func placeFor(m fsmod.Mount) string {
	st, err := os.Stat(m.Source)
	if m.Kind == fsmod.File || m.Kind == fsmod.Dev || m.Kind == fsmod.Bind && err == nil && !st.IsDir() {
		return "touch " + m.Target
	}
	return "mkdir -p " + m.Target
}

// kernelUnmount removes the topmost mount at a path.
func (v *View) kernelUnmount(at string, lazy bool) error {
	ns, err := v.changeable()
	if err == nil {
		at, err = ns.Real(at)
	}
	if err != nil {
		return err
	}
	gone, err := v.kernel.unmount(ns, at, lazy)
	for _, g := range gone {
		if v.leave(g, lazy) {
			continue
		}
		if err := g.Close(); err != nil { // somebody may still have it
			v.plan.conf.Log.Warn("a mount that was removed", "mount", at, "err", err)
			v.kernel.keep(g)
		}
	}
	return err
}

// A servedMount is what is held for a mount that a command serves.
type servedMount struct {
	closers
	writer *fuseServer
}

func isServed(held io.Closer) bool {
	_, ok := held.(*servedMount)
	return ok
}

// leave leaves what a mount needs that was removed to those who have its file system elsewhere, as
// by a bind of the program's, or from before where the mount went lazily: then it is true.
func (v *View) leave(held io.Closer, lazy bool) bool {
	s, ok := held.(*servedMount)
	if !ok {
		return false
	}
	device, err := s.writer.device()
	if err != nil || s.writer.give() != nil {
		return false // it has ended
	}
	if !lazy {
		select {
		case <-s.writer.Ended():
			return false
		case <-time.After(fusemount.Busy):
		}
	}
	v.kernel.keepUntil(v.life, s.writer.Ended(), newProgramServer(device, s.closers), v.plan.conf.Log)
	return true
}

// unmount removes the topmost mount at a path, and returns what is to be closed then. EINVAL:
// there is none but of the host's.
func (k *kernelMounts) unmount(ns *nsmount.Namespace, at string, lazy bool) (gone closers, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	i := -1
	for n, m := range k.all {
		if m.Target == at {
			i = n
		}
	}
	covered := func(m kernelMount) bool { return m.Target != at && covers(m.Target, at) }
	byProgram := func() (n int) {
		for _, m := range ns.Made() {
			if m.Target == at {
				n++
			}
		}
		return n
	}
	before := byProgram()
	if i < 0 && before == 0 || slices.ContainsFunc(k.all[i+1:], covered) {
		return nil, unix.EINVAL
	}
	if err := ns.Do(nsmount.Change{Umount: at, Lazy: lazy}, nil); err != nil {
		return nil, err
	}
	if i < 0 || byProgram() < before {
		return nil, nil // it was a program's that was on top
	}
	went := func(m kernelMount) bool { return m.Target == at || covers(at, m.Target) }
	for n := len(k.all) - 1; n >= i; n-- {
		if m := k.all[n]; n == i || went(m) {
			switch {
			case m.held == nil:
			case lazy && !isServed(m.held):
				k.left = append(k.left, m.held)
			default:
				gone = append(gone, m.held)
			}
			k.all = slices.Delete(k.all, n, n+1)
		}
	}
	return gone, nil
}

// Close lets go of what the mounts hold.
func (k *kernelMounts) Close() error {
	defer k.watching.Wait() // when mu is free
	k.mu.Lock()
	defer k.mu.Unlock()
	var errs []error
	for _, m := range k.all {
		if m.held != nil {
			errs = append(errs, m.held.Close())
		}
	}
	errs = append(errs, k.left.Close())
	k.all, k.left = nil, nil
	return errors.Join(errs...)
}
