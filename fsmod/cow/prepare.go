// SPDX-License-Identifier: Apache-2.0

// Copies that take long are made before the call that needs them.

package cow

import (
	"context"
	"slices"

	"golang.org/x/sys/unix"

	"umrun/fsmod"
)

// small is how many bytes are copied without another word, where they need not be synced:
// in about 0.1 ms.
const small = 256 << 10

// Prepare is as [fsmod.Preparer] has it: a file of the lower layer is copied, or filled
// before it is read.
func (f *FS) Prepare(name string, use fsmod.Use, flags int) func(ctx context.Context) error {
	t, name, err := f.on(name)
	b, ok := t.(*branch)
	if err != nil || !ok {
		return nil
	}
	return b.prepare(name, use, flags)
}

func (b *branch) prepare(name string, use fsmod.Use, flags int) func(ctx context.Context) error {
	write := use != fsmod.UseOpen || access(flags)&unix.W_OK != 0
	if !write && !b.fills() {
		return nil
	}
	p, err := b.find(name, true)
	if err != nil {
		return nil
	}
	defer p.close()
	if write && b.readOnly() || p.up >= 0 || !p.exists() || kind(&p.st) != unix.S_IFREG || b.refuses(p, use, flags) {
		return nil
	}
	if !write {
		if p.st.Size <= small {
			return nil
		}
		layer := p.layer
		return b.errands.Begin("read "+name, func(ctx context.Context) error { return b.filledIn(ctx, layer, name, true) })
	}
	if busy := b.errands.Busy("copy " + name); !busy && (p.st.Size == 0 || b.volatile && p.st.Size <= small || use == fsmod.UseOpen && flags&unix.O_TRUNC != 0) {
		return nil
	}
	return b.errands.Begin("copy "+name, func(ctx context.Context) error { return b.copyUp(ctx, name, whole) })
}

// fills reports whether a lower layer gets its content when it is looked at.
func (b *branch) fills() bool {
	return slices.ContainsFunc(b.lowers, func(l layer) bool { return l.Fill != nil })
}

// refuses reports whether a use of the caller's that needs a copy will not be allowed.
func (b *branch) refuses(p *place, use fsmod.Use, flags int) bool {
	switch use {
	case fsmod.UseOpen:
		return mayLower(p.low, &p.st, access(flags)) != nil
	case fsmod.UseOwn:
		return !owns(&p.st) && mayLower(p.low, &p.st, unix.W_OK) != nil
	case fsmod.UseMove:
		return b.mayRemove(p) != nil
	}
	return !mayLink(p)
}
