// SPDX-License-Identifier: Apache-2.0

// Changes of the mounts while the target runs.

package fsmod

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Errors of [Module.Mount].
var (
	// ErrUnarmed says that the target's path calls do not trap: it was started without
	// mounts, and a filter stays as it was installed.
	ErrUnarmed = errors.New("path calls are not trapped")
	// ErrUnlisted says that getdents(2) does not trap, without which no tree that merges
	// directories can be shown.
	ErrUnlisted = errors.New("the listing of directories is not trapped")

	errTooMany = fmt.Errorf("%d mounts are there, or were and are in use: %w", maxTag, unix.ENOSPC)
)

// enterCall returns the module as it is now, for a call that is about to be answered, and
// keeps its trees open until using is unlocked.
func (m *Module) enterCall() *Module {
	for {
		now := m.now.Load()
		now.using.RLock()
		if m.now.Load() == now {
			return now
		}
		now.using.RUnlock() // its trees may be closed already
	}
}

// Now calls f with the mounts that the view has, in the order in which they were made. The
// trees are the module's, which closes none of them before f has returned; f changes no
// mounts.
func (m *Module) Now(f func(mounts []Mounted) error) error {
	m = m.enterCall()
	defer m.using.RUnlock()
	var all []Mounted
	if m.table != nil {
		for _, r := range m.table.rows {
			if r.glued {
				continue
			}
			all = append(all, Mounted{Mount: r.Mount, FS: r.fs, Alias: r.alias})
		}
	}
	return f(all)
}

// Mount adds a mount, which covers what has been there. The tree is the module's to
// close from then on, but not if there is an error.
func (m *Module) Mount(mt Mounted) error {
	return m.alter(func(t *table) (*table, error) {
		row := t.newRow(mt)
		if row.dir == nil && row.Kind != Image && !m.listing {
			return nil, ErrUnlisted
		}
		return t.placing(row, mt.Over)
	})
}

// Unmount removes the topmost mount at a path of the view. Without lazy that, and what
// is mounted in it, must not be in use (EBUSY); with lazy everything in it goes too, and
// who has something of it open, or is there, keeps that. EINVAL: there is none.
func (m *Module) Unmount(target string, lazy bool) error {
	at := strings.TrimSuffix(target, "/")
	return m.unmount(func(t *table) int {
		top := -1
		for i, r := range t.rows {
			if r.at == at {
				top = i
			}
		}
		if top >= 0 && slices.ContainsFunc(t.rows[top+1:], func(later *mount) bool { return later.at != at && covers(later.at, at) }) {
			return -1
		}
		return top
	}, lazy, false)
}

// unmount removes the row whose index which returns; -1: none. The target, of whom the call
// is or is not, removes nothing with it that others have mounted there (EPERM).
func (m *Module) unmount(which func(*table) int, lazy, target bool) error {
	return m.alter(func(t *table) (*table, error) {
		i := which(t)
		if i < 0 {
			return nil, unix.EINVAL
		}
		row := t.rows[i]
		in := func(r *mount) bool { return r == row || covers(row.at, r.at) && slices.Index(t.rows, r) > i }
		if !lazy {
			if slices.ContainsFunc(t.rows[i+1:], in) {
				return nil, fmt.Errorf("something is mounted in it: %w", unix.EBUSY)
			}
			if user := m.userOf(t, row); user != "" {
				return nil, fmt.Errorf("%s: %w", user, unix.EBUSY)
			}
		}
		if target && slices.ContainsFunc(t.rows[i+1:], func(r *mount) bool { return in(r) && !r.made && !r.copied }) {
			return nil, fmt.Errorf("others have mounted in it: %w", unix.EPERM)
		}
		t = t.without(in)
		for _, r := range t.rows { // glue that holds nothing any more
			if r.glued && !slices.ContainsFunc(t.rows, func(o *mount) bool { return o != r && covers(r.at, o.at) }) {
				return t.without(func(o *mount) bool { return o == r }), nil
			}
		}
		return t, nil
	})
}

