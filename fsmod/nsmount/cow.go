// SPDX-License-Identifier: Apache-2.0

// Cow: overlays over what is there.
//
// What is written goes to UPPER, or to the pool without one:
//
//	UPPER/upper            the upper directory of the overlay on the target
//	UPPER/work/PATH        work directories, of the overlay at PATH; nothing of value
//	UPPER/sub/PATH/upper   the same for a file system that is mounted at PATH below
//	UPPER/sub/PATH/work    the target
//
// PATH is one name, in which "%2F" stands for "/"; that alone is the target itself.
//
// The kernel's own file systems (/proc, /sys, ...) are the host's. A single file that
// is mounted somewhere is a copy that goes with the view.
//
// An ordinary user's mounts, as copied into its namespace, are locked to each other
// (mount_namespaces(7)), and the kernel makes no overlay of a directory with locked
// mounts in it. Such a directory is made of glue, and its entries are overlays, each
// with its own place in UPPER/upper: the layout is the same.
//
// Nor does an overlay copy for a user what belongs to somebody whom the user's
// namespace does not know (EOVERFLOW). A file of root's nobody else can write anyway;
// but to write /home/me/x it would copy /home. So the directories on the way to where
// users write are made in UPPER beforehand, see skeleton. They are the user's own then, and
// those that the user could not write to are without the right to write.

package nsmount

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	format "umrun/fsmod/cow"
	"umrun/fsmod/detached"
)

// A cow is one of them while it is made.
type cow struct {
	b     *builder
	at    string // the target
	upper string // a path of UPPER
	kept  bool   // UPPER was given
	subs  []submount
}

// A layer is a directory of a cow, and where its overlay keeps what is written.
type layer struct {
	was  int    // a descriptor of the directory as it was
	rel  string // its path below the target
	base string // UPPER, or that of the file system it is in
	in   string // its path in that file system, as far as it was not mounted
}

// cow lays one over target. upper is UPPER, -1 for the pool.
func (b *builder) cow(target string, upper int) error {
	c := &cow{b: b, at: target, upper: byFD(upper), kept: upper >= 0}
	if upper < 0 {
		if err := b.openPool(); err != nil {
			return err
		}
		b.files++
		c.upper = fmt.Sprintf("%s/cow%d", byFD(b.pool), b.files)
		if err := os.Mkdir(c.upper, 0o700); err != nil {
			return err
		}
	}
	was, err := openDir(unix.AT_FDCWD, target)
	if err != nil {
		return &os.PathError{Op: "open", Path: target, Err: err}
	}
	if c.subs, err = submounts(target, was); err != nil {
		return err
	}
	root := -1
	err = c.lay(layer{was: was, base: c.upper}, func(tree int) error {
		root = tree
		return c.b.put(tree, target)
	})
	if err != nil || target != "/" {
		return err
	}
	return b.pivot(root)
}

// openDir opens a directory, to look up and to list what is in it.
func openDir(dir int, name string) (int, error) {
	return unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

// lay makes the counterpart of a directory. at puts the mount where it belongs.
func (c *cow) lay(l layer, at func(tree int) error) error {
	below := c.below(l.rel)
	tree, err := c.overlay(l)
	if errors.Is(err, unix.EINVAL) && len(below) > 0 {
		return c.layGlue(l, at)
	}
	if err != nil {
		return err
	}
	if l.rel != "" { // else it may become the root
		defer unix.Close(tree)
	}
	if err = at(tree); err == nil {
		err = c.b.own(tree)
	}
	if err != nil {
		return err
	}
	for _, s := range below {
		if err := c.sub(l, tree, s); err != nil {
			return fmt.Errorf("what is mounted at %s: %w", filepath.Join(c.at, s.rel), err)
		}
	}
	return nil
}

// below returns what is mounted below rel, but for what is mounted in that again.
func (c *cow) below(rel string) (subs []submount) {
	for _, s := range c.subs {
		if _, ok := relative(rel, s.rel); ok && !slices.ContainsFunc(subs, func(p submount) bool {
			_, in := relative(p.rel, s.rel)
			return in
		}) {
			subs = append(subs, s)
		}
	}
	return subs
}

// layGlue makes a directory of glue, whose entries have their own counterparts.
func (c *cow) layGlue(l layer, at func(tree int) error) error {
	// A name that is made in it goes with the view: that is what was asked for if
	// nothing is kept.
	lost := c.kept || unix.Faccessat(l.was, ".", unix.W_OK, unix.AT_EACCESS) != nil
	glue, err := c.b.newGlue(l.was, lost)
	if err == nil {
		err = at(glue)
	}
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(byFD(l.was))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := c.entry(l, glue, e); err != nil && !errors.Is(err, unix.ENOENT) { // gone meanwhile
			return fmt.Errorf("%s: %w", filepath.Join(c.at, l.rel, e.Name()), err)
		}
	}
	return nil
}

