// SPDX-License-Identifier: Apache-2.0

// The mount table: which tree a path of the view is in.

package fsmod

import (
	"cmp"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// A Mounted is a mount with the tree that serves it. The module closes the tree, and
// then calls Gone, which may be nil.
type Mounted struct {
	Mount
	FS   FS
	Gone func() error
	// Alias says that what FS shows has other names in the view too, as what a bind
	// shows has.
	Alias bool
	// Over are those of other mounts that FS shows something of: they are closed after it.
	Over []FS
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
	at    string // Target without the slash at its end: "" for "/". Of one that was removed: see detachedAt
	tag   int    // what descriptors of it are marked with, see tag.go; 0: the host's
	dir   *dirFS // fs, if it is one
	namer Namer  // fs, if it is one
	alias bool   // see [Mounted]
	tree  *tree  // what is closed with it

	made   bool   // by the target, by mount(2)
	flags  uint64 // of msKept, as that has them
	copied bool   // into a bind of the target's, with what it is in; made is the original's
	glued  bool   // a directory that is missing, see [table.glue]
	sealed bool   // read-only for good
	of     *mount // what it is a part of, until it is in a table
}

// A tree counts the rows that show an FS.
type tree struct {
	fs    FS
	gone  func() error // may be nil
	under []*tree      // what fs shows something of
	rows  int          // and trees that show something of it; guarded by state.changing
}

// over notes that a tree shows something of another one.
func (tr *tree) over(under *tree) {
	tr.under = append(tr.under, under)
	under.rows++
}

// release is to be called for each row that goes.
func (tr *tree) release() error {
	if tr.rows--; tr.rows > 0 {
		return nil
	}
	err := tr.fs.Close()
	if tr.gone != nil {
		err = errors.Join(err, tr.gone())
	}
	for _, u := range tr.under {
		err = errors.Join(err, u.release())
	}
	return err
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

// A table holds the mounts of a view, the host's tree among them, as they are at one
// moment: no field changes, and what lasts is in seen.
type table struct {
	host   *mount   // the tree of the host, at ""
	rows   []*mount // in the order in which they were made
	gone   []*mount // removed ones that may be in use
	mounts []*mount // what paths are looked up in: the longest target first, host last
	tagged []*mount // by tag-1; nil: free
	alias  bool     // some have alias

	// parents are the directories of the host on the way to a target. None of them may be
	// moved: what is covered would come to light under another name.
	parents map[inode]bool

	absent map[listingKey][]*mount // by the directories that they would be in

	identifiers []Identifier // of rows, and of those in gone

	*seen
}

// seen is what was seen of the tasks.
type seen struct {
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

// newTable makes a table, whose rows get the trees.
func newTable(mounts []Mounted) (*table, error) {
	host, err := openDirFS("/")
	if err != nil {
		return nil, err
	}
	t := &table{seen: &seen{dirs: make(map[inode]int), exes: make(map[inode]string), socks: make(map[string]string)}}
	t.lists.m = make(map[listingKey]*listing)
	t.host = &mount{fs: host, dir: host}
	t = t.of(nil, nil, nil)
	for _, mt := range mounts {
		n, err := t.placing(t.newRow(mt), mt.Over)
		if err != nil {
			for _, r := range t.rows {
				if r.glued {
					_ = r.fs.Close()
				}
			}
			_ = host.Close()
			return nil, err
		}
		t = n
	}
	return t, nil
}

// placing is with, with a place made for the row.
func (t *table) placing(row *mount, over []FS) (*table, error) {
	under := make([]*tree, len(over))
	for i, fs := range over {
		k := slices.IndexFunc(t.rows, func(r *mount) bool { return r.fs == fs })
		if k < 0 {
			return t, unix.ENOENT // it has gone meanwhile
		}
		under[i] = t.rows[k].tree
	}
	n, err := t.placed(row)
	if err != nil {
		return n, err
	}
	for _, u := range under {
		row.tree.over(u)
	}
	return n, nil
}

func (t *table) placed(row *mount) (*table, error) {
	t.makePlace(row)
	missing, err := t.glue(row)
	if err != nil {
		return t, err
	}
	if missing != nil {
		n, err := t.with(missing)
		if err != nil {
			return t, errors.Join(err, missing.fs.Close())
		}
		t = n
		t.makePlace(row)
	}
	n, err := t.with(row)
	if err != nil && missing != nil {
		err = errors.Join(err, missing.fs.Close())
	}
	return n, err
}

// newRow makes a row, without a tag.
func (t *table) newRow(mt Mounted) *mount {
	made := make([]Mounted, len(t.rows))
	for i, r := range t.rows {
		made[i] = Mounted{Mount: Mount{Target: r.Target}, FS: r.fs}
	}
	mt.Target = RealPath(made, mt.Target) // paths of the view have no symbolic links
	return rowAt(mt)
}

// rowAt is newRow where the target is a path of the view.
func rowAt(mt Mounted) *mount {
	m := &mount{Mount: mt.Mount, fs: mt.FS, alias: mt.Alias || mt.Kind == Bind, tree: &tree{fs: mt.FS, gone: mt.Gone, rows: 1}}
	if m.Target == "" {
		m.Target = "/"
	}
	m.at = strings.TrimSuffix(m.Target, "/")
	if m.Kind == Hide {
		m.ReadOnly = true
	}
	m.dir, _ = mt.FS.(*dirFS)
	m.namer, _ = mt.FS.(Namer)
	return m
}

// with is the table with one more row, which gets its tag.
func (t *table) with(m *mount) (*table, error) {
	tagged := slices.Clone(t.tagged)
	i := slices.Index(tagged, nil)
	switch {
	case i >= 0:
	case len(tagged) == maxTag:
		return nil, errTooMany
	default:
		i = len(tagged)
		tagged = append(tagged, nil)
	}
	m.tag = i + 1
	tagged[i] = m
	return t.of(append(slices.Clone(t.rows), m), t.gone, tagged), nil
}

// of is the table of other rows, with what was seen of the tasks.
func (t *table) of(rows, gone, tagged []*mount) *table {
	n := &table{host: t.host, rows: rows, gone: gone, tagged: tagged, parents: make(map[inode]bool), seen: t.seen}
	for i, m := range rows {
		n.pin(m.at)
		if !slices.ContainsFunc(rows[i+1:], func(later *mount) bool { return covers(later.at, m.at) }) {
			n.mounts = append(n.mounts, m)
		}
	}
	if !slices.ContainsFunc(n.mounts, func(m *mount) bool { return m.at == "" }) {
		n.mounts = append(n.mounts, n.host)
	}
	n.mounts = append(n.mounts, gone...)
	slices.SortStableFunc(n.mounts, func(a, b *mount) int { return cmp.Compare(len(b.at), len(a.at)) })
	for _, m := range tagged {
		n.alias = n.alias || m != nil && m.alias
	}
	n.identifiers = identifiers(slices.Concat(rows, gone))
	n.findAbsent()
	return n
}

// covers reports whether a path of the view is at or below another.
func covers(at, view string) bool {
	return view == at || strings.HasPrefix(view, at) && view[len(at)] == '/'
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
	for _, o := range t.rows {
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

func (t *table) close() error {
	var errs []error
	for _, m := range slices.Concat(t.rows, t.gone) {
		errs = append(errs, m.tree.release())
	}
	return errors.Join(append(errs, t.host.fs.Close())...)
}
