// SPDX-License-Identifier: Apache-2.0

// Where a name is: in which layer, or in both.

package cow

import (
	"context"
	"iter"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A node is what the layers have of a name. Descriptors are O_PATH, and -1 where there
// is nothing. If several are there, they are directories that are shown as one.
type node struct {
	up    int
	low   int   // of the first of the lower layers that has something
	layer int   // which that is
	more  []low // of those below it, in their order

	st     unix.Stat_t // of what is shown
	white  bool        // the upper layer has a whiteout here
	opaque bool        // up is an opaque directory
}

// A low is a directory of a lower layer.
type low struct{ fd, layer int }

// lowers are the lower layers' parts of a node.
func (n *node) lowers() iter.Seq[low] {
	return func(yield func(low) bool) {
		if n.low >= 0 && !yield(low{n.low, n.layer}) {
			return
		}
		for _, l := range n.more {
			if !yield(l) {
				return
			}
		}
	}
}

func (n *node) exists() bool { return n.up >= 0 || n.low >= 0 }
func (n *node) isDir() bool  { return n.exists() && kind(&n.st) == unix.S_IFDIR }

// top is the descriptor of what is shown.
func (n *node) top() int {
	if n.up >= 0 {
		return n.up
	}
	return n.low
}

// take hands what is shown to the caller, who closes it.
func (n *node) take() (fd int) {
	if n.up >= 0 {
		fd, n.up = n.up, -1
	} else {
		fd, n.low = n.low, -1
	}
	return fd
}

// A place is a name and what is there. dir is the directory that it is in.
type place struct {
	node
	b    *branch
	dir  node
	name string // the last one; "" for the root

	stranger bool // the caller, who makes something, is not of the directory's group
}

func (p *place) close() {
	p.b.closeNode(&p.node)
	p.b.closeNode(&p.dir)
}

// closeNode closes the descriptors of a node, but not those of the roots.
func (b *branch) closeNode(n *node) {
	if n.up >= 0 && n.up != b.upper {
		_ = unix.Close(n.up)
	}
	for l := range n.lowers() {
		if l.fd != b.lowers[l.layer].Dir {
			_ = unix.Close(l.fd)
		}
	}
	n.up, n.low, n.more = -1, -1, nil
}

// root is the root as a node, whose descriptors are not closed by closeNode.
func (b *branch) root() (node, error) {
	n := node{up: b.upper, low: b.lowers[0].Dir, more: b.deeper}
	err := unix.Fstat(n.top(), &n.st)
	return n, err
}

// ownRoot is the root as a node whose descriptors the caller may take.
func (b *branch) ownRoot() (node, error) {
	d, err := b.root()
	if err != nil {
		return d, err
	}
	own := node{up: -1, low: -1, st: d.st}
	if d.up >= 0 {
		own.up, err = dup(d.up)
	}
	for l := range d.lowers() {
		if err != nil {
			break
		}
		var fd int
		if fd, err = dup(l.fd); err == nil {
			own.under(fd, l.layer)
		}
	}
	if err != nil {
		b.closeNode(&own)
	}
	return own, err
}

// under adds what a layer has to what those above it have.
func (n *node) under(fd, layer int) {
	if n.low < 0 {
		n.low, n.layer = fd, layer
	} else {
		n.more = append(n.more, low{fd, layer})
	}
}

// walk finds a name. What it returns holds descriptors: close it. With parent, the
// directory that it is in is found too; a name that is not there has one in any case.
// b.mu is held, at least for reading.
func (b *branch) walk(name string, parent bool) (*place, error) {
	p := &place{b: b, node: node{up: -1, low: -1}, dir: node{up: -1, low: -1}}
	if err := b.filled(context.Background(), name, false); err != nil {
		return nil, err
	}
	if name == "" {
		var err error
		p.node, err = b.ownRoot()
		return p, err
	}
	d, err := b.root()
	if err != nil {
		return nil, err
	}
	at := 0 // where in name the next one begins
	for {
		comp, rest, more := strings.Cut(name[at:], "/")
		if d.up < 0 && len(d.more) == 0 && !b.lowers[d.layer].hides(name) {
			// One layer is left, and the kernel can go the rest at once.
			return b.walkLower(p, d, name[at:], parent)
		}
		n, err := b.lookup(&d, comp, name[:at+len(comp)])
		if err != nil {
			b.closeNode(&d)
			return nil, err
		}
		if !more {
			p.dir, p.node, p.name = d, n, comp
			return p, nil
		}
		b.closeNode(&d)
		if err := n.enter(); err != nil {
			b.closeNode(&n)
			return nil, err
		}
		d, at = n, len(name)-len(rest)
	}
}

// filled sees that the lower layers have what they are to have of name. That one has nothing
// is for others to say.
func (b *branch) filled(ctx context.Context, name string, content bool) error {
	for i := range b.lowers {
		if err := b.filledIn(ctx, i, name, content); err != nil {
			return err
		}
	}
	return nil
}

func (b *branch) filledIn(ctx context.Context, layer int, name string, content bool) error {
	fill := b.lowers[layer].Fill
	if fill == nil {
		return nil
	}
	switch err := fill(ctx, name, content); errno(err) {
	case unix.ENOENT, unix.ENOTDIR:
		return nil
	default:
		return err
	}
}

// enter tells why a node is no directory to go on from.
func (n *node) enter() error {
	switch {
	case !n.exists():
		return unix.ENOENT
	case kind(&n.st) == unix.S_IFLNK:
		return unix.ELOOP
	case !n.isDir():
		return unix.ENOTDIR
	}
	return nil
}

// walkLower ends a walk in a directory that only one of the lower layers has.
func (b *branch) walkLower(p *place, d node, rest string, parent bool) (*place, error) {
	i := strings.LastIndexByte(rest, '/')
	p.name = rest[i+1:]
	fail := func(err error) (*place, error) {
		b.closeNode(&d)
		p.close()
		return nil, err
	}
	if i >= 0 && parent {
		fd, err := openDir(d.low, rest[:i], &d.st)
		if err != nil {
			return fail(blocked(d.low, rest[:i], err))
		}
		b.closeNode(&d)
		d.low = fd
		rest = p.name
	}
	n, err := b.lookupLower(d.low, rest)
	if err != nil {
		return fail(err)
	}
	n.layer, n.white = d.layer, false
	p.dir, p.node = d, n
	return p, nil
}

// lookup finds one name in a directory. path is the whole name, for what is hidden.
func (b *branch) lookup(d *node, name, path string) (node, error) {
	n := node{up: -1, low: -1}
	if d.up >= 0 {
		fd, err := openBelow(d.up, name, unix.O_PATH, 0)
		if err != nil && err != unix.ENOENT {
			return n, err
		}
		if err == nil {
			if err := unix.Fstat(fd, &n.st); err != nil {
				closeAll(fd)
				return n, err
			}
			if whiteout(&n.st) {
				closeAll(fd)
				n.white = true
				return n, nil
			}
			n.up = fd
			if !n.isDir() {
				return n, b.whole(&n)
			}
			if d.low < 0 {
				return n, nil
			}
			if n.opaque, err = b.isOpaque(fd, !b.readOnly()); err != nil || n.opaque {
				if err != nil {
					b.closeNode(&n)
				}
				return n, err
			}
		}
	}
	for l := range d.lowers() {
		end, err := b.lookupUnder(&n, d, l, name, path)
		if err != nil {
			b.closeNode(&n)
			return n, err
		}
		if end {
			break
		}
	}
	return n, nil
}

// lookupUnder adds to n what a lower layer has of it in its part of d. end: those below that
// add nothing.
func (b *branch) lookupUnder(n, d *node, in low, name, path string) (end bool, err error) {
	if slices.Contains(b.lowers[in.layer].hidden, path) {
		return false, nil
	}
	var l node
	find := func() (err error) {
		l, err = b.lookupLower(in.fd, name)
		return err
	}
	if in.fd != d.top() { // whom that lets in may not be let in by those below it
		err = b.owner.do(find)
	} else {
		err = find()
	}
	switch {
	case err != nil:
		return true, err
	case l.white:
		return true, nil
	case !l.exists():
		return false, nil
	case n.exists() && !l.isDir(): // no part of the directory
		closeAll(l.low)
		return true, nil
	}
	if !n.exists() {
		n.st = l.st
	}
	n.under(l.low, in.layer)
	if !l.isDir() {
		if in.layer < len(b.lowers)-1 {
			err = b.whole(n)
		}
		return true, err
	}
	if in.layer < len(b.lowers)-1 {
		return b.isOpaque(l.low, false)
	}
	return false, nil
}

// lookupLower finds a name, which may be several, in a directory of the lower layer.
func (b *branch) lookupLower(dir int, name string) (node, error) {
	n := node{up: -1, low: -1}
	fd, err := openBelow(dir, name, unix.O_PATH, 0)
	if err == unix.ENOTDIR {
		err = blocked(dir, name, err)
		return n, err
	}
	if err == unix.ENOENT && strings.Contains(name, "/") {
		// The caller wants to know of the last name that it is not there.
		i := strings.LastIndexByte(name, '/')
		d, err := openDir(dir, name[:i], &unix.Stat_t{})
		closeAll(d)
		return n, err
	}
	if err == unix.ENOENT {
		return n, nil
	}
	if err != nil {
		return n, err
	}
	if err := unix.Fstat(fd, &n.st); err != nil {
		closeAll(fd)
		return n, err
	}
	if whiteout(&n.st) {
		closeAll(fd)
		return node{up: -1, low: -1, white: true}, nil
	}
	n.low = fd
	return n, nil
}

// blocked makes ENOTDIR of what a whiteout is on the way of ENOENT.
func blocked(dir int, name string, err error) error {
	if err != unix.ENOTDIR {
		return err
	}
	for i := 0; i < len(name); i++ {
		if name[i] != '/' && i < len(name)-1 {
			continue
		}
		var st unix.Stat_t
		fd, e := openBelow(dir, strings.TrimSuffix(name[:i+1], "/"), unix.O_PATH, 0)
		if e != nil {
			return err
		}
		e = unix.Fstat(fd, &st)
		closeAll(fd)
		if e == nil && whiteout(&st) {
			return unix.ENOENT
		}
	}
	return err
}

// whole refuses a file whose data an overlayfs with metacopy=on has left in a lower
// layer: to show it empty would be wrong.
func (b *branch) whole(n *node) error {
	if !b.trusted || kind(&n.st) != unix.S_IFREG {
		return nil
	}
	if _, err := unix.Getxattr(fdPath(n.top()), trustedPrefix+metacopyName, nil); err == nil {
		b.closeNode(n)
		return unix.EIO
	}
	return nil
}
