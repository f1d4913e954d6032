// SPDX-License-Identifier: Apache-2.0

// The mount table: which tree a path of the view is in.

package fsmod

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// A Mounted is a mount with the tree that serves it. The module closes the tree.
type Mounted struct {
	Mount
	FS FS
	// Alias says that what FS shows has other names in the view too, as what a bind
	// shows has.
	Alias bool
}

// A Namer is an [FS] that can tell which of its objects a path of the host is, as
// /proc names an open file. Trees that hand out files of real directories have it;
// without it the module knows directories by having opened them.
type Namer interface {
	// Name returns the name in the tree of the host's path.
	Name(host string) (name string, ok bool)
}

// A FileLinker is an [FS] that can give a name to a file of its own that has none, as
// O_TMPFILE makes it.
type FileLinker interface {
	LinkFile(fd int, to string) error
}

// A mount is one row of the table. All fields are set once.
type mount struct {
	Mount
	fs    FS
	at    string // Target without the slash at its end: "" for "/"
	tag   int    // what descriptors of it are marked with, see tag.go; 0: the host's
	dir   *dirFS // fs, if it is one
	namer Namer  // fs, if it is one
	alias bool   // see [Mounted]
}

// below is the view's path of a name in the mount.
func (m *mount) below(name string) string {
	if name == "" {
		return m.at
	}
	return m.at + "/" + name
}

// stat looks at a name in the mount, and follows no link.
func (m *mount) stat(name string) (st unix.Stat_t, err error) {
	fd, err := m.fs.Open(name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return st, err
	}
	defer unix.Close(fd)
	err = unix.Fstat(fd, &st)
	return st, err
}

// A table holds the mounts of a view, the host's tree among them.
type table struct {
	host   *mount   // the tree of the host, at ""
	mounts []*mount // the longest target first, host last
	tagged []*mount // by tag-1
	alias  bool     // some have alias

	// parents are the directories of the host on the way to a target. None of them may be
	// moved: what is covered would come to light under another name.
	parents map[inode]bool

	chrooted atomic.Bool // some task has another root than we have
	within   atomic.Bool // the last working directory that was asked for is one of a mount

	lists listings

	mu   sync.Mutex
	dirs map[inode]int    // tags of directories that tasks went into. Guarded by mu
	exes map[inode]string // view's paths of programs that run. Guarded by mu

	socks map[string]string // names of bound sockets, by those that the kernel has. Guarded by mu
}

// An inode is the identity of a file.
type inode struct{ dev, ino uint64 }

func inodeOf(st *unix.Stat_t) inode { return inode{st.Dev, st.Ino} }

// newTable makes a table, which closes the trees.
func newTable(mounts []Mounted) (*table, error) {
	t := &table{parents: make(map[inode]bool), dirs: make(map[inode]int), exes: make(map[inode]string), socks: make(map[string]string)}
	t.lists.m = make(map[listingKey]*listing)
	for i, mt := range mounts {
		if i >= maxTag {
			return nil, fmt.Errorf("%d mounts are more than %d: %w", len(mounts), maxTag, unix.E2BIG)
		}
		m := &mount{Mount: mt.Mount, fs: mt.FS, tag: i + 1, alias: mt.Alias || mt.Kind == Bind}
		if real, err := filepath.EvalSymlinks(m.Target); err == nil {
			m.Target = real // paths of the view have no symbolic links
		}
		m.at = strings.TrimSuffix(m.Target, "/")
		if m.Kind == Hide {
			m.ReadOnly = true
		}
		m.dir, _ = mt.FS.(*dirFS)
		m.namer, _ = mt.FS.(Namer)
		// Of two at one place the later one covers.
		t.mounts = slices.DeleteFunc(t.mounts, func(o *mount) bool { return o.at == m.at })
		t.mounts = append(t.mounts, m)
		t.tagged = append(t.tagged, m)
		t.pin(m.at)
		t.alias = t.alias || m.alias
	}
	host, err := openDirFS("/")
	if err != nil {
		return nil, err
	}
	t.host = &mount{fs: host, dir: host}
	if !slices.ContainsFunc(t.mounts, func(m *mount) bool { return m.at == "" }) {
		t.mounts = append(t.mounts, t.host)
	}
	for _, m := range t.tagged {
		t.makePlace(m)
	}
	slices.SortStableFunc(t.mounts, func(a, b *mount) int { return cmp.Compare(len(b.at), len(a.at)) })
	return t, nil
}

// pin adds a path and the directories above it to parents.
func (t *table) pin(path string) {
	for path != "" {
		var st unix.Stat_t
		if unix.Stat(path, &st) == nil {
			t.parents[inodeOf(&st)] = true
		}
		path = path[:strings.LastIndexByte(path, '/')]
	}
}

// makePlace makes the place of a mount that lies in a tmpfs of the view.
func (t *table) makePlace(m *mount) {
	var in *mount
	for _, o := range t.tagged {
		if o != m && o.Kind == Tmpfs && strings.HasPrefix(m.at, o.at+"/") && (in == nil || len(o.at) > len(in.at)) {
			in = o
		}
	}
	if in == nil {
		return
	}
	name := m.at[len(in.at)+1:]
	for i := range name {
		if name[i] == '/' {
			_ = in.fs.Mkdir(name[:i], 0o755) // it may be there
		}
	}
	if st, err := m.stat(""); err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		_ = in.fs.Mkdir(name, 0o755)
	} else {
		_ = in.fs.Mknod(name, unix.S_IFREG|0o644, 0)
	}
}

// lookup finds the mount that a clean path of the view is in, and the name there.
func (t *table) lookup(view string) (*mount, string) {
	for _, m := range t.mounts {
		if len(view) == len(m.at) && view == m.at {
			return m, ""
		}
		if len(view) > len(m.at) && view[len(m.at)] == '/' && view[:len(m.at)] == m.at {
			return m, view[len(m.at)+1:]
		}
	}
	return t.mounts[len(t.mounts)-1], strings.TrimPrefix(view, "/") // not reached: "" is among them
}

// has reports whether a path is a mount's own.
func (t *table) has(view string) bool {
	m, name := t.lookup(view)
	return name == "" && m != t.host
}

// above reports whether a mount lies below a path.
func (t *table) above(view string) bool {
	for _, m := range t.mounts {
		if len(m.at) > len(view) && m.at[len(view)] == '/' && m.at[:len(view)] == view {
			return true
		}
	}
	return false
}

func (t *table) close() (err error) {
	for _, m := range t.tagged {
		if e := m.fs.Close(); e != nil && err == nil {
			err = e
		}
	}
	if t.host != nil {
		_ = t.host.fs.Close()
	}
	return err
}
