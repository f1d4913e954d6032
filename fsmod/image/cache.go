// SPDX-License-Identifier: Apache-2.0

// Caches: of blocks that were decompressed, and of directories that were looked in.

package image

import (
	"container/list"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// A cache keeps what was used last, up to a budget in whatever unit its user counts.
// The zero value with a budget is ready.
type cache[K comparable, V any] struct {
	budget int

	mu    sync.Mutex
	used  int                 // guarded by mu
	order list.List           // of *cached[K, V], the last used first. Guarded by mu
	by    map[K]*list.Element // guarded by mu
}

type cached[K comparable, V any] struct {
	key   K
	value V
	cost  int
}

func (c *cache[K, V]) get(k K) (v V, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.by[k]
	if !ok {
		return v, false
	}
	c.order.MoveToFront(e)
	return e.Value.(*cached[K, V]).value, true
}

func (c *cache[K, V]) put(k K, v V, cost int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.by[k]; ok {
		return // somebody else was as fast
	}
	if c.by == nil {
		c.by = map[K]*list.Element{}
	}
	c.by[k] = c.order.PushFront(&cached[K, V]{k, v, cost})
	c.used += cost
	for c.used > c.budget && c.order.Len() > 1 {
		e := c.order.Back()
		old := c.order.Remove(e).(*cached[K, V])
		delete(c.by, old.key)
		c.used -= old.cost
	}
}

// maxLookup is how many names a Names keeps.
const maxLookup = 1 << 19

// Names finds names in the directories of an FS. It is safe for concurrent use.
type Names struct {
	fsys FS
	dirs cache[ID, *directory]
}

// directory is one that was listed.
type directory struct {
	entries []Entry
	by      map[string]int
	folded  map[string]int // by names in lower case; nil: case matters
}

// NewNames makes one for fsys.
func NewNames(fsys FS) *Names {
	n := &Names{fsys: fsys}
	n.dirs.budget = maxLookup
	return n
}

// ReadDir is the FS's own. The result is not to be changed.
func (n *Names) ReadDir(dir ID) ([]Entry, error) {
	d, err := n.dir(dir)
	if err != nil {
		return nil, err
	}
	return d.entries, nil
}

// Lookup finds a name, or ENOENT.
func (n *Names) Lookup(dir ID, name string) (Entry, error) {
	d, err := n.dir(dir)
	if err != nil {
		return Entry{}, err
	}
	if i, ok := d.by[name]; ok {
		return d.entries[i], nil
	}
	if i, ok := d.folded[strings.ToLower(name)]; ok {
		return d.entries[i], nil
	}
	return Entry{}, unix.ENOENT
}

// caseless is an FS in which case does not matter.
type caseless interface{ caseless() }

func (n *Names) dir(id ID) (*directory, error) {
	if d, ok := n.dirs.get(id); ok {
		return d, nil
	}
	entries, err := n.fsys.ReadDir(id)
	if err != nil {
		return nil, err
	}
	d := &directory{entries: entries, by: make(map[string]int, len(entries))}
	fsys := n.fsys
	if o, ok := fsys.(*owner); ok {
		fsys = o.FS
	}
	if _, ok := fsys.(caseless); ok {
		d.folded = make(map[string]int, len(entries))
	}
	for i, e := range entries {
		d.by[e.Name] = i
		if d.folded != nil {
			d.folded[strings.ToLower(e.Name)] = i
		}
	}
	n.dirs.put(id, d, 1+len(entries))
	return d, nil
}
