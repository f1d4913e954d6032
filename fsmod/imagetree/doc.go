// SPDX-License-Identifier: Apache-2.0

// Package imagetree shows an image to programs under the trap engine, whose files are
// real ones: an [fsmod.FS] over an [image.FS].
//
// # How it works
//
// A private directory has a copy of the image that is made as somebody looks at it: the
// entries of a directory when it is first opened, in whatever way, with modes, owners
// as far as they may be given, times, and sizes; the content of a file when it is first
// opened to be read. So stat(2) of everything costs no decompression, and reading costs
// it once. Nothing is ever written to the image, and every change is refused (EROFS). A cow
// over the image reads the copy itself, and has made what it is about to look at
// ([Tree.Ready]).
//
// The kernel judges who may read, by the modes and owners of the copies: in root's view
// as natively; an ordinary user owns the copies.
//
// # What differs
//
// Devices are left out: whoever opened one would have this machine's. The count of
// links grows with the names that were seen. Case matters in names of FAT. Blocks are
// counted when content is there.
//
// # Goroutines and locks
//
// Copies are made by a goroutine of their own, which the caller waits for: the caller's
// thread may have another user's credentials. Tree.mu is held by it, but
// not while content is copied; of a file that is by one at a time. Large ones are copied
// while their call is parked ([fsmod.Preparer]).
package imagetree
