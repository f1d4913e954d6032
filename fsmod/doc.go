// SPDX-License-Identifier: Apache-2.0

// Package fsmod turns path calls of the target into its own view of files.
//
// # Generated trees
//
// Directories whose files are made when they are opened, as a view's /proc/net and
// /sys/class/net are. Without mounts they trap only open(2), openat(2) and openat2(2) for
// reading, and no stat call, so that a program which looks at no file of theirs pays for its
// opens alone: the path is read and, unless its last name is one that a tree has, the call
// goes on. They are no boundary: a path that no tree has is opened by the kernel, which reads
// it again. They tell a program the truth about its network, and keep nothing from it.
//
// A file is delivered as a memory file, sealed against every change, and opened anew for
// reading, with its own position. A directory is a real one in a private place, with
// empty files of the right names; an open relative to it is found to be one of the tree's.
// The place goes with [Module.Close].
//
// # Devices and sealed directories
//
// A [Device] is asked for a descriptor when its path is opened; a [Disk] also has the
// ioctls of block devices, and is one for stat(2) (block.go), for which fstat(2) traps in views
// with one; mount(2) takes it as a source. Below a sealed directory nothing is opened for writing (EROFS).
// The first are found by the path as it is written; with either, opens that only write
// trap too.
//
// # Mounts
//
// With mounts every call that names a file traps (pathCalls), and none of them is handed
// back to the kernel by name. The path is read once, and resolved here:
//
//	call --> path --> where it begins: root, working directory, descriptor
//	                        |
//	                  walk: a place of the view, a clean path without links
//	                        |                      ^
//	                  table: mount, name           | a symbolic link, a magic link of procfs
//	                        |                      |
//	                  FS.Open(name, O_PATH) -------+
//	                        |
//	                  object: a descriptor that was judged --> fstat, open anew, chmod, ...
//
// A place is in the mount with the longest target above it; everything else is the host's
// tree, which is served as one more mount. An [FS] promises to follow no symbolic link
// (openat2(2), RESOLVE_NO_SYMLINKS), so that a place that was judged stays the one that
// is opened, whatever other threads do to links, directories or the string. Most
// paths have no link in them and take one open. ELOOP says that there is one: then the
// path is walked name by name up to the first link, and begun anew from there.
//
// Who only looks needs no name for what it finds, and most calls are looks. Where the path has
// no "." and no "..", they go from the root of the mount, or from the directory where the path
// begins, to the file at once (look.go). Where a thread stands is kept until somebody goes
// elsewhere (where.go).
//
// Where there is or may be a cow, fstat(2) traps too: a file that was copied is told with the
// numbers that it had (identity.go).
//
// A mount's place need not be there: what is missing is made up (absent.go). Mounts and
// mountinfo of /proc have the view's behind the kernel's (mountinfo.go). No process leaves a
// core, which the kernel would write past the mounts (core.go).
//
// Files arrive as real descriptors; read, mmap, locks and execution are the kernel's. One
// that came through a mount is marked (tag.go), so that what it is a descriptor of has
// one name, and a read-only mount can be told from a writable one of the same directory.
// A descriptor without a mark stands for the place in the view that has the name which the
// kernel knows it by: with a descriptor of a covered directory one is where the mount is.
//
// What only a thread can do to itself it is made to do (intercept.Injection): to change the
// working directory and root (call_cwd.go), to become another program (call_exec.go; keep.go has
// the memory for a script's arguments), to have a descriptor of O_PATH (opath.go). It is ptrace(2) for that moment: for a thread
// that a debugger in the view traces the first two fail with EPERM, and the last gives a
// descriptor that reads.
//
// Credentials are the calling task's (cred.go), kept until it makes a call that changes them
// (whose.go), and files of procfs are opened in its user
// namespace (userns.go). What may block, as the open of a FIFO, is
// parked on a goroutine and taken back if a signal comes (wait.go). What a tree must do
// before a call, as copying a large file, is done while the call is parked ([Preparer]):
// then the call is answered by a goroutine. It goes on through signals, and ends when
// nobody waits for it any more.
//
// # Changes
//
// The mounts can be changed while the target runs (change.go): a [Module] is what there is at
// one moment, with a table that nobody changes, and [Module.Mount] and [Module.Unmount] put
// another one in its place. A call keeps the one that it began with, and its trees are not
// closed before it is over. A mount that was removed while tasks are in it stays in the table
// under a name that no path has; busy.go finds who they are. The target changes them by mount(2)
// (call_mount.go), within bounds: what others have mounted is locked to it.
//
// # The file systems
//
// Plain ones (binds, tmpfs, files, what is hidden) are here. Package cow has copy on write
// and unions, over any of the others and over themselves: such a tree takes over the directories
// of those that it covers ([Layered]), which are not closed before it ([Mounted].Over). Package image reads images and archives, and has two ways to show one:
// imagetree as an [FS], imagemount as a FUSE mount. Package fusemount has what an
// unmodified FUSE file system serves. Package nsmount has none of this: there the kernel makes
// the mounts, and only mount(2) and umount2(2) trap. Package mounttest has what both must answer
// to these.
//
// # What is a boundary and what is not
//
// No file that a mount covers is opened, changed or looked at by a path, a descriptor or
// a link of procfs, by whatever race (escape_test.go); what may stand above a mount cannot
// be moved; the supervisor's own /proc is closed, and so is, of processes that are not the target's,
// what the kernel shows in it to who may trace them. Two tasks that go into one directory by
// a bind and by its own name are told apart by the last one that did, which decides the
// name of the working directory and whether it is read-only there; both names are theirs.
// A bind shows what the host has at its source, also what another mount covers. The
// paths of AF_UNIX addresses are looked up here for package netmod (socket.go). Root in
// the view is root on the machine.
//
// # Goroutines and locks
//
// Handlers run on intercept's receivers, and injections on its tracers. Those of path calls, and of the
// noted ones, run beside each other and beside all other handlers: in a rush there are two receivers
// (intercept.Rule.Apart), and a handler may wait for a
// file system that does not answer (intercept.Call.MayWait). The goroutines of
// this package are those of opens that wait, of taking them back, and of what is prepared,
// which Close awaits; those of a tree's [Errands] end with the tree. What is kept of where threads
// stand is dropped by a timer, which runs while something is kept.
// Module.changing is held while the mounts change, never by a call that has Module.using for
// reading. All other locks are leaves: no two of state.mu (the private directory), seen.mu (who went
// where, and what runs), stands.mu, whoseSlot.mu, listings.mu, listings.reading, waitingOpen.mu, keptPages.mu and Errands.mu are held at once. umasking is
// held while a file is made with another umask than ours, which
// is the whole process's; the locks of the tree that makes the file are taken below it, and it is
// not taken by what a tree calls ([Binder]).
package fsmod