// entry makes the counterpart of an entry of l in its glue.
func (c *cow) entry(l layer, glue int, e os.DirEntry) error {
	name, rel := e.Name(), filepath.Join(l.rel, e.Name())
	if e.Type() == os.ModeSymlink {
		return copyLink(l.was, glue, name)
	}
	if err := standIn(glue, name, e.IsDir()); err != nil {
		return err
	}
	if i := slices.IndexFunc(c.subs, func(s submount) bool { return s.rel == rel }); i >= 0 {
		return c.sub(l, glue, c.subs[i])
	}
	at := func(tree int) error { return attachAt(tree, glue, name) }
	if e.IsDir() {
		was, err := openDir(l.was, name)
		if err == nil {
			defer unix.Close(was)
			return c.lay(layer{was, rel, l.base, filepath.Join(l.in, name)}, at)
		}
		if !errors.Is(err, unix.EACCES) {
			return err
		}
	}
	// A file, which cannot be copied when it is written to, or a directory that the
	// program cannot look into either.
	return attachCopy(l.was, name, true, func(tree int) error { return readOnly(tree, true) }, at)
}

// attachCopy puts a copy of what is mounted at name, which change has changed, where it belongs. It
// keeps no descriptor: of a directory of glue there may be thousands.
func attachCopy(dir int, name string, whole bool, change, at func(tree int) error) error {
	tree, err := cloneTree(dir, name, whole)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	if err := change(tree); err != nil {
		return err
	}
	return at(tree)
}

// sub makes the counterpart, in the directory that tree is mounted on, of what is
// mounted in l.
func (c *cow) sub(l layer, tree int, s submount) error {
	rel, _ := relative(l.rel, s.rel)
	at := func(t int) error { return attachAt(t, tree, rel) }
	devices := s.fs == "devtmpfs" && c.b.plan.User // an overlay of a user's has none
	switch {
	case !s.dir:
		return c.file(l.was, rel, at)
	case format.Pseudo(s.fs), devices:
		err := attachCopy(l.was, rel, true, private, at)
		if err != nil || !devices {
			return err
		}
		for _, in := range c.below(s.rel) { // such as /dev/shm
			if !format.Pseudo(in.fs) && in.dir && c.mayWrite(in.rel) {
				err = errors.Join(err, c.sub(l, tree, in))
			}
		}
		return err
	}
	was, err := openDir(l.was, rel)
	if errors.Is(err, unix.EACCES) {
		return attachCopy(l.was, rel, true, private, at) // the program cannot look into it either
	}
	if err != nil {
		return err
	}
	defer unix.Close(was)
	return c.lay(layer{was: was, rel: s.rel, base: filepath.Join(c.upper, "sub", escape(s.rel))}, at)
}

// mayWrite reports whether the user can make something in a directory.
func (c *cow) mayWrite(rel string) bool {
	return unix.Faccessat(unix.AT_FDCWD, filepath.Join(c.at, rel), unix.W_OK, unix.AT_EACCESS) == nil
}

// file makes the counterpart of a single file that is mounted.
func (c *cow) file(was int, rel string, at func(tree int) error) error {
	var st unix.Stat_t
	if err := unix.Fstatat(was, rel, &st, 0); err != nil {
		return err
	}
	regular := st.Mode&unix.S_IFMT == unix.S_IFREG
	var f *os.File
	err := error(unix.EINVAL)
	if regular && st.Size <= format.MostFile { // to open another, a pipe say, might take for ever
		f, err = os.Open(byFD(was) + "/" + rel)
	}
	if err == nil {
		defer f.Close()
		name, err := c.b.pooled(f, os.FileMode(st.Mode&0o777))
		if err != nil {
			return err
		}
		return attachCopy(unix.AT_FDCWD, name, false, func(int) error { return nil }, at)
	}
	return attachCopy(was, rel, false, func(tree int) error {
		if !regular {
			return nil
		}
		return readOnly(tree, false)
	}, at)
}

