// SPDX-License-Identifier: Apache-2.0

// Build: from the host's mounts to those of the view.

package nsmount

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"umrun/fsmod"
	"umrun/fsmod/imagemount"
)

// A builder makes the mounts of one view. It runs once, in a child that is nothing else
// yet; descriptors are close-on-exec and left to execve(2).
type builder struct {
	plan  *Plan
	link  *os.File // to who serves images, or has who does; nil: there are none
	fds   int      // O_PATH of /proc/self/fd, where we are: see byFD
	base  int      // see newBase
	pool  int      // the tmpfs of what is in memory; -1: none yet
	files int      // in the pool
	glue  []int    // tmpfs mounts that are read-only in the end
	ours  []uint64 // mounts in which a place may be made, by number

	// stacked are the mounts on the root directory: old roots.
	stacked int
}

// A source is what a mount shows, opened before any was made.
type source struct {
	tree    int      // a detached copy of the mount tree; -1: none
	path    int      // O_PATH of the directory; -1: none
	content *os.File // nil: none
}

// enslave makes all mounts slaves: an unmount on the host must arrive, or it would be held
// for ever; what is made here must not get out.
func (b *builder) enslave() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("make the mounts slaves of the host's: %w", err)
	}
	return nil
}

// begin goes to /proc/self/fd, see byFD.
func (b *builder) begin() (err error) {
	if b.fds, err = openPath(unix.AT_FDCWD, "/proc/self/fd"); err == nil {
		err = unix.Fchdir(b.fds)
	}
	if err != nil {
		return fmt.Errorf("/proc/self/fd: %w", err)
	}
	return nil
}

func (b *builder) build() error {
	if err := b.begin(); err != nil {
		return err
	}
	if b.plan.Trial {
		return b.openPool()
	}
	sources := make([]source, len(b.plan.Mounts))
	for i, m := range b.plan.Mounts {
		var err error
		if sources[i], err = b.open(i, m); err != nil {
			return fmt.Errorf("-m %v: %w", m, err)
		}
	}
	for i, m := range b.plan.Mounts {
		if err := b.mount(m, sources[i]); err != nil {
			return fmt.Errorf("-m %v: %w", m, err)
		}
	}
	for _, g := range b.plan.Files {
		if err := b.generate(g); err != nil {
			return fmt.Errorf("lay %s: %w", g.Target, err)
		}
	}
	return b.finish()
}

// open opens what mount i shows.
func (b *builder) open(i int, m fsmod.Mount) (s source, err error) {
	s = source{tree: -1, path: -1}
	switch m.Kind {
	case fsmod.Bind:
		s.tree, err = cloneTree(unix.AT_FDCWD, m.Source, true)
		if err == nil && m.ReadOnly {
			err = readOnly(s.tree, true)
		}
	case fsmod.Dev:
		s.tree, err = cloneTree(unix.AT_FDCWD, "/dev/"+m.Source, false)
	case fsmod.Cow:
		if m.Source == "" {
			return s, nil
		}
		s.path, err = openPath(unix.AT_FDCWD, m.Source)
	case fsmod.Merge:
		s.path, err = openPath(unix.AT_FDCWD, m.Source)
	case fsmod.Image, fsmod.Fuse:
		s.tree, err = b.served(i, m)
	case fsmod.File:
		s.content, err = os.Open(m.Source)
	}
	if err != nil && m.Source != "" && !errors.Is(err, os.ErrInvalid) {
		err = fmt.Errorf("%s: %w", m.Source, err)
	}
	return s, err
}

// mount makes one of them.
func (b *builder) mount(m fsmod.Mount, s source) error {
	switch m.Kind {
	case fsmod.Bind, fsmod.Dev, fsmod.Image, fsmod.Fuse:
		dir, err := isDir(s.tree)
		if err == nil {
			err = b.place(m.Target, dir)
		}
		if err != nil {
			return err
		}
		if m.Target == "/" {
			return b.newRoot(s.tree)
		}
		return b.put(s.tree, m.Target)
	case fsmod.Tmpfs:
		return b.tmpfs(m.Target)
	case fsmod.Hide:
		return b.hide(m.Target)
	case fsmod.File:
		if err := b.place(m.Target, false); err != nil {
			return err
		}
		st, err := s.content.Stat()
		if err != nil {
			return err
		}
		return b.file(s.content, st.Mode(), m.Target)
	case fsmod.Cow:
		return b.cow(m.Target, s.path)
	case fsmod.Merge:
		return b.merge(m.Target, s.path)
	}
	return fmt.Errorf("%w", Supports(m))
}

// put puts a detached mount on target, and pins what is above.
func (b *builder) put(tree int, target string) error {
	at, err := openPath(unix.AT_FDCWD, target)
	if err != nil {
		return err
	}
	defer unix.Close(at)
	p := pinner{base: b.base, fds: b.fds, user: b.plan.User}
	return p.put(tree, at)
}

// served makes the mount of an image, which the supervisor serves, or has one that a command
// serves.
func (b *builder) served(i int, m fsmod.Mount) (int, error) {
	if b.link == nil {
		return -1, fmt.Errorf("nobody serves it: %w", unix.EINVAL)
	}
	if m.Served() {
		return imagemount.Ask(b.link, i)
	}
	tree, dev, err := imagemount.Connect("image", m.Source)
	if err != nil {
		return -1, err
	}
	defer dev.Close()
	return tree, imagemount.Send(b.link, i, dev)
}

// tmpfs puts an empty directory at target, of the mode and owner of what it covers.
func (b *builder) tmpfs(target string) error {
	if err := b.place(target, true); err != nil {
		return err
	}
	fd, err := newTmpfs("mode=755")
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Stat(target, &st); err != nil {
		return err
	}
	like(fd, &st)
	if err := b.put(fd, target); err != nil {
		return err
	}
	return b.own(fd)
}

