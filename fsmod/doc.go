// SPDX-License-Identifier: Apache-2.0

// Package fsmod turns path calls of the target into its own view of files.
//
// # What there is today
//
// Generated trees: directories whose files are made when they are opened, as a view's
// /proc/net and /sys/class/net are. They trap only open(2), openat(2) and openat2(2)
// for reading, and no stat call, so that a program which looks at no file of theirs
// pays for its opens alone: the path is read and, unless its last name is one that a
// tree has, the call goes on.
//
//	openat --> path --> does its last name occur in a tree? --no--> Continue
//	                          | yes
//	                    where does it lead? (the caller's root, cwd or directory,
//	                          |              then names, lexically)
//	                    Tree.Open --> sealed memory file, or a directory of ours --> InstallFD
//
// # What it is not
//
// It is no boundary. A path that no tree has is opened by the kernel, which reads it
// again; a program that changes it meanwhile, opens the file for writing only, or gets
// there by a symbolic link of its own making, sees the host's file, as it would see
// without this package. Generated trees tell a program the truth about its network;
// they keep nothing from it.
//
// # Files
//
// A file is delivered as a memory file, sealed against every change, and opened anew
// for reading, with its own position: what is read, mapped or seeked in is the state
// at the open, as with the kernel's seq_file after the first read. A directory is a
// real one in a private place, with empty files of the right names; an open relative to
// it is found to be one of the tree's and answered as such. The place goes with
// [Module.Close].
//
// # Goroutines and locks
//
// Handlers run on intercept's receiver; there are no goroutines. Module.mu guards the
// private directory and is held while its names are brought up to date.
package fsmod
