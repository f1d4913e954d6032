// SPDX-License-Identifier: Apache-2.0

// Images that programs mount in a view whose mounts are the kernel's.

package view

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"umrun/fsmod"
	"umrun/fsmod/nsmount"
	"umrun/intercept"
)

// A programImage serves the image of one mount(2).
type programImage struct {
	*images
	v      *View
	source string // as the program calls it
	fstype string
	disk   *os.File // a ramdisk of the view that is the source; nil: a file is

	err error // why it is not served; written before the child has its answer
}

// programImage begins to serve one.
func (v *View) programImage(c *intercept.Call, source, fstype string) (nsmount.Images, error) {
	p := &programImage{v: v, source: source, fstype: fstype}
	if v.files != nil {
		fd, err := v.files.OpenDisk(c, source)
		if err != nil {
			return nil, err
		}
		if fd >= 0 {
			p.disk = os.NewFile(uintptr(fd), source)
		}
	}
	p.images = &images{log: v.plan.conf.Log, opened: map[int]openedImage{}}
	return p, p.receive(p.serve)
}

// Link is [nsmount.Images].
func (p *programImage) Link() *os.File { return p.theirs }

// Disk is [nsmount.Images].
func (p *programImage) Disk() bool { return p.disk != nil }

// serve is what the child asks for: to open an image, and to serve its mount.
func (p *programImage) serve(n int, f *os.File) (*os.File, error) {
	switch {
	case n == nsmount.ImageOpened && p.disk == nil:
		p.err = p.open(f)
		return nil, p.err
	case n == nsmount.ImageServed && p.disk != nil:
		disk := p.disk
		p.disk = nil
		if p.err = p.open(disk); p.err != nil {
			return nil, errors.Join(p.err, f.Close())
		}
	}
	return p.images.serve(0, f)
}

// open opens an image, which is closed here.
func (p *programImage) open(file *os.File) error {
	defer file.Close()
	o, err := openImage(fsmod.Mount{Kind: fsmod.Image, Source: fmt.Sprintf("/proc/self/fd/%d", file.Fd()), ReadOnly: true}, p.log)
	if err != nil {
		p.log.Warn("a mount by the program", "image", p.source, "err", err)
		if problem := (*Problem)(nil); errors.As(err, &problem) && problem.Err == error(unix.EBUSY) {
			return unix.EBUSY
		}
		return unix.EINVAL
	}
	if !fsmod.IsFormatOf(p.fstype, o.Format()) {
		return errors.Join(unix.EINVAL, o.Close())
	}
	p.opened[0] = o
	return nil
}

// Done is [nsmount.Images].
func (p *programImage) Done(err error) error {
	if err == nil {
		p.started()
		p.v.kernel.keepUntil(p.gone(), p.images)
		return nil
	}
	e := p.Close() // the child has its answers
	if p.disk != nil {
		e = errors.Join(e, p.disk.Close())
	}
	if e != nil {
		p.log.Warn("a mount by the program that was not made", "image", p.source, "err", e)
	}
	if p.err != nil {
		return p.err
	}
	return err
}
