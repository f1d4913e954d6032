// SPDX-License-Identifier: Apache-2.0

// Images that programs mount in a view whose mounts are the kernel's.

package view

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"umrun/fsmod"
	"umrun/fsmod/fusemount"
	"umrun/fsmod/nsmount"
	"umrun/intercept"
)

// A programImage serves the image of one mount(2).
type programImage struct {
	*images
	v      *View
	source string // as the program calls it
	target string // this too
	fstype string
	disk   *fsmod.Disk // a ramdisk of the view that is the source; nil: a file is

	// Written before the child has its answer.
	writer *fuseServer // of what is written to
	err    error       // why it is not served
}

// serveSoon is how long the command of an image may take until it serves: other mounts of the view wait.
const serveSoon = 20 * time.Second

// programImage begins to serve one.
func (v *View) programImage(c *intercept.Call, call *nsmount.Call) (nsmount.Images, error) {
	p := &programImage{v: v, source: call.Source, target: call.Target, fstype: call.Type}
	if v.files != nil {
		p.disk = v.files.DiskAt(c, call.Source)
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
	case n == nsmount.ImageServed && f == nil && p.disk != nil:
		if p.writer, p.err = p.write(); p.err != nil {
			return nil, p.err
		}
		return p.writer.Tree()
	case n == nsmount.ImageOpened && p.disk == nil:
		p.err = p.open(f)
		return nil, p.err
	case n == nsmount.ImageServed && p.disk != nil:
		disk, err := os.Open(p.disk.Path())
		if err == nil {
			err = p.open(disk)
		}
		if p.err = err; err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return p.images.serve(0, f)
}

// open opens an image, which is closed here.
func (p *programImage) open(file *os.File) error {
	defer file.Close()
	o, err := openImage(fsmod.Mount{Kind: fsmod.Image, Source: fmt.Sprintf("/proc/self/fd/%d", file.Fd()), ReadOnly: true}, p.log)
	if err != nil {
		return p.failed(err, unix.EINVAL)
	}
	if !fsmod.IsFormatOf(p.fstype, o.Format()) {
		return errors.Join(unix.EINVAL, o.Close())
	}
	p.opened[0] = o
	return nil
}

// write has a command serve the ramdisk.
func (p *programImage) write() (*fuseServer, error) {
	m := fsmod.Mount{Kind: fsmod.Image, Source: p.source, Target: p.target}
	err := checkWritable(m, p.disk.Path())
	if err == nil && !fsmod.IsFormatOf(p.fstype, "ext4") {
		return nil, unix.EINVAL
	}
	var s *fuseServer
	if err == nil {
		ctx, cancel := context.WithTimeout(p.v.life, serveSoon)
		defer cancel()
		s, err = p.v.plan.startFuse(ctx, m, p.disk.Path())
	}
	if err != nil {
		return nil, p.failed(err, unix.EROFS) // mount(8) tries again with ro
	}
	return s, nil
}

// failed tells why an image is not served, and what the program gets: errno, or EBUSY.
func (p *programImage) failed(err error, errno unix.Errno) error {
	p.log.Warn("a mount by the program", "image", p.source, "err", err)
	if problem := (*Problem)(nil); errors.As(err, &problem) && problem.Err == error(unix.EBUSY) {
		return unix.EBUSY
	}
	return errno
}

// Done is [nsmount.Images].
func (p *programImage) Done(device string, err error) error {
	if err == nil && p.writer != nil {
		err = p.writer.give()
	}
	if err == nil {
		p.started()
		p.done.Wait() // the child has ended, and what it was sent is not ours any more
	}
	gone, held := p.images.gone(), closers{p.images}
	if p.writer != nil {
		gone, held = p.writer.Ended(), closers{p.writer, p.images}
	}
	if err == nil && gone != nil { // else nobody has asked: the kernel reads a block device itself
		if p.disk != nil {
			held = append(held, p.disk.Claimed())
		}
		p.v.kernel.keepUntil(p.v.life, gone, newProgramServer(device, held), p.log)
		return nil
	}
	e := p.Close() // the child has its answers
	if p.writer != nil {
		e = errors.Join(e, p.writer.Close())
	}
	if e != nil {
		p.log.Warn("a mount by the program that was not made", "image", p.source, "err", e)
	}
	if p.err != nil {
		return p.err
	}
	return err
}

// A programServer is what serves a file system that programs have mounted, or have mounts of.
type programServer struct {
	device  string // as [nsmount.Images] is told it
	closers closers
	once    sync.Once
	closed  chan struct{}
	err     error
}

func newProgramServer(device string, held closers) *programServer {
	return &programServer{device: device, closers: held, closed: make(chan struct{})}
}

// Close closes it. Twice is fine.
func (s *programServer) Close() error {
	s.once.Do(func() {
		s.err = s.closers.Close()
		close(s.closed)
	})
	return s.err
}

// unmounted waits for what serves a file system whose last mount in the view a program has removed:
// what comes next finds what was written, and the disk free.
func (v *View) unmounted(device string) {
	for _, s := range v.kernel.programs() {
		if s.device != device {
			continue
		}
		select {
		case <-s.closed:
		case <-time.After(fusemount.Busy): // another mount namespace has it still
		}
	}
}
