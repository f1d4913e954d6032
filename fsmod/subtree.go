// SPDX-License-Identifier: Apache-2.0

// A part of a tree, as a tree of its own.

package fsmod

import (
	"context"
	"strings"

	"golang.org/x/sys/unix"
)

// A subtree is what an FS has at a name. Closing it leaves the FS open.
type subtree struct {
	fs FS
	at string
}

func (s *subtree) name(name string) string {
	switch {
	case s.at == "":
		return name
	case name == "":
		return s.at
	}
	return s.at + "/" + name
}

func (s *subtree) Open(name string, flags int, mode uint32) (int, error) {
	return s.fs.Open(s.name(name), flags, mode)
}
func (s *subtree) Own(name string) (int, error)         { return s.fs.Own(s.name(name)) }
func (s *subtree) Mkdir(name string, mode uint32) error { return s.fs.Mkdir(s.name(name), mode) }
func (s *subtree) Mknod(name string, mode uint32, dev uint64) error {
	return s.fs.Mknod(s.name(name), mode, dev)
}
func (s *subtree) Symlink(target, name string) error  { return s.fs.Symlink(target, s.name(name)) }
func (s *subtree) Link(from, to string) error         { return s.fs.Link(s.name(from), s.name(to)) }
func (s *subtree) Remove(name string, dir bool) error { return s.fs.Remove(s.name(name), dir) }
func (s *subtree) Rename(from, to string, flags uint) error {
	return s.fs.Rename(s.name(from), s.name(to), flags)
}
func (s *subtree) List(name string) ([]Dirent, bool, error) { return s.fs.List(s.name(name)) }
func (s *subtree) Close() error                             { return nil }

// Whole is the tree that fs may be a part of, and what name is called there.
func Whole(fs FS, name string) (FS, string) {
	for {
		s, ok := fs.(*subtree)
		if !ok {
			return fs, name
		}
		fs, name = s.fs, s.name(name)
	}
}

// Name implements [Namer].
func (s *subtree) Name(host string) (string, bool) {
	n, ok := s.fs.(Namer)
	if !ok {
		return "", false
	}
	name, ok := n.Name(host)
	if !ok || !covers(s.at, name) && s.at != "" {
		return "", false
	}
	return strings.TrimPrefix(strings.TrimPrefix(name, s.at), "/"), true
}

// LinkFile implements [FileLinker].
func (s *subtree) LinkFile(fd int, to string) error {
	if f, ok := s.fs.(FileLinker); ok {
		return f.LinkFile(fd, s.name(to))
	}
	return unix.EXDEV
}

// Prepare implements [Preparer].
func (s *subtree) Prepare(name string, use Use, flags int) (wait func(ctx context.Context) error) {
	if p, ok := s.fs.(Preparer); ok {
		return p.Prepare(s.name(name), use, flags)
	}
	return nil
}

// Fill implements [Filler].
func (s *subtree) Fill(name string) error {
	if f, ok := s.fs.(Filler); ok {
		return f.Fill(s.name(name))
	}
	return nil
}

// Reserved implements [Reserver].
func (s *subtree) Reserved(attr string) bool {
	r, ok := s.fs.(Reserver)
	return ok && r.Reserved(attr)
}