// overlay makes the overlay of a directory.
func (c *cow) overlay(l layer) (int, error) {
	upper := filepath.Join(l.base, "upper", l.in)
	work := filepath.Join(l.base, "work", escape(l.in))
	if err := errors.Join(c.skeleton(l, upper), os.MkdirAll(work, 0o700)); err != nil {
		return -1, err
	}
	up, err := openPath(unix.AT_FDCWD, upper)
	if err != nil {
		return -1, err
	}
	defer unix.Close(up)
	wd, err := openPath(unix.AT_FDCWD, work)
	if err != nil {
		return -1, err
	}
	defer unix.Close(wd)
	// Paths of descriptors: neither colons nor commas, nor mounts that cover them.
	options := []string{
		"lowerdir=" + byFD(l.was), "upperdir=" + byFD(up), "workdir=" + byFD(wd),
		"userxattr", "index=off", "metacopy=off",
	}
	if !sameDevice(l.was, up) {
		options = append(options, "xino=on") // one device, whatever a file's layer is
	}
	return detached.Mount("overlay", options, 0)
}

// sameDevice tells whether two descriptors are of one file system.
func sameDevice(a, b int) bool {
	var x, y unix.Stat_t
	return unix.Fstat(a, &x) == nil && unix.Fstat(b, &y) == nil && x.Dev == y.Dev
}

// skeleton makes the upper directory of l, and what an overlay would not copy for an
// ordinary user: the directories of others on the way to where it writes.
func (c *cow) skeleton(l layer, upper string) error {
	if _, err := makeLike(l.was, "", upper, c.b.plan.User); err != nil {
		return err
	}
	if !c.b.plan.User {
		return nil
	}
	root := filepath.Join(c.at, l.rel)
	for _, place := range c.b.plan.Places {
		rest, ok := relative(root, place)
		if !ok {
			continue
		}
		rel := ""
		for name := range strings.SplitSeq(rest, "/") {
			rel = filepath.Join(rel, name)
			if on, err := makeLike(l.was, rel, filepath.Join(upper, rel), true); err != nil || !on {
				break // the rest the overlay makes itself, or nobody may
			}
		}
	}
	return nil
}

// makeLike makes a directory as the one at rel, if it is one; for an ordinary user only
// if that belongs to somebody else, or is the first. on says that there is one, and that
// what is below it may be looked at.
func makeLike(was int, rel, path string, user bool) (on bool, err error) {
	var st unix.Stat_t
	if err := unix.Fstatat(was, rel, &st, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || user && rel != "" && int(st.Uid) == os.Geteuid() && int(st.Gid) == os.Getegid() {
		return false, nil
	}
	if have, err := os.Lstat(path); err == nil {
		return have.IsDir(), nil
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return false, err
	}
	if !user {
		if err := unix.Chown(path, int(st.Uid), int(st.Gid)); err != nil {
			return false, err
		}
	}
	mode := st.Mode & 0o7777
	if user && unix.Faccessat(was, filepath.Join(".", rel), unix.W_OK, unix.AT_EACCESS) == unix.EACCES {
		mode &^= 0o222 // it is the user's own now, and no names are to be made in it
	}
	return true, unix.Chmod(path, mode)
}

// escape makes one name of a path.
func escape(rel string) string {
	if rel == "" {
		rel = "/"
	}
	return format.Escape(rel)
}

// merge lays the names of a directory over those of target, read-only.
func (b *builder) merge(target string, over int) error {
	was, err := openDir(unix.AT_FDCWD, target)
	if err != nil {
		return &os.PathError{Op: "open", Path: target, Err: err}
	}
	subs, err := submounts(target, was)
	if err != nil {
		return err
	}
	tree, err := detached.Mount("overlay", []string{"lowerdir=" + byFD(over) + ":" + byFD(was), "userxattr"}, unix.MOUNT_ATTR_RDONLY)
	if errors.Is(err, unix.EINVAL) && len(subs) > 0 {
		err = fmt.Errorf("%s holds other mounts, which the kernel does not merge for an ordinary user: %w", target, err)
	}
	if err == nil {
		err = b.put(tree, target)
	}
	if err != nil {
		return err
	}
	c := &cow{subs: subs}
	for _, s := range c.below("") {
		err := attachCopy(was, s.rel, true, func(t int) error { return readOnly(t, true) }, func(t int) error { return attachAt(t, tree, s.rel) })
		if err != nil && !errors.Is(err, unix.ENOENT) { // a name of the other one covers it
			return fmt.Errorf("what is mounted at %s: %w", filepath.Join(target, s.rel), err)
		}
	}
	if target != "/" {
		return nil
	}
	return b.pivot(tree)
}
