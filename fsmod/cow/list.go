// SPDX-License-Identifier: Apache-2.0

// What is in a directory.

package cow

import (
	"bytes"
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"

	"umrun/fsmod"
)

// List is as [fsmod.FS] has it. The inode numbers are those that stat(2) tells.
func (b *branch) List(name string) ([]fsmod.Dirent, bool, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	p, err := b.walk(name, false)
	if err != nil {
		return nil, false, err
	}
	defer p.close()
	if err := p.enter(); err != nil {
		return nil, false, err
	}
	hiding := false
	dirs := 0
	if p.up >= 0 {
		dirs++
	}
	for l := range p.lowers() {
		dirs++
		hiding = hiding || len(b.lowers[l.layer].hiddenIn(name)) > 0
	}
	if dirs == 1 && !hiding && !(b.foreign && b.ours(&p.node)) {
		return nil, false, nil
	}
	if err := may(p.top(), unix.R_OK); err != nil {
		return nil, false, err
	}
	var entries []fsmod.Dirent
	err = b.owner.do(func() (err error) {
		entries, err = b.merge(name, &p.node)
		return err
	})
	return entries, err == nil, err
}

// merge lists a directory that several layers may have.
func (b *branch) merge(name string, n *node) (entries []fsmod.Dirent, err error) {
	seen := map[string]bool{}
	if n.up >= 0 {
		if entries, err = addLayer(entries, seen, n.up, true, nil); err != nil {
			return nil, err
		}
		b.renumber(entries, n.up, true)
	}
	for l := range n.lowers() {
		above := len(entries)
		if entries, err = addLayer(entries, seen, l.fd, false, b.lowers[l.layer].hiddenIn(name)); err != nil {
			return nil, err
		}
		b.renumber(entries[above:], l.fd, b.lowers[l.layer].ours)
	}
	return entries, nil
}

// addLayer adds what the layers above it have not, and notes what it has.
func addLayer(entries []fsmod.Dirent, seen map[string]bool, dir int, ours bool, hidden []string) ([]fsmod.Dirent, error) {
	some, err := readLayer(dir, ours)
	if err != nil {
		return nil, err
	}
	for _, e := range some {
		if seen[e.Name] || slices.Contains(hidden, e.Name) {
			continue
		}
		seen[e.Name] = true
		if e.Type == unix.DT_CHR || e.Type == unix.DT_UNKNOWN {
			var st unix.Stat_t
			if unix.Fstatat(dir, e.Name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || whiteout(&st) {
				continue
			}
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// hiddenIn are the last names of what is hidden in a directory.
func (l *layer) hiddenIn(dir string) (names []string) {
	for _, h := range l.hidden {
		if above(h) == dir {
			names = append(names, lastName(h))
		}
	}
	return names
}

// empty reports whether a directory shows no names.
func (b *branch) empty(name string, n *node) (bool, error) {
	var entries []fsmod.Dirent
	err := b.owner.do(func() (err error) {
		entries, err = b.merge(name, n)
		return err
	})
	return len(entries) == 0, err
}

func lastName(name string) string {
	if up := above(name); up != "" {
		return name[len(up)+1:]
	}
	return name
}

// readLayer lists a directory by its O_PATH descriptor. One that is ours is read even if
// its mode does not let us: who asks has been judged.
func readLayer(dir int, ours bool) ([]fsmod.Dirent, error) {
	fd, err := openBelow(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err == unix.EACCES && ours {
		var st unix.Stat_t
		if err = unix.Fstat(dir, &st); err == nil {
			err = writable(dir, &st, func() (err error) {
				fd, err = openBelow(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
				return err
			})
		}
	}
	if err != nil {
		return nil, err
	}
	defer closeAll(fd)
	return readDir(fd)
}

// readDir lists a directory from where its descriptor is.
func readDir(fd int) ([]fsmod.Dirent, error) {
	var entries []fsmod.Dirent
	buf := make([]byte, 32<<10)
	for {
		n, err := unix.Getdents(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return entries, err
		}
		for b := buf[:n]; len(b) >= 19; { // struct linux_dirent64: getdents(2)
			size := int(binary.NativeEndian.Uint16(b[16:]))
			name := b[19:size]
			if i := bytes.IndexByte(name, 0); i >= 0 {
				name = name[:i]
			}
			if s := string(name); s != "." && s != ".." {
				entries = append(entries, fsmod.Dirent{Name: s, Ino: binary.NativeEndian.Uint64(b), Type: b[18]})
			}
			b = b[size:]
		}
	}
}
