// SPDX-License-Identifier: Apache-2.0

// Mounts of the kernel's that come and go while a view runs.

package view

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"umrun/fsmod"
	"umrun/fsmod/nsmount"
)

// kernelMounts are those of a view that the kernel serves.
type kernelMounts struct {
	mu  sync.Mutex
	all []kernelMount // in the order in which they were made; guarded by mu

	// left is what those hold that went lazily, whose users may still write, and images;
	// guarded by mu.
	left closers
}

// keep keeps something until the view ends.
func (k *kernelMounts) keep(c io.Closer) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.left = append(k.left, c)
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
	return k.listLocked()
}

func (k *kernelMounts) listLocked() []fsmod.Mount {
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
	k := &v.kernel
	k.mu.Lock()
	defer k.mu.Unlock()
	switch err := nsmount.Supports(m); {
	case m.Served(), m.Target == "/":
		return NotBuilt(fmt.Sprintf("-m %v in a running view with --fs-engine ns", m))
	case err != nil:
		return NotBuilt(fmt.Sprintf("-m %v: %v", m, err))
	}
	if _, err := checkMount(m, k.listLocked()); err != nil {
		return err
	}
	m.Target = real(m.Target)
	made := kernelMount{Mount: m}
	ch := nsmount.Change{Mount: m, Places: v.plan.places()}
	switch {
	case m.Kind == fsmod.Cow && m.Source != "":
		held, err := holdUpper(m)
		if err != nil {
			return err
		}
		made.held = held
		return v.kernelMade(made, ns.Do(ch, nil))
	case m.Kind == fsmod.Image:
		images, err := openImages([]fsmod.Mount{m}, nil, v.plan.conf.Log)
		if err != nil {
			return err
		}
		err = ns.Do(ch, images.theirs)
		images.started()
		if err == nil {
			v.kept = append(v.kept, images) // until nobody uses it, which the kernel says at the end
		} else {
			err = errors.Join(err, images.Close())
		}
		return v.kernelMade(made, err)
	}
	return v.kernelMade(made, ns.Do(ch, nil))
}

// kernelMade notes a mount, or words why it was not made. v.kernel.mu is held.
func (v *View) kernelMade(m kernelMount, err error) error {
	if err == nil {
		v.kernel.all = append(v.kernel.all, m)
		return nil
	}
	if m.held != nil {
		m.held.Close()
	}
	code := ExitFailed
	var failed *nsmount.ChangeError
	if errors.As(err, &failed) && failed.Err == unix.ENOENT {
		code = ExitConfig
	}
	return &Problem{Code: code, What: fmt.Sprintf("-m %v: %v", m, err), Err: err}
}

// kernelUnmount removes the topmost mount at a path.
func (v *View) kernelUnmount(at string, lazy bool) error {
	ns, err := v.changeable()
	if err != nil {
		return err
	}
	k := &v.kernel
	k.mu.Lock()
	defer k.mu.Unlock()
	i := -1
	for n, m := range k.all {
		if m.Target == at {
			i = n
		}
	}
	covered := func(m kernelMount) bool { return m.Target != at && covers(m.Target, at) }
	if i < 0 || slices.ContainsFunc(k.all[i+1:], covered) {
		return unix.EINVAL
	}
	if err := ns.Do(nsmount.Change{Umount: at, Lazy: lazy}, nil); err != nil {
		return err
	}
	gone := func(m kernelMount) bool { return m.Target == at || covers(at, m.Target) }
	for n := len(k.all) - 1; n >= i; n-- {
		if m := k.all[n]; n == i || gone(m) {
			switch {
			case m.held == nil:
			case lazy:
				k.left = append(k.left, m.held)
			default:
				m.held.Close()
			}
			k.all = slices.Delete(k.all, n, n+1)
		}
	}
	return nil
}

// Close lets go of what the mounts hold.
func (k *kernelMounts) Close() error {
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
