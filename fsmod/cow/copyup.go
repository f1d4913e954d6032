// SPDX-License-Identifier: Apache-2.0

// Copying files of the lower layer to the upper one.

package cow

import (
	"context"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// How much of a file is copied.
type extent bool

const (
	whole   extent = true
	without extent = false // no data: it is about to be truncated
)

// copies are the names that are being copied up.
type copies struct {
	mu    sync.Mutex
	names map[string]chan struct{} // closed at the end. Guarded by mu
}

// begin waits until nobody copies name and takes it.
func (c *copies) begin(name string) {
	for {
		c.mu.Lock()
		done, busy := c.names[name]
		if !busy {
			if c.names == nil {
				c.names = map[string]chan struct{}{}
			}
			c.names[name] = make(chan struct{})
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		<-done
	}
}

func (c *copies) end(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.names[name])
	delete(c.names, name)
}

// copyUp sees that the upper layer has name. It takes b.mu. It ends with EINTR when ctx is
// done.
func (b *branch) copyUp(ctx context.Context, name string, how extent) error {
	if b.readOnly() {
		return unix.EROFS
	}
	b.copies.begin(name)
	defer b.copies.end(name)
	for {
		p, err := b.find(name, true)
		if err != nil {
			return err
		}
		again, err := b.copyPlace(ctx, name, p, how)
		p.close()
		if err != nil || !again {
			return err
		}
	}
}

// find is walk with b.mu.
func (b *branch) find(name string, parent bool) (*place, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.walk(name, parent)
}

// copyPlace copies what was found at name. Without the lock everything may have changed
// when the copy is ready: again says so.
func (b *branch) copyPlace(ctx context.Context, name string, p *place, how extent) (again bool, err error) {
	switch {
	case p.up >= 0:
		return false, nil
	case !p.exists():
		return false, unix.ENOENT
	case p.dir.up < 0:
		return true, b.copyUp(ctx, above(name), whole)
	}
	err = b.owner.do(func() error {
		if how == whole && kind(&p.st) == unix.S_IFREG {
			if err := b.filledIn(ctx, p.layer, name, true); err != nil {
				return err
			}
		}
		tmp, err := b.makeCopy(ctx, p.low, &p.st, how)
		if err != nil {
			return err
		}
		b.copied(tmp, &p.st, p.layer)
		again, err = b.putCopy(name, tmp, &p.st)
		if again || err != nil {
			b.discard(tmp)
		}
		return err
	})
	return again, err
}

// putCopy renames a copy to its place, if that has not changed.
func (b *branch) putCopy(name, tmp string, of *unix.Stat_t) (again bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, err := b.walk(name, true)
	if err != nil {
		return true, nil // the next look tells the same, to the right thread
	}
	defer p.close()
	if p.up >= 0 || p.low < 0 || p.dir.up < 0 || !same(&p.st, of) || p.st.Mtim != of.Mtim || p.st.Size != of.Size {
		return true, nil
	}
	put := func() error { return unix.Renameat2(b.work, tmp, p.dir.up, p.name, unix.RENAME_NOREPLACE) }
	if err = put(); err == unix.EACCES {
		// The user may not make names there, but may have those that there are copied.
		err = writable(p.dir.up, &p.dir.st, put)
	}
	if err != nil {
		return false, err
	}
	setTimes(p.dir.up, &p.dir.st) // nothing has changed in the directory that the view shows
	if kind(of) == unix.S_IFDIR && of.Mode&0o200 == 0 && !capable(unix.CAP_DAC_OVERRIDE) {
		err = unix.Fchmodat(p.dir.up, p.name, of.Mode&0o7777, 0)
	}
	return false, err
}

// writable does what needs a directory of ours to be writable.
func writable(fd int, st *unix.Stat_t, f func() error) error {
	if err := unix.Chmod(fdPath(fd), st.Mode&0o7777|0o700); err != nil {
		return unix.EACCES
	}
	err := f()
	if e := unix.Chmod(fdPath(fd), st.Mode&0o7777); err == nil {
		err = e
	}
	return err
}

// above is the name of the directory that name is in.
func above(name string) string { return name[:max(0, strings.LastIndexByte(name, '/'))] }

// makeCopy makes a copy of low in copies/.
func (b *branch) makeCopy(ctx context.Context, low int, st *unix.Stat_t, how extent) (tmp string, err error) {
	tmp = b.temp()
	fd := -1
	switch kind(st) {
	case unix.S_IFREG:
		fd, err = openBelow(b.work, tmp, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, 0o600)
		if err == nil && how == whole && st.Size > 0 {
			err = copyFile(ctx, fd, low, st.Size)
		}
	case unix.S_IFDIR:
		err = unix.Mkdirat(b.work, tmp, 0o700)
	case unix.S_IFLNK:
		err = b.copyLink(tmp, low, st)
	default:
		err = unix.Mknodat(b.work, tmp, st.Mode&^0o7777|0o600, int(st.Rdev))
	}
	if err == nil && fd < 0 {
		fd, err = openBelow(b.work, tmp, unix.O_PATH, 0)
	}
	if err == nil {
		err = copyAttributes(fd, low, st)
	}
	if err == nil && kind(st) == unix.S_IFREG && st.Size > 0 && how == whole && !b.volatile {
		err = unix.Fsync(fd)
	}
	if err == nil && ctx.Err() != nil {
		err = unix.EINTR // for nobody
	}
	closeAll(fd)
	if err != nil {
		b.discard(tmp)
	}
	return tmp, err
}

func (b *branch) copyLink(tmp string, low int, st *unix.Stat_t) error {
	buf := make([]byte, max(st.Size, 1)+1)
	n, err := unix.Readlinkat(low, "", buf)
	if err != nil {
		return err
	}
	if n == len(buf) {
		return unix.EIO // it grew, which links do not
	}
	return unix.Symlinkat(string(buf[:n]), b.work, tmp)
}

// copyAttributes gives to, a new file, the owner, extended attributes, mode and times of
// low. fd may be O_PATH.
func copyAttributes(to, low int, st *unix.Stat_t) error {
	mode := st.Mode & 0o7777
	err := unix.Fchownat(to, "", int(st.Uid), int(st.Gid), unix.AT_EMPTY_PATH)
	if err == unix.EPERM || err == unix.EINVAL { // not to be given away, or not known in our user namespace
		mode &^= unix.S_ISUID
		if unix.Fchownat(to, "", -1, int(st.Gid), unix.AT_EMPTY_PATH) != nil && kind(st) != unix.S_IFDIR {
			mode &^= unix.S_ISGID
		}
		err = nil
	}
	if err == nil {
		err = copyXattrs(to, low)
	}
	if kind(st) == unix.S_IFDIR && !capable(unix.CAP_DAC_OVERRIDE) {
		mode |= 0o200 // or it cannot be renamed to its place
	}
	if err == nil && kind(st) != unix.S_IFLNK {
		err = unix.Chmod(fdPath(to), mode)
	}
	if err == nil {
		setTimes(to, st)
	}
	return err
}

// setTimes sets the times of what fd, which may be O_PATH, is of. They are not worth an error.
func setTimes(fd int, st *unix.Stat_t) {
	_ = unix.UtimesNanoAt(unix.AT_FDCWD, fdPath(fd), []unix.Timespec{st.Atim, st.Mtim}, 0)
}

// discard removes what is in copies/ by a name, whatever it is.
func (b *branch) discard(tmp string) { discardAt(b.work, tmp) }

// discardAt removes a file, or a directory with all that is in it.
func discardAt(dir int, name string) {
	err := unix.Unlinkat(dir, name, 0)
	if err != unix.EISDIR && err != unix.EPERM {
		return
	}
	if unix.Unlinkat(dir, name, unix.AT_REMOVEDIR) == nil {
		return
	}
	fd, err := openBelow(dir, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err == unix.EACCES { // ours all the same
		_ = unix.Fchmodat(dir, name, 0o700, 0)
		fd, err = openBelow(dir, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	}
	if err != nil {
		return
	}
	names, err := readDir(fd)
	if err == nil {
		for _, e := range names {
			discardAt(fd, e.Name)
		}
	}
	closeAll(fd)
	_ = unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
}
