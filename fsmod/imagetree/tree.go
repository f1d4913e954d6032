// SPDX-License-Identifier: Apache-2.0

// The tree: what programs ask of it.

package imagetree

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"umrun/fsmod"
	"umrun/fsmod/image"
)

// A Tree is an [fsmod.FS]. It is safe for concurrent use.
type Tree struct {
	fsys  image.FS
	names *image.Names
	log   *slog.Logger
	path  string // of the root directory, as /proc names it
	gone  func() error
	root  int // O_PATH of it

	errands fsmod.Errands // files that are filled apart, by name

	mu     sync.Mutex
	listed map[image.ID]bool          // directories that have their entries. Guarded by mu
	filled map[image.ID]bool          // files that have their content. Guarded by mu
	busy   map[image.ID]chan struct{} // files that get it; closed at the end. Guarded by mu
	linked map[image.ID]string        // the first name of what has several. Guarded by mu
}

// New makes the tree of fsys in an empty directory, which gone removes when the Tree is
// closed. fsys is the Tree's from then on.
func New(fsys image.FS, place string, gone func() error, log *slog.Logger) (*Tree, error) {
	place, err := filepath.EvalSymlinks(place)
	if err != nil {
		return nil, err
	}
	t := &Tree{
		fsys: fsys, names: image.NewNames(fsys), log: log, path: filepath.Join(place, "root"), gone: gone,
		listed: map[image.ID]bool{}, filled: map[image.ID]bool{}, busy: map[image.ID]chan struct{}{}, linked: map[image.ID]string{},
	}
	if err := os.Mkdir(t.path, 0o700); err != nil {
		return nil, err
	}
	if t.root, err = unix.Open(t.path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return nil, err
	}
	return t, nil
}

// Close removes the copies and closes the image.
func (t *Tree) Close() error {
	t.errands.Wait()
	// Directories that their owner may not write to cannot be emptied.
	_ = filepath.WalkDir(t.path, func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(path, 0o700)
		}
		return nil
	})
	return errors.Join(unix.Close(t.root), os.RemoveAll(t.path), t.gone(), t.fsys.Close())
}

// Name returns the name in the tree of a path of the host ([fsmod.Namer]).
func (t *Tree) Name(host string) (string, bool) {
	if host == t.path {
		return "", true
	}
	return strings.CutPrefix(host, t.path+"/")
}

// Layer implements [fsmod.Layered].
func (t *Tree) Layer(name string) (fsmod.Layer, error) {
	fd, err := t.Open(name, unix.O_PATH, 0)
	return fsmod.Layer{Dir: fd, Fill: func(ctx context.Context, below string, content bool) error {
		return t.Ready(ctx, strings.Trim(name+"/"+below, "/"), content)
	}}, err
}

// Open implements [fsmod.FS].
func (t *Tree) Open(name string, flags int, _ uint32) (int, error) {
	if flags&unix.O_PATH == 0 && (flags&unix.O_ACCMODE != unix.O_RDONLY || flags&(unix.O_CREAT|unix.O_TRUNC) != 0 || flags&unix.O_TMPFILE == unix.O_TMPFILE) {
		return -1, t.refuse(name, flags)
	}
	if err := t.Ready(context.Background(), name, flags&unix.O_PATH == 0); err != nil {
		return -1, err
	}
	return t.openat(name, flags)
}

// Fill implements [fsmod.Filler].
func (t *Tree) Fill(name string) error { return t.Ready(context.Background(), name, true) }

// Prepare implements [fsmod.Preparer]: a file is filled before it is read.
func (t *Tree) Prepare(name string, use fsmod.Use, flags int) func(ctx context.Context) error {
	if use != fsmod.UseOpen || flags&(unix.O_ACCMODE|unix.O_TRUNC) != 0 {
		return nil
	}
	fd, err := t.Open(name, unix.O_PATH, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size <= chunk {
		return nil
	}
	return t.errands.Begin(name, func(ctx context.Context) error { return t.Ready(ctx, name, true) })
}

// Ready has everything on the way to name copied, and if it is a directory its entries;
// with content also that of a file. It is done with our own credentials, and ends with EINTR
// when ctx is done.
func (t *Tree) Ready(ctx context.Context, name string, content bool) (err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		err = t.ready(ctx, name, content)
	}()
	<-done
	return err
}

