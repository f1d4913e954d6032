// SPDX-License-Identifier: Apache-2.0

// What the suite of testdata/posix finds otherwise on a mount than on a plain
// directory, and why. docs/files.md tells the user.

package viewtest_test

import (
	"regexp"
	"slices"
)

// A posixDifference is a result that a mount has otherwise.
type posixDifference struct {
	where         string // "KIND ENGINE USER", as path.Match takes it
	name          *regexp.Regexp
	native, umrun string // empty: any
	reason        string
	sometimes     bool // it depends on who is faster
}

// named matches whole names of cases.
func named(re string) *regexp.Regexp { return regexp.MustCompile("^(?:" + re + ")$") }

const (
	ofUserNS  = "in an ordinary user's namespace there is no other user"
	ofOverlay = "overlayfs makes no handles unless it is told to, which costs what it writes"
	whiteout  = "a character device 0:0 is what overlayfs marks a removed name with"
	apart     = "overlayfs copies one name of a file that has several: the others stay as they were"
	renaming  = "overlayfs does not rename a directory that was there before (EXDEV, and mv copies it)"
	ownFlags  = "umrun opens the file, after it has followed the links: O_NOFOLLOW and O_DIRECTORY are its own"
	noHandle  = "a file handle names the host's file, and would be opened past the view"
	newXattr  = "the calls of Linux 6.13 are not answered; libraries take the older ones"
	byUmrun   = "umrun connects, with the socket's file in place of its path: the other end learns umrun's process"
	hostName  = "the kernel knows the file by the host's name, or by none"
	events    = "umrun opens files of a cow itself, and a watch is on the file or directory that was there then: the lower one"
	byRead    = "a directory is entered and a program executed by a descriptor that reads it, which takes its mode"
	reader    = "what was mapped or opened to read before the first write shows the file as it was"
)

// notMoved are the cases of an old directory that cannot be renamed, and what follows.
const notMoved = `moved/(a directory|the old name|the new|what is in it|an empty directory over a full one|over an empty one|which (has|has both|is empty)|` +
	`one with new and old in it|names|a new one of the old name|EXCHANGE of new and old|the one)`

// noHandles is what there is where name_to_handle_at(2) gives none.
func noHandles(reason string) []posixDifference {
	return []posixDifference{
		{name: named(`(call|callat)/handle .*`), native: "ok", umrun: "EOPNOTSUPP", reason: reason},
		{name: named(`handle/no handles`), native: "no case", umrun: "EOPNOTSUPP", reason: reason},
		{name: named(`handle/.*`), umrun: "no case", reason: reason},
	}
}

// A cow of the kernel's is an overlay.
var cowOverlay = slices.Concat(noHandles(ofOverlay), []posixDifference{
	{name: named(`group/mknod character`), umrun: "EPERM", reason: whiteout},
	{name: named(`written/the same file still|changed/the same still|renamed/which is the same`), native: "yes", umrun: "no", reason: apart},
	{name: named(`written/links`), native: "2", umrun: "1", reason: apart},
	{name: named(`(written/look|changed/file)`), reason: apart},
	{name: named(`kept/of the same`), native: "yes", umrun: "no", reason: apart},
	{name: named(`tied/(one file|which is one file still)`), native: "yes", umrun: "no", reason: apart},
	{name: named(`tied/written by the other old name`), native: "by f", umrun: "0123456789", reason: apart},
	{name: named(`removed/its other name`), native: "file 644 1 links", umrun: "file 644 2 links", reason: apart},
	{name: named(`changed/directory`), native: "directory 750 3 links", umrun: "directory 750 1 links", reason: "overlayfs counts no directories in one"},
	{name: named(notMoved), reason: renaming},
	{name: named(`seen/a mapping made before, after a write`), native: "MM", umrun: "01", reason: reader},
})

