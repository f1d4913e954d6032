// SPDX-License-Identifier: Apache-2.0

// The layers of one file system.

package cow

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"umrun/fsmod"
)

// A branch shows directories as one. What changes goes to the upper one; without one,
// everything says EROFS.
type branch struct {
	upper    int     // O_PATH, -1: read-only
	work     int     // O_PATH of copies/
	lowers   []layer // the first is the topmost
	deeper   []low   // the roots of those below that
	volatile bool    // nothing need survive the machine
	owner    creds   // of who opened the branch
	trusted  bool    // trusted.* can be read

	ids     *identities // nil: all is shown as it is
	dev     uint64      // that all is shown with
	foreign bool        // some of what is ours has another

	mu      sync.RWMutex  // see the package's documentation
	peek    sync.Mutex    // see isOpaque
	seq     atomic.Uint64 // of names in copies/
	copies  copies
	errands fsmod.Errands // copies that are made apart, by name
}

func (b *branch) readOnly() bool { return b.upper < 0 }

func (b *branch) close() {
	b.errands.Wait()
	closeAll(b.upper, b.work)
	closeParts([]part{{layers: b.lowers}})
}

// over lays a branch over its lower layers.
func (b *branch) over(lowers []layer) {
	b.lowers = lowers
	for i, l := range lowers[1:] {
		b.deeper = append(b.deeper, low{l.Dir, i + 1})
	}
}

// temp is a new name in copies/.
func (b *branch) temp() string { return strconv.FormatUint(b.seq.Add(1), 36) }

// change runs f with the place of a name, again and again until it says no more that a
// name must be copied up first, see [copyFirst]. b.mu is held, but not while copying.
func (b *branch) change(f func() error) error {
	for {
		b.mu.Lock()
		err := f()
		b.mu.Unlock()
		c, ok := err.(copyFirst)
		if !ok {
			return err
		}
		if err := b.copyUp(context.Background(), string(c), whole); err != nil {
			return err
		}
	}
}

// copyFirst is not an error: a name of the lower layer that has to be copied up before
// what was asked for can be done.
type copyFirst string

func (c copyFirst) Error() string { return string(c) + " is not copied up yet" }

// mayChange says why no name can be made, or removed, in a directory. That of somebody
// else, whose copy has become ours, is judged too.
func (b *branch) mayChange(d *node) error {
	if err := mayLower(d.top(), &d.st, unix.W_OK|unix.X_OK); err != nil {
		return err
	}
	if d.up < 0 || d.low < 0 || b.owner.caps&(1<<unix.CAP_CHOWN) != 0 {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(d.low, &st); err != nil || st.Uid == d.st.Uid {
		return err
	}
	return mayLower(d.low, &st, unix.W_OK)
}

// mayRemove says why what is at p cannot be taken from its directory.
func (b *branch) mayRemove(p *place) error {
	if err := b.mayChange(&p.dir); err != nil {
		return err
	}
	if p.dir.st.Mode&unix.S_ISVTX != 0 && int(p.dir.st.Uid) != current().uid && !owns(&p.st) {
		return unix.EPERM
	}
	return nil
}

// below reports whether the lower layer has something at p which would be shown if the
// upper one had nothing.
func (b *branch) below(p *place, path string) (bool, error) {
	switch {
	case !p.exists():
		return p.white, nil
	case p.up < 0 || p.low >= 0:
		return true, nil
	case p.dir.low < 0:
		return false, nil
	}
	d := p.dir
	d.up = -1
	var n node
	err := b.owner.do(func() (err error) {
		n, err = b.lookup(&d, p.name, path)
		return err
	})
	if err != nil {
		return false, err
	}
	defer b.closeNode(&n)
	return n.exists(), nil
}
