// SPDX-License-Identifier: Apache-2.0

// Copying the data of a file, and not its holes.

package cow

import (
	"context"

	"golang.org/x/sys/unix"
)

// copyFile copies the data of low, an O_PATH descriptor of a regular file, to to. It ends
// with EINTR when ctx is done.
func copyFile(ctx context.Context, to, low int, size int64) error {
	from, err := reopen(low, unix.O_RDONLY|unix.O_NOATIME)
	if err == unix.EPERM { // O_NOATIME is for the owner
		from, err = reopen(low, unix.O_RDONLY)
	}
	if err != nil {
		return err
	}
	defer closeAll(from)
	if unix.IoctlFileClone(to, from) == nil {
		return nil
	}
	if err := unix.Ftruncate(to, size); err != nil {
		return err
	}
	for off := int64(0); off < size; {
		data, hole := off, size
		switch at, err := unix.Seek(from, off, unix.SEEK_DATA); err {
		case nil:
			data = at
			if at, err = unix.Seek(from, data, unix.SEEK_HOLE); err == nil {
				hole = at
			}
		case unix.ENXIO:
			return nil // a hole to the end
		}
		if hole = min(hole, size); data < hole {
			if err := copyRange(ctx, to, from, data, hole); err != nil {
				return err
			}
		}
		off = max(hole, off+1)
	}
	return nil
}

// atOnce is how much one call copies, so that signals and other goroutines get their turn.
const atOnce = 4 << 20

// copyRange copies bytes [off, end): in the kernel if the two file systems can.
func copyRange(ctx context.Context, to, from int, off, end int64) error {
	for off < end {
		if ctx.Err() != nil {
			return unix.EINTR
		}
		r, w := off, off
		n, err := unix.CopyFileRange(from, &r, to, &w, int(min(end-off, atOnce)), 0)
		switch {
		case err == unix.EINTR:
		case err == nil && n > 0:
			off += int64(n)
		case err == nil, err == unix.EXDEV, err == unix.ENOSYS, err == unix.EOPNOTSUPP, err == unix.EINVAL:
			return copyBytes(ctx, to, from, off, end)
		default:
			return err
		}
	}
	return nil
}

// copyBytes copies through our memory.
func copyBytes(ctx context.Context, to, from int, off, end int64) error {
	buf := make([]byte, min(1<<20, end-off))
	for off < end {
		if ctx.Err() != nil {
			return unix.EINTR
		}
		n, err := unix.Pread(from, buf[:min(int64(len(buf)), end-off)], off)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 { // 0: somebody has cut it
			return err
		}
		for b := buf[:n]; len(b) > 0; {
			m, err := unix.Pwrite(to, b, off)
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				return err
			}
			off += int64(m)
			b = b[m:]
		}
	}
	return nil
}
