// SPDX-License-Identifier: Apache-2.0

// The index of an archive: what its members make together.

package image

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxIndex   = 256 << 20 // bytes of names, targets and attributes
	maxDepth   = 1024      // names in a path
	maxSkipped = 100       // members that are told of
)

// tree is an archive. An ID is a place in nodes; the root is the first.
type tree struct {
	format  string
	nodes   []*node
	spent   int // bytes of names and the like
	skipped []string
}

// node is an object.
type node struct {
	attr     Attr
	target   string
	xattrs   map[string][]byte
	children map[string]ID // of a directory
	open     func() (File, error)
}

func newTree(format string) *tree {
	t := &tree{format: format}
	t.nodes = []*node{t.made()}
	return t
}

// made is a directory that no member stands for.
func (t *tree) made() *node {
	then := time.Unix(0, 0)
	return &node{children: map[string]ID{}, attr: Attr{
		Ino: uint64(len(t.nodes) + 1), Mode: unix.S_IFDIR | 0o755, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()),
		Atime: then, Mtime: then, Ctime: then,
	}}
}

// skip notes a member that is left out.
func (t *tree) skip(name, why string) {
	if len(t.skipped) < maxSkipped {
		t.skipped = append(t.skipped, fmt.Sprintf("%.200q: %s", name, why))
	}
}

// Skipped tells which members of an archive were left out and why: at most 100 of them.
func Skipped(fsys FS) []string {
	if o, ok := fsys.(*owner); ok {
		fsys = o.FS
	}
	if t, ok := fsys.(*tree); ok {
		return t.skipped
	}
	return nil
}

// split takes the path of a member apart; why says what is wrong with it.
func split(name string) (names []string, why string) {
	for _, n := range strings.Split(name, "/") {
		switch {
		case n == "" || n == ".":
		case n == "..":
			return nil, "leads up"
		case !validName(n):
			return nil, "no name"
		default:
			names = append(names, n)
		}
	}
	if len(names) > maxDepth {
		return nil, "too deep"
	}
	return names, ""
}

// find returns what is at a path.
func (t *tree) find(names []string) (ID, bool) {
	at := ID(0)
	for _, n := range names {
		next, ok := t.nodes[at].children[n]
		if !ok {
			return 0, false
		}
		at = next
	}
	return at, true
}

// take counts what the index grows by.
func (t *tree) take(n int) error {
	if t.spent += n; len(t.nodes) >= maxEntries || t.spent > maxIndex {
		return fmt.Errorf("more than %d members, or %d bytes of their names: %w", maxEntries, maxIndex, unix.EFBIG)
	}
	return nil
}

// parent returns the directory that the last of names is in, made as far as it lacks.
func (t *tree) parent(names []string) (dir *node, why string, err error) {
	dir = t.nodes[0]
	for _, n := range names[:len(names)-1] {
		if id, ok := dir.children[n]; ok {
			if dir = t.nodes[id]; dir.children == nil {
				return nil, "below what is no directory", nil
			}
			continue
		}
		if err := t.take(len(n)); err != nil {
			return nil, "", err
		}
		made := t.made()
		dir.children[n] = ID(len(t.nodes))
		t.nodes = append(t.nodes, made)
		dir = made
	}
	return dir, "", nil
}

