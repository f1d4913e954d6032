// SPDX-License-Identifier: Apache-2.0

// The copies: of directories when they are looked at, of content when it is read.

package imagetree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"umrun/fsmod/image"
)

const chunk = 256 << 10 // bytes that are copied at once

// list copies the entries of a directory, which is there as an empty one, and then gives
// it its attributes.
func (t *Tree) list(id image.ID, at string) error {
	if t.listed[id] {
		return nil
	}
	entries, err := t.names.ReadDir(id)
	if err != nil {
		return err
	}
	dir, err := t.beneath(at, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	for _, e := range entries {
		if err := t.entry(e, dir, at+"/"+e.Name); err != nil {
			return err
		}
	}
	a, err := t.fsys.Attr(id)
	if err != nil {
		return err
	}
	t.dress(id, dir, a)
	t.listed[id] = true
	return nil
}

// beneath opens the copy at a path of ours, through no symbolic link: the program can get at our
// directory by its name on the host, and might put one there.
func (t *Tree) beneath(at string, flags int) (int, error) {
	return t.openat(strings.TrimPrefix(strings.TrimPrefix(at, t.path), "/"), flags)
}

// entry copies an object without content into a directory, in which at ends. What cannot be read
// of the image is left out, and so are devices.
func (t *Tree) entry(e image.Entry, dir int, at string) error {
	a, err := t.fsys.Attr(e.ID)
	if err != nil {
		t.log.Warn("image: left out", "name", e.Name, "err", err)
		return nil
	}
	typ := a.Mode & unix.S_IFMT
	if typ != unix.S_IFDIR && a.Nlink > 1 {
		if first, ok := t.linked[e.ID]; ok {
			fd, err := t.beneath(first, unix.O_PATH)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return unix.Linkat(unix.AT_FDCWD, fdPath(fd), dir, e.Name, unix.AT_SYMLINK_FOLLOW)
		}
	}
	switch typ {
	case unix.S_IFDIR:
		// Its own mode comes with its entries.
		if err = unix.Mkdirat(dir, e.Name, 0o700); errors.Is(err, unix.EEXIST) {
			err = nil // an earlier try, which had no room for all
		}
		return err
	case unix.S_IFLNK:
		target, err := t.fsys.Readlink(e.ID)
		if err != nil {
			t.log.Warn("image: left out", "name", e.Name, "err", err)
			return nil
		}
		if err := unix.Symlinkat(target, dir, e.Name); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
	case unix.S_IFREG:
		fd, err := unix.Openat(dir, e.Name, unix.O_CREAT|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return err
		}
		if err := errors.Join(unix.Ftruncate(fd, a.Size), unix.Close(fd)); err != nil {
			return err
		}
	case unix.S_IFCHR, unix.S_IFBLK:
		// It would be this machine's: the copies are on no file system with nodev.
		t.log.Info("image: a device is left out", "name", e.Name)
		return nil
	default:
		if err := unix.Mknodat(dir, e.Name, typ|0o600, 0); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	if typ != unix.S_IFDIR && a.Nlink > 1 {
		t.linked[e.ID] = at
	}
	fd, err := unix.Openat(dir, e.Name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	t.dress(e.ID, fd, a)
	return nil
}

// fdPath names what a descriptor, which may be one of O_PATH, is of.
func fdPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// dress gives a copy, by a descriptor of O_PATH, its owner, mode, extended attributes and times, as
// far as this user may. Set-user-ID bits are left off.
func (t *Tree) dress(id image.ID, fd int, a image.Attr) {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != a.Mode&unix.S_IFMT {
		return // another has been put there
	}
	at := fdPath(fd)
	_ = unix.Fchownat(fd, "", int(a.UID), int(a.GID), unix.AT_EMPTY_PATH) // an ordinary user's are its own
	if a.Mode&unix.S_IFMT != unix.S_IFLNK {
		if all, err := t.fsys.Xattrs(id); err == nil {
			for name, value := range all {
				if strings.HasPrefix(name, "user.") {
					_ = unix.Setxattr(at, name, value, 0)
				}
			}
		}
		_ = unix.Chmod(at, a.Mode&0o1777)
	}
	_ = unix.UtimesNanoAt(unix.AT_FDCWD, at, times(a), 0)
}

// times are those that a copy has.
func times(a image.Attr) []unix.Timespec {
	return []unix.Timespec{unix.NsecToTimespec(a.Atime.UnixNano()), unix.NsecToTimespec(a.Mtime.UnixNano())}
}

// fill copies the content of a file, which nobody else does meanwhile. One that could not be
// copied whole is tried anew the next time. t.mu is held, but not while copying.
func (t *Tree) fill(ctx context.Context, id image.ID, at string, a image.Attr) error {
	for !t.filled[id] {
		if done := t.busy[id]; done != nil {
			t.mu.Unlock()
			<-done
			t.mu.Lock()
			continue
		}
		dst, fd, err := t.openFill(at, a)
		if err != nil {
			return err
		}
		done := make(chan struct{})
		t.busy[id] = done
		t.mu.Unlock()
		err = t.copyTo(ctx, id, dst)
		t.mu.Lock()
		t.dress(id, fd, a)
		unix.Close(fd)
		delete(t.busy, id)
		close(done)
		t.filled[id] = err == nil
		if err != nil {
			return err
		}
	}
	return nil
}

// A filling is a copy that gets its content. What the view tells of the file stays the same.
type filling struct {
	*os.File
	at image.Attr
}

// openFill opens the copy of a file to be filled, and with O_PATH.
func (t *Tree) openFill(at string, a image.Attr) (*filling, int, error) {
	fd, err := t.beneath(at, unix.O_PATH)
	if err != nil {
		return nil, -1, err
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = unix.EIO // another has been put there
	}
	var f *os.File
	if err == nil {
		f, err = os.OpenFile(fdPath(fd), os.O_WRONLY, 0)
	}
	if errors.Is(err, os.ErrPermission) { // its owner may not write
		if err = os.Chmod(fdPath(fd), 0o600); err == nil {
			f, err = os.OpenFile(fdPath(fd), os.O_WRONLY, 0)
			err = errors.Join(err, unix.Chmod(fdPath(fd), a.Mode&0o1777))
		}
	}
	if err != nil {
		unix.Close(fd)
		if f != nil {
			f.Close()
		}
		return nil, -1, err
	}
	return &filling{f, a}, fd, nil
}

// WriteAt sets the times back each time.
func (f *filling) WriteAt(b []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(b, off)
	_ = unix.UtimesNanoAt(unix.AT_FDCWD, fdPath(int(f.Fd())), times(f.at), 0)
	return n, err
}

// copyTo copies the content of a file, and closes dst.
func (t *Tree) copyTo(ctx context.Context, id image.ID, dst *filling) error {
	src, err := t.fsys.Open(id)
	if err != nil {
		return errors.Join(err, dst.Close())
	}
	err = copyContent(ctx, dst, src, dst.at.Size)
	return errors.Join(err, dst.Close(), src.Close())
}

// copyContent copies size bytes but leaves holes where there are zeros. It ends with EINTR
// when ctx is done.
func copyContent(ctx context.Context, dst io.WriterAt, src io.ReaderAt, size int64) error {
	b := make([]byte, min(chunk, size))
	for off := int64(0); off < size; {
		if ctx.Err() != nil {
			return unix.EINTR
		}
		p := b[:min(int64(len(b)), size-off)]
		if n, err := src.ReadAt(p, off); n < len(p) {
			return errors.Join(err, unix.EIO)
		}
		if !zero(p) {
			if _, err := dst.WriteAt(p, off); err != nil {
				return err
			}
		}
		off += int64(len(p))
	}
	return nil
}

func zero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
