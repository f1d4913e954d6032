// SPDX-License-Identifier: Apache-2.0

// Files of the view that come and go while it runs.

package view

import (
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"

	"umrun/fsmod"
)

// Mounts are those that the view has now, in the order in which they were made.
func (v *View) Mounts() []fsmod.Mount {
	switch f := v.plan.Files; {
	case f == nil:
		return nil
	case f.Engine == EngineTrap:
		var all []fsmod.Mount
		_ = v.files.Now(func(mounts []fsmod.Mounted) error {
			for _, m := range mounts {
				all = append(all, m.Mount)
			}
			return nil
		})
		return all
	}
	all := v.kernel.list()
	if ns, err := v.ns(); err == nil {
		all = append(all, ns.Made()...)
	}
	return all
}

// errUnarmed says why a view cannot be changed.
func (v *View) errUnarmed() error {
	return &Problem{Code: ExitConfig, What: fmt.Sprintf("the view %s was started without mounts, and none can be made in it", v.plan.conf.Name),
		Why: "The calls that name files are not trapped in it, and nobody can change that for processes that run.",
		Try: []string{fmt.Sprintf("umrun --name %s --fs-engine trap ...", v.plan.conf.Name), fmt.Sprintf("umrun --name %s --fs-engine ns ...", v.plan.conf.Name)}}
}

// Mount adds a mount to the running view.
func (v *View) Mount(m fsmod.Mount) error {
	if v.plan.Files == nil {
		return v.errUnarmed()
	}
	switch {
	case isDevice(m):
		return &Problem{Code: ExitConfig, What: fmt.Sprintf("-m %v: a device of that kind is made when the view is started", m)}
	case v.plan.Files.Engine == EngineNS:
		return v.kernelMount(m)
	case !trapSupports(m):
		return NotBuilt(fmt.Sprintf("-m %v with --fs-engine trap", m))
	}
	mt, err := v.open(m)
	if err != nil {
		return err
	}
	if err := v.files.Mount(mt); err != nil {
		closeMounted(mt)
		if errors.Is(err, fsmod.ErrUnarmed) {
			return v.errUnarmed()
		}
		return &Problem{Code: ExitFailed, What: fmt.Sprintf("-m %v: %v", m, err), Err: err}
	}
	return nil
}

// diskOf is the ramdisk of the view that a mount shows as an image, or nil.
func (v *View) diskOf(m fsmod.Mount) *fsmod.Disk {
	if m.Kind != fsmod.Image {
		return nil
	}
	return v.disks[m.Source]
}

// open opens the tree of a mount that is to be added.
func (v *View) open(m fsmod.Mount) (mt fsmod.Mounted, err error) {
	check, disk := checkMount, v.diskOf(m)
	if disk != nil { // which has no place on the host
		check = checkPlace
	}
	if _, err := check(m, v.Mounts()); err != nil {
		return mt, err
	}
	switch m.Kind {
	case fsmod.Cow, fsmod.Merge:
		err = v.files.Now(func(earlier []fsmod.Mounted) (err error) {
			m.Target = fsmod.RealPath(earlier, m.Target)
			mt, err = v.plan.trapMount(v.life, m, earlier)
			return err
		})
		return mt, err
	case fsmod.Image:
		if disk != nil {
			if mt, _, err = v.plan.imageOf(v.life, disk.Path(), m); err == nil {
				disk.Claim(&mt)
			}
			return mt, err
		}
	}
	return v.plan.trapMount(v.life, m, nil)
}

// Unmount removes the topmost mount at a path. Without lazy it is refused if it is in use.
func (v *View) Unmount(path string, lazy bool) error {
	if v.plan.Files == nil {
		return v.errUnarmed()
	}
	at := filepath.Clean(path)
	var err error
	if v.plan.Files.Engine == EngineNS {
		err = v.kernelUnmount(at, lazy)
	} else {
		_ = v.files.Now(func(mounts []fsmod.Mounted) error {
			at = fsmod.RealPath(mounts, at)
			return nil
		})
		err = v.files.Unmount(at, lazy)
	}
	switch problem := (*Problem)(nil); {
	case errors.As(err, &problem):
		return problem
	case err == nil:
		return nil
	case errors.Is(err, fsmod.ErrUnarmed):
		return v.errUnarmed()
	case errors.Is(err, unix.EINVAL):
		return &Problem{Code: ExitConfig, What: fmt.Sprintf("umount %s: there is no mount of the view's", path), Try: []string{"umrun ps --json"}, Err: err}
	case errors.Is(err, unix.EBUSY):
		return &Problem{Code: ExitFailed, What: fmt.Sprintf("umount %s: %v", path, err), Try: []string{fmt.Sprintf("umrun set %s umount --lazy %s", v.plan.conf.Name, path)}, Err: err}
	}
	return &Problem{Code: ExitFailed, What: fmt.Sprintf("umount %s: %v", path, err), Err: err}
}