var posixDifferences = slices.Concat([]posixDifference{
	{where: "* ns user", name: named(`chown/(to another (user|group)|a (link|directory) to others|by (a descriptor|O_PATH))`), native: "EPERM", umrun: "EINVAL", reason: ofUserNS},
	{where: "* trap user", name: named(`exec/one that may only be executed`), native: "yes", umrun: "no", reason: byRead},
}, on("cow* ns *", cowOverlay), on("away ns *", cowOverlay), on("* trap *", trapped), on("fuse * *", fuseServed), on("fuse trap *", fuseTrapped), on("fuse trap root", fuseTrappedRoot),
	on("* trap root", trappedRoot),
	on("cow* trap *", cowTrapped), on("away trap *", cowTrapped), on("image ns *", cowOverlay), on("image trap *", cowTrapped), on("image *", []posixDifference{
		{name: named(`old/its nanoseconds`), native: "6", umrun: "0", reason: "squashfs keeps seconds"},
	}))

// What the trap engine answers otherwise on every mount.
var trapped = slices.Concat(noHandles(noHandle), []posixDifference{
	{name: named(`(call|callat)/(set|get|list|remove)xattrat .*`), umrun: "ENOSYS", reason: newXattr},
	{name: named(`flags/F_GETFL of (NOFOLLOW|PATH.*)`), reason: ownFlags},
	{name: named(`socket/which is this process`), native: "yes", umrun: "no", reason: byUmrun},
	{name: named(`proc/(fd of fifo|name in maps.*)`), reason: hostName},
})

var trappedRoot = []posixDifference{
	{name: named(`other/searchonly .*`), reason: byRead},
}

// A cow of the trap engine copies as overlayfs does.
var cowTrapped = []posixDifference{
	{name: named(`watch/(truncate|rmdir|rmdir of itself)|seen/events of the directory`), reason: events},
	{name: named(`group/mknod character`), umrun: "EPERM", reason: whiteout},
	{name: named(`written/the same file still|changed/the same still|renamed/which is the same|tied/which is one file still`), native: "yes", umrun: "no", reason: apart},
	{name: named(`written/(links|look)|changed/file|tied/written by the other old name`), reason: apart},
	{name: named(`changed/directory`), native: "directory 750 3 links", umrun: "directory 750 2 links", reason: "a directory has the number of links of one layer"},
	{name: named(`written/by a descriptor that was open to read|changed/what the descriptor has`), reason: reader},
	{name: named(`removed/its other name`), native: "file 644 1 links", umrun: "file 644 2 links", reason: apart},
	{name: named(notMoved), reason: renaming},
	{name: named(`seen/(a mapping made before, after a write|f?lock by one who writes)`), reason: reader},
}

// What a command serves. posixFuse, natively, gives two answers to some cases itself.
var fuseServed = []posixDifference{
	{name: named(`mkdir/links of what is gone|replace/times that it was not there|race/.*|(watch|watched)/.*|move/truncate beyond it`), reason: "it depends on what the kernel has kept, and on who is faster", sometimes: true},
}

var fuseTrapped = []posixDifference{
	{name: named(`stat/lstat f|hard/(and has|written by the other name)`), reason: "libfuse has an inode for each name, and the kernel keeps its attributes for a second", sometimes: true},
	{name: named(`cwd//proc/self/cwd in what is gone|unlink/by /proc/self/fd`), reason: "libfuse gives what is removed another name while it is open"},
	{name: named(`socket/its absolute name`), umrun: "abs", reason: "what a command serves has no path on the host"},
}

// Natively a mount without allow_other is for those whose users are all the mount's.
const fuseUsers = "FUSE looks at the real, effective and saved user, and umrun's thread that acts for a task has its own of them"

var fuseTrappedRoot = []posixDifference{
	{name: named(`threads/a (file|directory) of a thread's setfsuid`), native: "yes", umrun: "no", reason: fuseUsers},
	{name: named(`user/(AT_EACCESS|open) for the effective one`), native: "EACCES", umrun: "ok", reason: fuseUsers},
}

// on is a list for mounts.
func on(where string, list []posixDifference) []posixDifference {
	list = slices.Clone(list)
	for i := range list {
		list[i].where = where
	}
	return list
}
