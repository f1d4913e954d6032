// SPDX-License-Identifier: Apache-2.0

// Package image reads file systems and archives that are in a file: squashfs, ext2 to
// ext4, FAT, iso9660 with Rock Ridge or Joliet, zip, and tar, plain or compressed.
//
// # How it works
//
// [Open] tells the format by the content, whatever the file's name. A format is an [FS]:
// objects have an [ID], by which their attributes, entries, targets, extended attributes
// and content are asked for. File systems are read where they are: nothing is unpacked,
// and what was decompressed is kept in a cache of bounded size. Archives have an index in
// memory. What can only be read from its beginning (a deflated member of a zip, a
// compressed tar) goes through a temporary file without a name, member by member, or for
// a compressed tar as a whole, when it is opened.
//
// Programs see an image by package imagemount, in a mount namespace, or by imagetree, with
// the trap engine.
//
// # Hostile images
//
// An image is input like any other: nothing in it is believed. Sizes, counts and depths
// are bounded before memory is taken; chains that lead back into themselves end; a name
// with a slash or a NUL, "." and "..", are no names; of two with one name an archive has
// the later; members of an archive whose path leads up, or through what is no directory,
// are left out ([Skipped] tells of them). What decompresses to more than [MaxRatio] times
// its size is refused. The answer to what cannot be right is EIO, which costs the one
// object and not the image. Symbolic links are told, and never followed.
//
// # Writing
//
// There is none: these readers only read, and who wants to write mounts a cow over it.
//
// # Goroutines and locks
//
// No goroutines. All methods are safe for concurrent use: the formats are immutable after
// Open but for their caches, which have locks of their own; no lock is held while one of
// another is taken.
package image