// hide lays an empty directory, or file, over target that nobody may open and nobody
// may change. (Root may open it, as it may open everything, and finds nothing.)
func (b *builder) hide(target string) error {
	var st unix.Stat_t
	if err := unix.Stat(target, &st); err != nil {
		return err
	}
	tree, err := b.hidden(st.Mode&unix.S_IFMT == unix.S_IFDIR)
	if err != nil {
		return err
	}
	return b.put(tree, target)
}

// hidden makes what is laid over something hidden.
func (b *builder) hidden(dir bool) (tree int, err error) {
	if dir {
		tree, err = newTmpfs("mode=000", "size=4k")
	} else {
		var name string
		if name, err = b.pooled(nil, 0); err == nil {
			tree, err = cloneTree(unix.AT_FDCWD, name, false)
		}
	}
	if err == nil {
		err = readOnly(tree, false)
	}
	return tree, err
}

// file lays a copy of content over target.
func (b *builder) file(content io.Reader, mode os.FileMode, target string) error {
	name, err := b.pooled(content, mode.Perm())
	if err != nil {
		return err
	}
	tree, err := cloneTree(unix.AT_FDCWD, name, false)
	if err != nil {
		return err
	}
	return b.put(tree, target)
}

// generate lays a generated file.
func (b *builder) generate(g Generated) error {
	if _, err := os.Stat(g.Target); err != nil && g.Optional {
		return nil
	}
	if err := b.place(g.Target, false); err != nil {
		return err
	}
	name, err := b.pooled(nil, 0o644)
	if err != nil {
		return err
	}
	if err := os.WriteFile(name, g.Content, 0o644); err != nil {
		return err
	}
	tree, err := cloneTree(unix.AT_FDCWD, name, false)
	if err != nil {
		return err
	}
	return b.put(tree, g.Target)
}

// openPool makes the pool.
func (b *builder) openPool() error {
	if b.pool >= 0 {
		return nil
	}
	fd, err := newTmpfs("mode=700")
	if err != nil {
		return err
	}
	if err := mountInBase(b.base, "pool", fd); err != nil {
		return err
	}
	b.pool = fd
	return nil
}

// pooled makes a file in the pool, with content and of exactly that mode, and returns a
// path of it.
func (b *builder) pooled(content io.Reader, mode os.FileMode) (string, error) {
	if err := b.openPool(); err != nil {
		return "", err
	}
	b.files++
	name := fmt.Sprintf("%s/file%d", byFD(b.pool), b.files)
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return "", err
	}
	if content != nil {
		_, err = io.Copy(f, content)
	}
	return name, errors.Join(err, f.Chmod(mode), f.Close())
}

// newRoot makes a detached mount the root directory.
func (b *builder) newRoot(tree int) error {
	if err := attach(tree, "/"); err != nil {
		return err
	}
	return b.pivot(tree)
}

// pivot makes what was mounted on the root directory the root. The old one lies on it.
func (b *builder) pivot(tree int) error {
	err := unix.Fchdir(tree)
	if err == nil {
		err = unix.PivotRoot(".", ".")
	}
	if err == nil {
		err = unix.Fchdir(b.fds)
	}
	if err != nil {
		return fmt.Errorf("make it the root directory: %w", err)
	}
	b.stacked++
	return nil
}

// finish detaches what nobody needs any more.
func (b *builder) finish() error {
	for _, fd := range b.glue {
		if err := readOnly(fd, false); err != nil {
			return fmt.Errorf("make the glue read-only: %w", err)
		}
	}
	// Where the program goes is the caller's to say.
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	if b.pool >= 0 {
		p := pinner{base: b.base, fds: b.fds}
		if err := errors.Join(p.drop("pool"), unix.Chdir("/")); err != nil {
			return fmt.Errorf("detach what is in memory: %w", err)
		}
	}
	for ; b.stacked > 0; b.stacked-- {
		// Of umount2(2) it is the topmost one that "/" means.
		if err := unix.Unmount("/", unix.MNT_DETACH); err != nil {
			return fmt.Errorf("detach what was needed for the mounts: %w", err)
		}
	}
	return nil
}

// own remembers that new places may be made in the mount of fd.
func (b *builder) own(fd int) error {
	id, err := mountID(fd, "")
	if err != nil {
		return err
	}
	b.ours = append(b.ours, id)
	return nil
}

// isDir reports whether fd is a directory.
func isDir(fd int) (bool, error) {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	return st.Mode&unix.S_IFMT == unix.S_IFDIR, err
}

// byFD returns a path of an open file, from /proc/self/fd, where the builder is: a new
// root may have no /proc.
func byFD(fd int) string { return fmt.Sprintf("./%d", fd) }

// like gives a new directory the mode of another, and its owner if that is allowed.
func like(fd int, st *unix.Stat_t) {
	// An ordinary user's directory is its own.
	_ = unix.Fchownat(fd, "", int(st.Uid), int(st.Gid), unix.AT_EMPTY_PATH)
	_ = unix.Fchmodat(unix.AT_FDCWD, byFD(fd), st.Mode&0o7777, 0) // fd may be of O_PATH
}

// above returns the nearest directory that is there, and what is missing below it.
func above(path string) (dir, rest string, err error) {
	for dir = path; ; {
		rest = filepath.Join(filepath.Base(dir), rest)
		dir = filepath.Dir(dir)
		st, err := os.Stat(dir)
		switch {
		case err == nil && st.IsDir():
			return dir, rest, nil
		case err == nil:
			return "", "", &os.PathError{Op: "mount", Path: dir, Err: unix.ENOTDIR}
		case !errors.Is(err, os.ErrNotExist) || dir == "/":
			return "", "", err
		}
	}
}
