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
}

// named matches whole names of cases.
func named(re string) *regexp.Regexp { return regexp.MustCompile("^(?:" + re + ")$") }

const (
	ofUserNS  = "in an ordinary user's namespace there is no other user"
	ofOverlay = "overlayfs makes no handles unless it is told to, which costs what it writes"
	whiteout  = "a character device 0:0 is what overlayfs marks a removed name with"
	apart     = "overlayfs copies one name of a file that has several: the others stay as they were"
	renaming  = "overlayfs does not rename a directory that was there before (EXDEV, and mv copies it)"
	reader    = "what was mapped or opened to read before the first write shows the file as it was"
)

// A cow of the kernel's is an overlay.
var cowOverlay = []posixDifference{
	{name: named(`(call|callat)/handle .*`), umrun: "EOPNOTSUPP", reason: ofOverlay},
	{name: named(`handle/.*`), reason: ofOverlay},
	{name: named(`group/mknod character`), umrun: "EPERM", reason: whiteout},
	{name: named(`written/the same file still|changed/the same still|renamed/which is the same`), native: "yes", umrun: "no", reason: apart},
	{name: named(`written/links`), native: "2", umrun: "1", reason: apart},
	{name: named(`(written/look|changed/file)`), reason: apart},
	{name: named(`tied/(one file|which is one file still)`), native: "yes", umrun: "no", reason: apart},
	{name: named(`tied/written by the other old name`), native: "by f", umrun: "0123456789", reason: apart},
	{name: named(`removed/its other name`), native: "file 644 1 links", umrun: "file 644 2 links", reason: apart},
	{name: named(`changed/directory`), native: "directory 750 3 links", umrun: "directory 750 1 links", reason: "overlayfs counts no directories in one"},
	{name: named(`moved/.*`), reason: renaming},
	{name: named(`seen/a mapping made before, after a write`), native: "MM", umrun: "01", reason: reader},
}

var posixDifferences = slices.Concat([]posixDifference{
	{where: "* ns user", name: named(`chown/.*`), native: "EPERM", umrun: "EINVAL", reason: ofUserNS},
}, on("cow ns *", cowOverlay), on("away ns *", cowOverlay))

// on is a list for mounts.
func on(where string, list []posixDifference) []posixDifference {
	list = slices.Clone(list)
	for i := range list {
		list[i].where = where
	}
	return list
}