func (t *Tree) openat(name string, flags int) (int, error) {
	if name == "" {
		name = "."
	}
	how := unix.OpenHow{Flags: uint64(flags | unix.O_NOFOLLOW | unix.O_CLOEXEC), Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_BENEATH}
	for {
		fd, err := unix.Openat2(t.root, name, &how)
		if err != unix.EINTR && err != unix.EAGAIN {
			return fd, err
		}
	}
}

// refuse is the error of an open that would change something.
func (t *Tree) refuse(name string, flags int) error {
	fd, err := t.Open(name, unix.O_PATH, 0)
	if errors.Is(err, unix.ENOENT) && flags&unix.O_CREAT != 0 {
		return t.missing(name)
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	switch {
	case flags&unix.O_CREAT != 0 && flags&unix.O_EXCL != 0:
		return unix.EEXIST
	case st.Mode&unix.S_IFMT == unix.S_IFDIR && flags&unix.O_TMPFILE != unix.O_TMPFILE:
		return unix.EISDIR
	case st.Mode&unix.S_IFMT == unix.S_IFIFO || st.Mode&unix.S_IFMT == unix.S_IFCHR || st.Mode&unix.S_IFMT == unix.S_IFBLK:
		return unix.EACCES // no pipe, and no device, of an image is opened
	case st.Mode&unix.S_IFMT == unix.S_IFLNK:
		return unix.ELOOP
	case flags&unix.O_ACCMODE == unix.O_RDONLY && flags&unix.O_TRUNC == 0:
		return unix.EEXIST // O_CREAT alone, of what is there: the caller asks without it
	}
	return unix.EROFS
}

// Own implements [fsmod.FS]: nothing can be changed.
func (t *Tree) Own(name string) (int, error) { return -1, t.there(name) }

// there is EROFS for what is there.
func (t *Tree) there(name string) error {
	fd, err := t.Open(name, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	unix.Close(fd)
	return unix.EROFS
}

// missing is the error of making name: what is there already, else EROFS.
func (t *Tree) missing(name string) error {
	switch err := t.there(name); {
	case errors.Is(err, unix.EROFS):
		return unix.EEXIST
	case errors.Is(err, unix.ENOENT):
		dir, _ := filepath.Split(name)
		return t.there(strings.TrimSuffix(dir, "/"))
	default:
		return err
	}
}

// Mkdir implements [fsmod.FS].
func (t *Tree) Mkdir(name string, _ uint32) error { return t.missing(name) }

// Mknod implements [fsmod.FS].
func (t *Tree) Mknod(name string, _ uint32, _ uint64) error { return t.missing(name) }

// Symlink implements [fsmod.FS].
func (t *Tree) Symlink(_, name string) error { return t.missing(name) }

// Link implements [fsmod.FS].
func (t *Tree) Link(from, to string) error {
	if err := t.there(from); !errors.Is(err, unix.EROFS) {
		return err
	}
	return t.missing(to)
}

// Rename implements [fsmod.FS].
func (t *Tree) Rename(from, _ string, _ uint) error { return t.there(from) }

// Remove implements [fsmod.FS].
func (t *Tree) Remove(name string, _ bool) error { return t.there(name) }

// List implements [fsmod.FS]: the copy of a directory is complete.
func (t *Tree) List(string) ([]fsmod.Dirent, bool, error) { return nil, false, nil }

// ready is Ready, on whatever thread has our credentials.
func (t *Tree) ready(ctx context.Context, name string, content bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	id, at := t.fsys.Root(), t.path
	if err := t.list(id, at); err != nil || name == "" {
		return err
	}
	for parts := strings.Split(name, "/"); len(parts) > 0; parts = parts[1:] {
		e, err := t.names.Lookup(id, parts[0])
		if err != nil {
			return fmt.Errorf("look up %q: %w", name, err)
		}
		a, err := t.fsys.Attr(e.ID)
		if err != nil {
			return err
		}
		id, at = e.ID, at+"/"+parts[0]
		switch a.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			err = t.list(id, at)
		case unix.S_IFREG:
			if content && len(parts) == 1 {
				err = t.fill(ctx, id, at, a)
			}
		}
		if err != nil {
			return err
		}
		if a.Mode&unix.S_IFMT != unix.S_IFDIR {
			break // what is below it the kernel refuses
		}
	}
	return nil
}
