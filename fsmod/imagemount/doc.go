// SPDX-License-Identifier: Apache-2.0

// Package imagemount mounts images in a mount namespace of the program's own: a FUSE
// server in the supervisor.
//
// # How it works
//
// A FUSE mount must be made in the user namespace in which its /dev/fuse was opened
// (fs/fuse/inode.c: fuse_fill_super), that is by the child that becomes the program,
// before it does. [Connect] does so, without fusermount: the mount is detached, to be
// attached wherever it belongs. The descriptor goes to the supervisor, [Send] and
// [Receive], which answers with [Serve] before anybody looks at the mount: until the
// first message, FUSE_INIT, has an answer everybody who does waits.
//
// The server is hanwen/go-fuse's, over an [image.FS]: everything is read-only and stays
// as it is, so that the kernel may keep names, attributes and content for as long as it
// likes. A read that the kernel has in its cache costs what any file's does.
//
// # Who may read
//
// Owners and modes are those of the image. They are judged by the kernel if the view is
// root's (default_permissions): the view may have other users. For an ordinary user's
// view they are only told, but for the right to execute: the image is the user's own
// file. Where a cow of such a user's is laid over the image all files are the user's, see
// [Owner]: the kernel copies nothing for the user that belongs to somebody whom the user's
// namespace does not know. Set-user-ID bits and devices are without effect.
//
// # Lifecycle and locks
//
// A Server ends when the mount is gone: with the last process of the namespace. Close
// waits for that; Server.mu guards the open files and is not held
// while one is read.
package imagemount
