// SPDX-License-Identifier: Apache-2.0

// Package nsmount makes the mounts of a view in a mount namespace of the program's own:
// the kernel serves them, and no path call of the program is trapped. Its mount(2) and
// umount2(2) are.
//
// # How it works
//
// The child that becomes the program begins in new namespaces ([Plan.Namespaces]): that
// of mounts alone if it may mount, else with a user namespace in which its own user is
// mapped to itself and nobody else is. There [Step] runs, before the filter and the
// program:
//
//	every mount is made a slave: those of the host come in, and none goes out
//	what the sources name is opened, while the host's files are all there is
//	the mounts are made, parents before children (fsmod.Order)
//	what was only needed for making them is detached
//
// Nothing of it has a name on the host. All mounts go with the namespace, that is with
// its last process, however that ends.
//
// # Pins
//
// A directory above a mount could be moved into one that is bound elsewhere, where nothing covers
// the mount's place: the kernel has it so for all mounts, and a program can do it in a user
// namespace of its own. So these directories are pinned (pin.go). Which depends on who may move
// them: of an ordinary user's view those whose parents others own, who do not let it write there,
// stay out. The base that pins are in is handed to the supervisor with the namespaces. Pins are made
// before their mount, and go after it, when the next order is done (namespace.go).
//
// A namespace that holds a part of the view's mounts would be without pins: programs make none
// (calls.go, parts).
//
// # The pool and new roots
//
// What has to be in memory (copies of files, what a cow that is thrown away holds) is in
// one tmpfs, the pool. It is mounted in the base, where no path leads (pin.go): it is
// reached by its descriptor alone, as
// /proc/self/fd/N, where the builder's working directory is, since a new root may have no
// /proc. A new root, for a mount on "/", is put on the root directory, and pivot_root(2)
// makes it the one where paths begin. The old one then lies on the new one in the same
// way until all is done.
//
// # Glue
//
// The kernel mounts only on what is there. Where a mount's place is not, the nearest
// directory above it that is there is covered by a tmpfs with the same names, each of
// them bound from what was covered, and the missing ones are made in that. It is
// read-only: a name that was made there would be gone with the view, without a word.
//
// # Changes
//
// The namespaces are handed to the supervisor: that of the view, its user namespace, and with
// [Plan.Keep] one of mounts that was copied before any was made, where sources are found
// later. A child goes there (namespace.go) and makes or removes one mount: what umrun set asks
// for (change.go), or a program by mount(2) or umount2(2) (call.go, for [Calls]). A [Namespace]
// lets one of them go at a time, which is its one lock; a caller's is taken before it.
//
// A program has no capability in its view, or it could undo what was mounted by others. So its
// two calls trap, the child looks up what they name as the program would (walk.go), judges the
// descriptors, and mounts these. Which mounts are the program's own a Namespace remembers
// (table.go); all others are locked to it. What goes lazily goes as a whole (detach.go), or who
// is in it would see what was covered there. Who has put itself into a Landlock domain with rules about
// files mounts nothing, as natively: see sandbox.go for how that is known.
//
// # Copy on write
//
// A cow is an overlay, with userxattr, so that an ordinary user may mount it and the
// trap engine reads the same directories, and with metacopy, redirect_dir and index off.
// An overlay sees one file system: each that is mounted below has an overlay of its own.
// See cow.go for the layout of what is written, and for what an ordinary user's are
// made of.
package nsmount