// alter makes f's table that of calls from now on, and lets go of removed mounts.
// The caller is in no call of enterCall's.
func (m *Module) alter(f func(*table) (*table, error)) error {
	m.changing.Lock()
	defer m.changing.Unlock()
	m.mu.Lock()
	closed := m.closed
	m.mu.Unlock()
	t := m.now.Load().table
	switch {
	case closed:
		return os.ErrClosed
	case t == nil:
		return ErrUnarmed
	}
	t, err := f(m.sweep(t))
	if err != nil {
		return err
	}
	m.replace(t)
	m.sweep(t)
	return nil
}

// replace makes t the table, and waits for the calls that began with the one before: while
// they are in the trees they wait for nothing but a file system that does not answer.
func (m *Module) replace(t *table) {
	old := m.now.Swap(&Module{state: m.state, table: t})
	old.using.Lock()
	defer old.using.Unlock()
	m.where.dropAll() // which may hold a tree that is about to go
}

// without is the table with rows removed: they keep their tags until a sweep finds them
// unused. What others than the target have mounted goes on covering what it covers for those who
// are in what goes with it, as a mount that the kernel has locked does (fs/namespace.c:disconnect_mount).
func (t *table) without(goes func(*mount) bool) *table {
	rows, gone, tagged := []*mount(nil), slices.Clone(t.gone), slices.Clone(t.tagged)
	ats := make(map[*mount]string) // of what goes
	for i, r := range t.rows {
		if !goes(r) {
			rows = append(rows, r)
			continue
		}
		d := *r
		d.at = detachedAt(r.tag)
		for k := i - 1; k >= 0 && !r.made; k-- {
			if up := t.rows[k]; covers(up.at, r.at) {
				if at, ok := ats[up]; ok && up.at != r.at {
					d.at = at + r.at[len(up.at):]
				}
				break
			}
		}
		ats[r] = d.at
		gone = append(gone, &d)
		tagged[r.tag-1] = &d
	}
	return t.of(rows, gone, tagged)
}

// sweep closes removed mounts that nobody uses, and returns the table without them.
func (m *Module) sweep(t *table) *table {
	used := slices.DeleteFunc(slices.Clone(t.gone), func(r *mount) bool { return m.userOf(t, r) == "" })
	var unused []*mount
	for _, r := range t.gone {
		// What was in it, or over it, may show what it has, and what it is still in what it covers.
		if !slices.ContainsFunc(used, func(o *mount) bool { return covers(r.place(), o.place()) || covers(o.at, r.at) }) {
			unused = append(unused, r)
		}
	}
	if len(unused) == 0 {
		return t
	}
	tagged := slices.Clone(t.tagged)
	for _, r := range unused {
		tagged[r.tag-1] = nil
	}
	gone := slices.DeleteFunc(slices.Clone(t.gone), func(r *mount) bool { return slices.Contains(unused, r) })
	t = t.of(t.rows, gone, tagged)
	t.forget(unused)
	m.replace(t)
	for _, r := range unused {
		if err := r.tree.release(); err != nil {
			m.log.Warn("a mount that was removed", "mount", r.String(), "err", err)
		}
	}
	return t
}

// forget forgets who went where by mounts whose tags are free again.
func (t *table) forget(rows []*mount) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, tag := range t.dirs {
		if slices.ContainsFunc(rows, func(r *mount) bool { return r.tag == tag }) {
			delete(t.dirs, id)
		}
	}
}

// The place of a mount that was removed has no path in the view. What is in it is named
// with a NUL and its tag in front, or that of the one that it went with, which no path of a
// program can begin with.
const detachedMark = "\x00"

func detachedAt(tag int) string { return detachedMark + string(rune('0'+tag)) }

// place is where m is, or was.
func (m *mount) place() string { return strings.TrimSuffix(m.Target, "/") }

func (m *mount) detached() bool { return strings.HasPrefix(m.at, detachedMark) }

// isDetachedRoot reports whether a place is the root of a removed mount, above which there
// is nothing.
func isDetachedRoot(view string) bool {
	return strings.HasPrefix(view, detachedMark) && strings.IndexByte(view, '/') < 0
}

// detachedName is what the kernel says of such a place (fs/d_path.c).
func detachedName(view string) string {
	if i := strings.IndexByte(view, '/'); i >= 0 {
		return view[i:]
	}
	return "/"
}