// add puts a member into the tree, in the place of one of that name; a directory that is
// there already gets its attributes.
func (t *tree) add(name string, n *node) error {
	names, why := split(name)
	if why != "" {
		t.skip(name, why)
		return nil
	}
	size := len(n.target) + 64
	for k, v := range n.xattrs {
		size += len(k) + len(v)
	}
	if len(names) == 0 { // the root
		if n.children != nil {
			n.attr.Ino, n.children = 1, t.nodes[0].children
			t.nodes[0] = n
		}
		return t.take(size)
	}
	dir, why, err := t.parent(names)
	if why != "" {
		t.skip(name, why)
	}
	if dir == nil || err != nil {
		return err
	}
	last := names[len(names)-1]
	if err := t.take(size + len(last)); err != nil {
		return err
	}
	old, there := dir.children[last]
	if there && n.children != nil && t.nodes[old].children != nil {
		n.attr.Ino, n.children = t.nodes[old].attr.Ino, t.nodes[old].children
		t.nodes[old] = n
		return nil
	}
	if there && t.nodes[old].children != nil && len(t.nodes[old].children) > 0 {
		t.skip(name, "in the place of a directory that is not empty")
		return nil
	}
	n.attr.Ino = uint64(len(t.nodes) + 1)
	dir.children[last] = ID(len(t.nodes))
	t.nodes = append(t.nodes, n)
	return nil
}

// link gives what is at a path a second one.
func (t *tree) link(name, to string) error {
	names, why := split(name)
	from, whyTo := split(to)
	id, ok := t.find(from)
	switch {
	case why != "" || whyTo != "" || len(names) == 0:
		t.skip(name, "links from or to where it must not")
		return nil
	case !ok || t.nodes[id].children != nil:
		t.skip(name, fmt.Sprintf("links to %.200q, which is no file", to))
		return nil
	}
	dir, why, err := t.parent(names)
	if why != "" {
		t.skip(name, why)
	}
	if dir == nil || err != nil {
		return err
	}
	last := names[len(names)-1]
	if old, there := dir.children[last]; there && t.nodes[old].children != nil {
		t.skip(name, "in the place of a directory")
		return nil
	}
	if err := t.take(64 + len(last)); err != nil {
		return err
	}
	dir.children[last] = id
	return nil
}

// finish counts the links.
func (t *tree) finish() {
	t.nodes[0].attr.Nlink = 2
	for _, dir := range t.nodes {
		for _, id := range dir.children {
			if n := t.nodes[id]; n.children != nil {
				dir.attr.Nlink++
				n.attr.Nlink += 2
			} else {
				n.attr.Nlink++
			}
		}
	}
}

func (t *tree) node(id ID) (*node, error) {
	if id >= ID(len(t.nodes)) {
		return nil, corrupt("object %d of %d", id, len(t.nodes))
	}
	return t.nodes[id], nil
}

func (t *tree) Format() string { return t.format }
func (t *tree) Root() ID       { return 0 }
func (t *tree) Close() error   { return nil }

func (t *tree) Attr(id ID) (Attr, error) {
	n, err := t.node(id)
	if err != nil {
		return Attr{}, err
	}
	return n.attr, nil
}

func (t *tree) ReadDir(id ID) ([]Entry, error) {
	n, err := t.node(id)
	if err != nil {
		return nil, err
	}
	if n.children == nil {
		return nil, unix.ENOTDIR
	}
	entries := make([]Entry, 0, len(n.children))
	for _, name := range slices.Sorted(maps.Keys(n.children)) {
		child := n.children[name]
		entries = append(entries, Entry{Name: name, ID: child, Type: t.nodes[child].attr.Mode & unix.S_IFMT})
	}
	return entries, nil
}

func (t *tree) Readlink(id ID) (string, error) {
	n, err := t.node(id)
	if err != nil {
		return "", err
	}
	if n.attr.Mode&unix.S_IFMT != unix.S_IFLNK {
		return "", unix.EINVAL
	}
	return n.target, nil
}

func (t *tree) Xattrs(id ID) (map[string][]byte, error) {
	n, err := t.node(id)
	if err != nil {
		return nil, err
	}
	return maps.Clone(n.xattrs), nil
}

func (t *tree) Open(id ID) (File, error) {
	n, err := t.node(id)
	switch {
	case err != nil:
		return nil, err
	case n.children != nil:
		return nil, unix.EISDIR
	case n.open == nil:
		return nil, unix.EINVAL
	}
	return n.open()
}
