// SPDX-License-Identifier: Apache-2.0

// Device and inode numbers: a file goes on with those that it had when it is copied, and all of
// one file system shows the device of the lower layer, as find -xdev and its like ask for.

package cow

import (
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"umrun/fsmod"
)

// An identity is what stat(2) tells a file from others by.
type identity struct{ dev, ino uint64 }

func identityOf(st *unix.Stat_t) identity { return identity{st.Dev, st.Ino} }

// identities are those that files of an FS are shown with, by those that the kernel has for
// them. What is not among them is shown as it is. An inode that is used again for another file
// is shown as before, which is its own: a file of the lower layer is copied once. The last of those
// that were removed are kept for who has them open; with the others, and all that are in the
// upper layer, there would be ever more.
type identities struct {
	mu      sync.RWMutex
	m       map[identity]shownAs // guarded by mu
	removed []identity           // the first one first. Guarded by mu
}

// shownAs is what one is shown with.
type shownAs struct {
	identity
	gone bool // it was removed
}

// keptRemoved is how many are kept of those that were removed.
const keptRemoved = 4096

func (ids *identities) get(id identity) (shown shownAs, ok bool) {
	ids.mu.RLock()
	defer ids.mu.RUnlock()
	shown, ok = ids.m[id]
	return shown, ok
}

func (ids *identities) set(id, shown identity) {
	ids.mu.Lock()
	defer ids.mu.Unlock()
	if ids.m == nil {
		ids.m = make(map[identity]shownAs)
	}
	ids.m[id] = shownAs{identity: shown}
}

// remove says that what had id is no more.
func (ids *identities) remove(id identity) {
	ids.mu.Lock()
	defer ids.mu.Unlock()
	shown, ok := ids.m[id]
	if !ok || shown.gone {
		return
	}
	shown.gone = true
	ids.m[id] = shown
	if ids.removed = append(ids.removed, id); len(ids.removed) > keptRemoved {
		if oldest := ids.removed[0]; ids.m[oldest].gone { // else it was used again
			delete(ids.m, oldest)
		}
		ids.removed = ids.removed[1:]
	}
}

// Shown is as [fsmod.Identifier] has it.
func (f *FS) Shown(dev, ino uint64) (uint64, uint64, bool) {
	shown, ok := f.ids.get(identity{dev, ino})
	return shown.dev, shown.ino, ok
}

// uppers are the devices of upper layers that differ from those below them: their places tell
// the inode numbers of one from those of another.
var uppers struct {
	mu   sync.Mutex
	devs []uint64 // guarded by mu
}

// Inode numbers of file systems have fewer bits than this, but for overlays with xino.
const inoBits = 56

// apart is what the inode numbers of a device get when they are shown with another device; 0:
// they would not be told apart.
func apart(dev uint64) uint64 {
	uppers.mu.Lock()
	defer uppers.mu.Unlock()
	i := slices.Index(uppers.devs, dev)
	if i < 0 {
		i = len(uppers.devs)
		uppers.devs = append(uppers.devs, dev)
	}
	if i+1 >= 1<<(63-inoBits) {
		return 0
	}
	return uint64(i+1) << inoBits
}

// identify begins to show the branch's files as those of the lowest layer's device.
func (b *branch) identify(ids *identities) error {
	var st unix.Stat_t
	if err := unix.Fstat(b.lowers[len(b.lowers)-1].Dir, &st); err != nil {
		return err
	}
	root := identityOf(&st)
	b.ids, b.dev = ids, root.dev
	dirs := []int{b.upper}
	for _, l := range b.lowers {
		if l.ours {
			dirs = append(dirs, l.Dir)
		}
	}
	for _, dir := range dirs {
		if err := unix.Fstat(dir, &st); err != nil {
			return err
		}
		ids.set(identityOf(&st), root)
		if st.Dev != b.dev {
			b.foreign = true
		}
	}
	return nil
}

// shown is the identity that a file of ours is shown with, or any other that was copied.
func (b *branch) shown(st *unix.Stat_t, ours bool) identity {
	id := identityOf(st)
	if shown, ok := b.ids.get(id); ok {
		return shown.identity
	}
	if ours && st.Dev != b.dev {
		if more := apart(st.Dev); more != 0 {
			return identity{b.dev, st.Ino | more}
		}
	}
	return id
}

// renumber has the entries of a layer's directory have the inode numbers that stat(2) tells.
func (b *branch) renumber(entries []fsmod.Dirent, dir int, ours bool) {
	var st unix.Stat_t
	if b.ids == nil || !ours || len(entries) == 0 || unix.Fstat(dir, &st) != nil {
		return
	}
	for i := range entries {
		st.Ino = entries[i].Ino
		entries[i].Ino = b.shown(&st, ours).ino
	}
}

// copied is to be called of what is put in the place of a file of the lower layer, before it
// can be seen. One with several names stays itself by the others.
func (b *branch) copied(tmp string, of *unix.Stat_t, layer int) {
	var st unix.Stat_t
	if b.ids == nil || kind(of) != unix.S_IFDIR && of.Nlink > 1 || unix.Fstatat(b.work, tmp, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return
	}
	b.ids.set(identityOf(&st), b.shown(of, b.lowers[layer].ours))
}

// known has what is handed out, a file of ours, be shown with the branch's device.
func (b *branch) known(fd int) {
	var st unix.Stat_t
	if fd < 0 || !b.foreign || unix.Fstat(fd, &st) != nil || st.Dev == b.dev {
		return
	}
	id := identityOf(&st)
	if is, ok := b.ids.get(id); ok && !is.gone {
		return
	}
	if shown := b.shown(&st, true); shown != id {
		b.ids.set(id, shown)
	}
}

// left is to be called of what was removed, or replaced: if it has no other name it is no more.
func (b *branch) left(n *node) {
	var st unix.Stat_t
	if b.ids == nil || n.up < 0 {
		return
	}
	if _, ok := b.ids.get(identityOf(&n.st)); ok && unix.Fstat(n.up, &st) == nil && st.Nlink == 0 {
		b.ids.remove(identityOf(&st))
	}
}

// ours reports whether what is shown is in a layer that is a branch's upper one.
func (b *branch) ours(n *node) bool {
	return n.up >= 0 || n.low >= 0 && b.lowers[n.layer].ours
}
