// SPDX-License-Identifier: Apache-2.0

// Package cow shows a directory tree in which everything can be changed, and changes
// nothing of it: copy on write, as the kernel's overlayfs has it, in user space.
//
// # Layers
//
// What is covered is the real tree, or another one ([Source]): what an image has, which is
// made as it is looked at, or a tree of this package. All of them are made of directories of
// the kernel's, and one that covers another takes over its directories, as lower layers that
// are only read: a cow over a merge over a kept cow has four layers, and nothing else about
// it is special. What is written goes to the upper layer, a directory of its own. A name is
// looked up in the upper layer first, and in each in the same way what is below it:
//
//	a layer has     below it is  the view has
//	a whiteout      anything     nothing
//	a directory     a directory  both together, unless the upper one is opaque
//	anything else   anything     what the layer has
//	nothing         anything     what is below
//
// A union (merge) has lower layers alone. What is mounted below what is covered is a part of
// its own, with layers of its own (parts.go).
//
// A whiteout is a character device 0/0; a directory is opaque if its extended attribute
// user.overlay.opaque (or, where that may be read, trusted.overlay.opaque) is "y". This
// is the format of overlayfs with the option userxattr and without redirect_dir,
// metacopy and index, and the meaning is its meaning, down to the error numbers: an
// upper layer made here can be mounted by the kernel, and the other way round. The tests
// hold the two together.
//
// As with overlayfs, then: renaming a directory of the lower layer says EXDEV (and mv
// copies it); the other names of a file with several are no more its names once it is
// copied; a file that was opened for reading before it was copied goes on to show the
// lower one.
//
// The files are the layers' own, and so what the kernel tells of them is the device and inode
// of the layer that they are in. [FS.Shown] has those that the program is told (identity.go):
// a file keeps the ones that it had when it is copied, if it has one name, and all of a file
// system is on one device. Who goes through a tree (find -xdev), or has looked at a file that it
// then opens to be written (vim), relies on that.
//
// # On disk
//
//	UPPER/        0700, locked with flock(2) while a view uses it
//	  upper/      the upper layer; its root has the attributes of the tree's
//	  work/       overlayfs's own, and in copies/ what is being made
//	  sub/NAME/   upper/ and work/ of the file system mounted at a place below, its path
//	              written as NAME, see [Escape]
//
// # Copying up
//
// Before anything of a file of the lower layer changes, it is copied, after the
// directories above it: data with its holes, by a reflink where the file system has
// them, owner, mode, times and extended attributes. The copy is made in copies/, synced
// to disk and renamed to its place, so that at any moment there is either the lower file
// or the whole copy. All other changes are a single rename, link, unlink or mknod too;
// where a whiteout must come or go with one, RENAME_WHITEOUT, RENAME_EXCHANGE or a
// rename over it does both at once. What a killed process left in copies/ goes at the
// next start.
//
// An owner that we may not give away stays the view's user, and then set-user-ID and
// set-group-ID bits are not copied.
//
// # Who may
//
// Permissions are those of the file or directory that the view shows, for the calling
// thread. What the format needs, copying, whiteouts, looking below a directory that was
// given another mode in the view, is done with the credentials with which the tree was
// opened: by the calling thread itself if it has those, else by another goroutine, which
// it waits for; new files are then given to the caller.
//
// # Races
//
// Everything is done on descriptors: names are opened below the roots by openat2(2)
// with RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS and RESOLVE_NO_XDEV, one name at a time
// where several layers have the directory. The upper layer is ours alone; whoever changes
// the lower one meanwhile gets, as from overlayfs, what is undefined but never outside
// of it. Nothing of the lower layer is opened for writing.
//
// # Goroutines and locks
//
// There are no lasting goroutines; those that copy a large file (prepare.go) end when nobody
// waits for it, and Close waits for them. branch.mu is held for reading while a name is looked
// up, so that no state between two is seen, and for writing while one changes, or a socket takes
// its place, which package fsmod does; no data is copied under it. branch.copies.mu, below it in order, guards who copies what; two
// that need the same file copied wait for one. identities.mu and uppers.mu are leaves.
package cow
