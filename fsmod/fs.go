// SPDX-License-Identifier: Apache-2.0

// The contracts of mounted trees: what a mount is, and what serves one.

package fsmod

import "context"

// A Kind says what is mounted.
type Kind string

// The kinds, by the words of --mount.
const (
	Bind  Kind = "bind"  // Source, a directory or file of the host
	Tmpfs Kind = "tmpfs" // an empty directory that goes with the view
	Cow   Kind = "cow"   // Target itself; what is written goes to Source, or away with the view
	Merge Kind = "merge" // Source's names before those of Target
	Hide  Kind = "hide"  // nothing: an empty directory or file that nobody may open
	File  Kind = "file"  // a copy of Source, made at the start
	Image Kind = "image" // the file system in the file Source
	Fuse  Kind = "fuse"  // what the FUSE server Source (a command) serves
	Dev   Kind = "dev"   // a device: Source is null, zero, ramdisk or tun
)

// A Mount is one --mount. Source and Target are absolute and clean.
type Mount struct {
	Kind   Kind
	Source string
	Target string
	// ReadOnly refuses every change with EROFS. An image is read-only unless it
	// is asked for otherwise.
	ReadOnly bool
	Size     int64 // of a ramdisk, in bytes
}

// Served reports whether a command serves the mount, as a FUSE file system.
func (m Mount) Served() bool { return m.Kind == Fuse || m.Kind == Image && !m.ReadOnly }

// An FS is one mounted tree under the trap engine. Its objects are files of the
// kernel's: whatever it opens is a real descriptor, which the program then reads,
// maps, locks and executes without us.
//
// A name is relative to the root of the tree: "" for itself, else names between
// slashes, clean, without "..". None of them but the last may be a symbolic link; if
// one is, because somebody was faster, the answer is ELOOP, and the caller resolves
// anew. The last is never followed. Nothing outside of the tree is ever reached.
//
// Modes have the caller's umask taken off. Errors are of type [unix.Errno], wrapped or
// not. Methods are safe for concurrent use, and do what they do with the calling
// thread's credentials.
type FS interface {
	// Open opens or creates as open(2) does, with O_NOFOLLOW and O_CLOEXEC. flags may
	// hold O_PATH: what stat, readlink and the like want to know is asked of such a
	// descriptor, with AT_EMPTY_PATH or by /proc/self/fd.
	Open(name string, flags int, mode uint32) (fd int, err error)

	// Own is Open with O_PATH of a file whose attributes are about to be changed: mode,
	// owner, times, extended attributes. A tree that copies on write has copied it then.
	Own(name string) (fd int, err error)

	Mkdir(name string, mode uint32) error
	Mknod(name string, mode uint32, dev uint64) error // also an AF_UNIX socket's place
	Symlink(target, name string) error
	Link(from, to string) error
	Rename(from, to string, flags uint) error // RENAME_* of renameat2(2)
	Remove(name string, dir bool) error       // unlink(2), rmdir(2)

	// List returns the entries of a directory that no single directory of the host has
	// together, without "." and "..". merged is false where the descriptor's own
	// listing is right, and then there are no entries.
	List(name string) (entries []Dirent, merged bool, err error)

	Close() error
}

// A Filler is an [FS] whose files get their content when they are opened to be read. It
// is asked for it where a file is opened by a descriptor of it instead, with O_PATH.
type Filler interface {
	Fill(name string) error
}

// A Binder is an [FS] that makes its files itself. Of sockets only bind(2) makes any that can be
// connected to. Bind has bind make the one at name, where Mknod has made the place of one, by the
// directory and the name in it that it is given; if that fails the place is gone. bind must ask
// nothing of the FS, and may not make files with another umask of ours (package doc, locks).
type Binder interface {
	Bind(name string, bind func(dir int, last string) error) error
}

// A Layered is an [FS] that shows a directory of the kernel's with all that is below it.
// Package cow lays others over such.
type Layered interface {
	// Layer opens what is at a name.
	Layer(name string) (Layer, error)
}

// A Layer is what a [Layered] has at a name.
type Layer struct {
	Dir int // O_PATH, the caller's
	// Fill, if it is not nil, makes what is in Dir when it is looked at: everything on the
	// way to name, the entries of a directory that it is, and with content that of a file.
	// It is called before Dir is read, and ends with EINTR when ctx is done.
	Fill func(ctx context.Context, name string, content bool) error
}

// An Identifier is an [FS] that has files in other places than they were, and shows them with the
// device and inode numbers that they had: programs tell by these that a file is the same.
type Identifier interface {
	// Shown returns what is shown for the numbers that the kernel has; not ok: these.
	Shown(dev, ino uint64) (shownDev, shownIno uint64, ok bool)
}

// A Reserver is an [FS] that keeps its own notes in extended attributes of its files. The
// program sees none of these by name, and can set none: they mean something else to the
// tree.
type Reserver interface {
	Reserved(attr string) bool
}

// A Dirent is a name in a directory.
type Dirent struct {
	Name string
	Ino  uint64
	Type uint8 // DT_* of readdir(3)
}
