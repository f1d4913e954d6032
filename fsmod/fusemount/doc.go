// SPDX-License-Identifier: Apache-2.0

// Package fusemount runs unmodified FUSE file systems for a view: a command that mounts
// something, in a mount namespace of its own.
//
// # How it works
//
// [Start] makes a helper, a copy of this executable ([ChildMain]), in new namespaces of
// mounts and processes and, unless the caller may mount where it is, of users. There the
// command mounts what it serves, at a directory that it is told, by mount(2) itself: it has
// CAP_SYS_ADMIN in that namespace and no other capability. (libfuse tries that before
// fusermount.) All else is as on the host: files, network, environment, user.
//
//	Start                  helper (process 1 there)            command
//	  |-- fork, exec self -->|-- fork, exec --------------------->|
//	  |                      |   mountinfo changes <-- mount(2) --|
//	  |<-- root (O_PATH) ----|
//	  |-- another, please -->|-- open_tree(OPEN_TREE_CLONE)
//	  |<-- detached mount ---|
//
// What it mounted is seen by nobody else: the caller has its root directory, for openat2(2),
// and copies of the mount ([Server.Tree]), which move_mount(2) puts into any mount namespace,
// also one of another user namespace. The kernel lets those in whose user is the mount's
// (fuse(4), without allow_other), wherever they are. With allow_other it lets in who is in the
// user namespace of the mount, that is nobody of ours: in an ordinary user's it is refused.
//
// Where namespaces are refused, [Config.Shared] does without: the command mounts by
// fusermount3(1), which is set-user-ID, in a private directory that the host has, too. There is
// no detached mount then.
//
// # The end
//
// When the caller closes the Server, or is dead in whatever way, the helper unmounts. A
// server of FUSE notices when the last copy is gone, and writes back what it has not written;
// it has WriteBack for that. Who is still there then gets SIGTERM, and after Obey SIGKILL.
// Then the helper ends, and what is left of its process namespace with it. Only if the helper
// itself is killed by SIGKILL does the command end at once (in a shared one: not at all).
//
// A mount that was given away ([Server.Give]) ends by itself, when those who have it let it go.
//
// # Goroutines and locks
//
// A Server has one goroutine, which reads what the helper says; Close awaits it. Server.asking
// is held while a Tree is asked for, or the mount given away.
package fusemount
