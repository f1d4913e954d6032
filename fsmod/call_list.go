// SPDX-License-Identifier: Apache-2.0

// getdents64(2) of directories that no single directory of the host has together, or in
// which something is mounted that is not there.

package fsmod

import (
	"encoding/binary"
	"sync"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// A listing is what a merged directory held when it was begun to be read. It belongs to the
// open file description, whose position counts the entries that were read; so
// rewinddir, seekdir and dup do what they do.
type listing struct {
	entries []Dirent
}

// listings are those that are being read, by the descriptions' directory and mount. Two
// descriptions of one directory share the newer one, where an entry may then come twice
// or not at all if it was made or removed meanwhile, as POSIX allows.
type listings struct {
	mu sync.Mutex
	m  map[listingKey]*listing // guarded by mu

	reading sync.Mutex // held from where a description's position is asked for to where it is set
}

type listingKey struct {
	m  *mount
	id inode
}

// doGetdents64 lists such directories, and leaves all others to the kernel.
func (m *Module) doGetdents64(c *intercept.Call) intercept.Action {
	d, err := c.DupFD(int(int32(c.Args[0])))
	if err != nil {
		return fail(err)
	}
	defer d.Close()
	if d.Mode != unix.S_IFDIR {
		return intercept.Continue()
	}
	mt := m.table.tagOf(d.N)
	if mt == nil {
		mt = m.table.host
	}
	var st unix.Stat_t
	if err := unix.Fstat(d.N, &st); err != nil {
		return fail(err)
	}
	if (mt.dir != nil || mt.namer == nil) && m.table.absent[listingKey{mt, inodeOf(&st)}] == nil {
		return intercept.Continue()
	}
	at, err := unix.Seek(d.N, 0, unix.SEEK_CUR)
	if err != nil {
		return fail(err)
	}
	l, err := m.list(mt, d.N, &st, at == 0)
	if err != nil {
		return fail(err)
	}
	if l == nil {
		return intercept.Continue()
	}
	at, next, buf, err := m.table.lists.take(l, d.N, min(int(uint32(c.Args[2])), 1<<16))
	if err != nil {
		return fail(err)
	}
	if len(buf) == 0 {
		return intercept.Return(0)
	}
	if err := c.WriteMem(intercept.Addr(c.Args[1]), buf); err != nil {
		m.table.lists.putBack(d.N, at, next)
		return fail(err)
	}
	return intercept.Return(int64(len(buf)))
}

// take reads up to size bytes of entries at the position of a description, which goes from at to
// next: of two who read the same one each gets other entries (fs/readdir.c:iterate_dir).
func (ls *listings) take(l *listing, fd, size int) (at, next int64, buf []byte, err error) {
	ls.reading.Lock()
	defer ls.reading.Unlock()
	if at, err = unix.Seek(fd, 0, unix.SEEK_CUR); err != nil {
		return 0, 0, nil, err
	}
	buf = make([]byte, 0, size)
	for next = at; next < int64(len(l.entries)); {
		e := &l.entries[next]
		n := (19 + len(e.Name) + 1 + 7) &^ 7 // struct linux_dirent64
		if len(buf)+n > size {
			break
		}
		next++
		b := buf[len(buf) : len(buf)+n]
		clear(b)
		binary.NativeEndian.PutUint64(b, e.Ino)
		binary.NativeEndian.PutUint64(b[8:], uint64(next))
		binary.NativeEndian.PutUint16(b[16:], uint16(n))
		b[18] = e.Type
		copy(b[19:], e.Name)
		buf = buf[:len(buf)+n]
	}
	switch {
	case len(buf) > 0:
		_, err = unix.Seek(fd, next, unix.SEEK_SET)
	case at < int64(len(l.entries)):
		err = unix.EINVAL
	}
	return at, next, buf, err
}

// putBack takes back what take did, unless another has read on.
func (ls *listings) putBack(fd int, at, next int64) {
	ls.reading.Lock()
	defer ls.reading.Unlock()
	if now, err := unix.Seek(fd, 0, unix.SEEK_CUR); err == nil && now == next {
		_, _ = unix.Seek(fd, at, unix.SEEK_SET)
	}
}

// list returns the listing of an open directory, a new one if it is read from its
// beginning; nil: the kernel's own is right.
func (m *Module) list(mt *mount, fd int, st *unix.Stat_t, begin bool) (*listing, error) {
	ls := &m.table.lists
	key := listingKey{mt, inodeOf(st)}
	ls.mu.Lock()
	l := ls.m[key]
	ls.mu.Unlock()
	if l != nil && !begin {
		return l, nil
	}
	host, err := nameOfFD(fd)
	if err != nil {
		return nil, err
	}
	name, ok := "", mt == m.table.host
	if !ok {
		if name, ok = mt.namer.Name(host); !ok {
			return nil, nil
		}
	}
	entries, merged, err := mt.fs.List(name)
	absent := m.table.absent[key]
	if err == nil && !merged && len(absent) > 0 {
		merged = true
		entries, err = readDir(fd)
	}
	if err != nil || !merged {
		return nil, err
	}
	entries = append(entries, dirents(absent, entries)...)
	self, up := *st, *st
	_ = unix.Fstatat(fd, "..", &up, 0)
	m.identify(&self)
	m.identify(&up)
	l = &listing{append([]Dirent{{".", self.Ino, unix.DT_DIR}, {"..", up.Ino, unix.DT_DIR}}, entries...)}
	ls.mu.Lock()
	defer ls.mu.Unlock()
	const enough = 256
	if len(ls.m) >= enough {
		clear(ls.m) // who reads one of them gets a new listing at its place
	}
	ls.m[key] = l
	return l, nil
}
