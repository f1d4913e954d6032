// SPDX-License-Identifier: Apache-2.0

// Opening and creating files.

package cow

import (
	"context"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Open is as [fsmod.FS] has it.
func (b *branch) Open(name string, flags int, mode uint32) (int, error) {
	if flags&unix.O_TMPFILE == unix.O_TMPFILE {
		return b.openTemp(name, flags, mode)
	}
	if flags&unix.O_PATH != 0 {
		flags &= unix.O_PATH | unix.O_DIRECTORY // open(2): all others are ignored
	}
	create := flags&unix.O_CREAT != 0
	if create && flags&unix.O_DIRECTORY != 0 {
		return -1, unix.EINVAL
	}
	for {
		p, err := b.find(name, create)
		if err != nil {
			return -1, err
		}
		fd := -1
		if p.exists() {
			fd, err = b.openFound(name, p, flags)
		} else if err = unix.ENOENT; create {
			fd, err = b.openNew(name, flags, mode)
		}
		p.close()
		if err != errAgain {
			return fd, err
		}
	}
}

// errAgain says that what was found is there no more, or not yet.
const errAgain = unix.ERESTART

// openFound opens what exists. b.mu is not held: opening may take long, a FIFO's.
func (b *branch) openFound(name string, p *place, flags int) (int, error) {
	const creates = unix.O_CREAT | unix.O_EXCL
	write := flags&unix.O_ACCMODE != unix.O_RDONLY || flags&unix.O_TRUNC != 0
	if b.ours(&p.node) {
		b.known(p.top())
	}
	switch k := kind(&p.st); {
	case flags&creates == creates:
		return -1, unix.EEXIST
	case flags&unix.O_DIRECTORY != 0 && k != unix.S_IFDIR:
		return -1, unix.ENOTDIR
	case flags&unix.O_PATH != 0:
		return p.take(), nil
	case k != unix.S_IFDIR && flags&unix.O_CREAT != 0 && !b.mayReuse(p):
		return -1, unix.EACCES
	case k == unix.S_IFLNK:
		return -1, unix.ELOOP
	case k == unix.S_IFDIR && (write || flags&unix.O_CREAT != 0):
		return -1, unix.EISDIR
	case k == unix.S_IFREG && write && b.readOnly():
		return -1, unix.EROFS
	case k == unix.S_IFREG && write && p.up < 0, k == unix.S_IFIFO && p.up < 0 && !b.readOnly():
		// A FIFO of the view is not the host's: who writes to that, changes its times.
		return b.openCopy(name, p, flags)
	case k == unix.S_IFREG && p.up < 0:
		if err := b.filledIn(context.Background(), p.layer, name, true); err != nil {
			return -1, err
		}
	}
	return reopen(p.top(), flags)
}

// Fill is as [fsmod.Filler] has it.
func (b *branch) Fill(name string) error {
	if !b.fills() {
		return nil
	}
	p, err := b.find(name, false)
	if err != nil {
		return err
	}
	defer p.close()
	if p.low < 0 || p.up >= 0 {
		return nil
	}
	return b.filledIn(context.Background(), p.layer, name, true)
}

// mayReuse reports whether O_CREAT may open what another has put into a directory that
// many can write: proc_sys_fs(5), protected_regular and protected_fifos.
func (b *branch) mayReuse(p *place) bool {
	dir := &p.dir.st
	if dir.Mode&unix.S_ISVTX == 0 || p.st.Uid == dir.Uid || int(p.st.Uid) == current().uid {
		return true
	}
	level := 2
	switch kind(&p.st) {
	case unix.S_IFREG:
		level = protected("regular")
	case unix.S_IFIFO:
		level = protected("fifos")
	}
	return level == 0 || dir.Mode&0o002 == 0 && (level < 2 || dir.Mode&0o020 == 0)
}

func protected(what string) int {
	b, _ := os.ReadFile("/proc/sys/fs/protected_" + what)
	n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return n
}

// openCopy opens a file of the lower layer after copying it up.
func (b *branch) openCopy(name string, p *place, flags int) (int, error) {
	if err := mayLower(p.low, &p.st, access(flags)); err != nil {
		return -1, err
	}
	how := whole
	if flags&unix.O_TRUNC != 0 {
		how = without
	}
	fd, err := b.own(name, how)
	if err == unix.ENOENT && flags&unix.O_CREAT != 0 {
		return -1, errAgain
	}
	if err != nil {
		return -1, err
	}
	defer closeAll(fd)
	return reopen(fd, flags)
}

// access is what must be allowed for an open: W_OK and R_OK.
func access(flags int) uint32 {
	var want uint32
	switch flags & unix.O_ACCMODE {
	case unix.O_RDONLY:
		want = unix.R_OK
	case unix.O_WRONLY:
		want = unix.W_OK
	default:
		want = unix.R_OK | unix.W_OK
	}
	if flags&unix.O_TRUNC != 0 {
		want |= unix.W_OK
	}
	return want
}

// openNew creates a file.
func (b *branch) openNew(name string, flags int, mode uint32) (fd int, err error) {
	fd = -1
	err = b.create(name, false, func(dir int, name string) (err error) {
		fd, err = openBelow(dir, name, flags|unix.O_CREAT|unix.O_EXCL, mode&0o7777)
		return err
	})
	if err != nil {
		closeAll(fd)
		if err == unix.EEXIST && flags&unix.O_EXCL == 0 {
			err = errAgain
		}
		return -1, err
	}
	b.known(fd)
	return fd, nil
}

// openTemp makes a file without a name: O_TMPFILE.
func (b *branch) openTemp(name string, flags int, mode uint32) (int, error) {
	fd := -1
	err := b.change(func() error {
		p, err := b.walk(name, false)
		if err != nil {
			return err
		}
		defer p.close()
		if err := p.enter(); err != nil {
			if err == unix.ELOOP {
				err = unix.ENOTDIR // O_DIRECTORY is part of O_TMPFILE
			}
			return err
		}
		if b.readOnly() {
			return unix.EROFS
		}
		if err := b.mayChange(&p.node); err != nil {
			return err
		}
		if p.up < 0 {
			return copyFirst(name)
		}
		fd, err = reopenMode(p.up, flags, mode&0o7777)
		b.known(fd)
		return err
	})
	return fd, err
}

// Own is as [fsmod.FS] has it. Who may neither do what owners may nor write the file has
// nothing to change in it.
func (b *branch) Own(name string) (int, error) {
	p, err := b.find(name, true)
	if err != nil {
		return -1, err
	}
	defer p.close()
	switch {
	case !p.exists():
		return -1, unix.ENOENT
	case b.readOnly():
		return -1, unix.EROFS
	case p.up >= 0:
		b.known(p.up)
		return p.take(), nil
	case !owns(&p.st) && mayLower(p.low, &p.st, unix.W_OK) != nil:
		return -1, unix.EPERM
	}
	return b.own(name, whole)
}

// own copies name up and returns an O_PATH descriptor of it in the upper layer.
func (b *branch) own(name string, how extent) (int, error) {
	for {
		if err := b.copyUp(context.Background(), name, how); err != nil {
			return -1, err
		}
		p, err := b.find(name, false)
		if err != nil {
			return -1, err
		}
		up := p.up
		if up >= 0 {
			b.known(up)
			up = p.take()
		}
		exists := p.exists() || up >= 0
		p.close()
		switch {
		case up >= 0:
			return up, nil
		case !exists:
			return -1, unix.ENOENT
		}
	}
}
