// SPDX-License-Identifier: Apache-2.0

// What an ordinary user's cow covers that belongs to others: the kernel's overlay of such a
// user copies nothing of it (EOVERFLOW), though the user may write it.

package view

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"umrun/fsmod"
	"umrun/fsmod/cow"
	"umrun/fsmod/nsmount"
)

// How much is looked at for each cow, and for each place in it where the user works: so many
// names, those at the top first.
const (
	mostLooked = 5_000
	lookedFor  = 30 * time.Millisecond
)

// others are what was found that the user may change and that is not wholly its own.
type others struct {
	dirs []string // directories in which the user may make names, below directories of others alone
	file string   // the first file, or other directory; "": none
}

// lookForOthers looks at what the cows among mounts cover of the host. Below other mounts
// it does not look.
func lookForOthers(mounts []fsmod.Mount, places []string) (o others) {
	if !nsmount.Unprivileged() {
		return o
	}
	for i, m := range mounts {
		if m.Kind == fsmod.Cow && !slices.ContainsFunc(mounts[:i], func(e fsmod.Mount) bool { return covers(e.Target, m.Target) }) {
			root := real(m.Target)
			skip := uncovered(root)
			o.look(root, skip)
			for _, place := range places {
				var st unix.Stat_t
				if place != root && covers(root, place) && unix.Stat(place, &st) == nil && !everybodys(&st) && !slices.ContainsFunc(skip, func(s string) bool { return covers(s, place) }) {
					o.look(place, skip)
				}
			}
		}
	}
	return o
}

// inOwn reports whether a directory above path is the user's own: that the overlay copies
// itself when it is written to, and nothing can be made in the copy beforehand.
func inOwn(path string) bool {
	for path != "/" {
		path = filepath.Dir(path)
		var st unix.Stat_t
		if unix.Stat(path, &st) == nil && int(st.Uid) == os.Geteuid() {
			return true
		}
	}
	return false
}

// everybodys reports whether a directory is one in which all have temporary files.
func everybodys(st *unix.Stat_t) bool {
	return st.Mode&unix.S_ISVTX != 0 && int(st.Uid) != os.Geteuid()
}

// uncovered are the mounts below a directory that a cow of it passes through.
func uncovered(root string) (paths []string) {
	below, err := cow.Submounts(root)
	if err != nil {
		return nil // which whoever makes the cow will tell
	}
	for _, m := range below {
		if m.Pseudo || m.Type == "devtmpfs" || !m.Dir {
			paths = append(paths, m.Path)
		}
	}
	return paths
}

// look goes over a tree, breadth first.
func (o *others) look(root string, skip []string) {
	end := time.Now().Add(lookedFor)
	dirs, looked := []string{root}, 0
	for len(dirs) > 0 {
		dir := dirs[0]
		dirs = dirs[1:]
		d, err := os.Open(dir)
		if err != nil {
			continue
		}
		names, _ := d.Readdirnames(mostLooked)
		d.Close()
		for _, name := range names {
			if looked++; looked > mostLooked || looked%64 == 0 && time.Now().After(end) {
				return
			}
			path := filepath.Join(dir, name)
			var st unix.Stat_t
			if slices.Contains(skip, path) || unix.Lstat(path, &st) != nil {
				continue
			}
			kind := st.Mode & unix.S_IFMT
			switch mine := int(st.Uid) == os.Geteuid(); {
			case kind != unix.S_IFDIR && kind != unix.S_IFREG, mine && int(st.Gid) == os.Getegid():
			case !mine && unix.Faccessat(unix.AT_FDCWD, path, unix.W_OK, unix.AT_EACCESS) != nil:
			case kind == unix.S_IFDIR && !inOwn(path):
				o.dirs = append(o.dirs, path)
			case o.file == "":
				o.file = path
			}
			if kind == unix.S_IFDIR && !everybodys(&st) {
				dirs = append(dirs, path)
			}
		}
	}
}

// why says why the engine is trap then.
func (o *others) why() string {
	return fmt.Sprintf("%s may be written by this user and belongs to another user or group: an overlay of the kernel's would refuse that (EOVERFLOW)", o.file)
}
