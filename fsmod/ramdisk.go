// SPDX-License-Identifier: Apache-2.0

// Ramdisks: memory that answers as a block device, as far as a descriptor can.

package fsmod

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// sectorSize is that of all disks, bytes.
const sectorSize = 512

// A Disk is a ramdisk, a [Device] with a content that goes with it. Its descriptors are of a
// memory file of a fixed size, so that read, write, mmap and the like are the kernel's;
// the ioctls of block devices are answered by its Rules. It is not dumped to disk, but
// may be swapped, as tmpfs is.
type Disk struct {
	size int64
	file *os.File
	id   inode
	once sync.Once

	mounts atomic.Int32 // of it, see Claim
}

// NewDisk makes one of size bytes, a multiple of 512, which is all zero. Close ends
// it; descriptors that programs have stay good.
func NewDisk(name string, size int64) (*Disk, error) {
	if size <= 0 || size%sectorSize != 0 {
		return nil, fmt.Errorf("a disk of %d bytes, which is no multiple of %d: %w", size, sectorSize, unix.EINVAL)
	}
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("memfd: %w", err)
	}
	r := &Disk{size: size, file: os.NewFile(uintptr(fd), name)}
	var st unix.Stat_t
	err = unix.Ftruncate(fd, size)
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW)
	}
	if err == nil {
		err = unix.Fchmod(fd, 0o660)
	}
	if err == nil {
		err = unix.Fstat(fd, &st)
	}
	if err != nil {
		r.file.Close()
		return nil, fmt.Errorf("a disk of %d bytes: %w", size, err)
	}
	r.id = inodeOf(&st)
	return r, nil
}

// Close gives the memory back when nobody has it open any more. Twice is fine.
func (r *Disk) Close() (err error) {
	r.once.Do(func() { err = r.file.Close() })
	return err
}

// Claim notes that the disk is mounted until mt is gone: who asks for it alone (O_EXCL), as
// what makes file systems does, gets EBUSY until then.
func (r *Disk) Claim(mt *Mounted) {
	r.mounts.Add(1)
	gone := mt.Gone
	mt.Gone = func() (err error) {
		if gone != nil {
			err = gone()
		}
		r.mounts.Add(-1)
		return err
	}
}

// Claimed notes that the disk is mounted until the result is closed.
func (r *Disk) Claimed() io.Closer {
	var mt Mounted
	r.Claim(&mt)
	return claim(mt.Gone)
}

type claim func() error

// Close is [io.Closer].
func (c claim) Close() error { return c() }

// Path is a name of the disk for this process, until it is closed.
func (r *Disk) Path() string { return procFD(int(r.file.Fd())) }

// Open opens the disk. O_TRUNC and O_CREAT mean nothing to a device.
func (r *Disk) Open(flags int) (int, error) {
	if flags&unix.O_EXCL != 0 && r.mounts.Load() > 0 {
		return -1, unix.EBUSY
	}
	const kept = unix.O_ACCMODE | unix.O_APPEND | unix.O_NONBLOCK | unix.O_SYNC | unix.O_DSYNC
	return unix.Open(procFD(int(r.file.Fd())), flags&kept|unix.O_CLOEXEC, 0)
}

// Rules declares the ioctls of block devices, linux/fs.h.
func (r *Disk) Rules() intercept.Rules {
	return intercept.Rules{{
		NR: unix.SYS_IOCTL, Args: []intercept.Arg{intercept.ArgMasked(1, 0xff00, 0x1200)},
		Do: intercept.Notify, Handler: intercept.HandlerFunc(r.handleIoctl),
	}}
}

// Numbers that x/sys does not have on every machine.
const (
	blkBszGet     = 0x80081270
	blkGetSize64  = 0x80081272
	blkDiscard    = 0x1277
	blkIOMin      = 0x1278
	blkIOOpt      = 0x1279
	blkAlignOff   = 0x127a
	blkPbszGet    = 0x127b
	blkDiscZeroes = 0x127c
	blkRotational = 0x127e
	blkZeroOut    = 0x127f
)

func (r *Disk) handleIoctl(c *intercept.Call) intercept.Action {
	fd, err := c.DupFD(int(int32(c.Args[0])))
	if err != nil {
		return intercept.Next() // the kernel has the errno
	}
	defer fd.Close()
	var st unix.Stat_t
	if fd.IsSocket() || unix.Fstat(fd.N, &st) != nil || inodeOf(&st) != r.id {
		return intercept.Next()
	}
	tell := func(b []byte) intercept.Action {
		if err := c.WriteMem(intercept.Addr(c.Args[2]), b); err != nil {
			return intercept.Fail(intercept.Errno(err))
		}
		return intercept.Return(0)
	}
	native := binary.NativeEndian
	switch uint32(c.Args[1]) {
	case blkGetSize64:
		return tell(native.AppendUint64(nil, uint64(r.size)))
	case unix.BLKGETSIZE:
		return tell(native.AppendUint64(nil, uint64(r.size/sectorSize)))
	case unix.BLKSSZGET, blkPbszGet, blkIOMin:
		return tell(native.AppendUint32(nil, sectorSize))
	case blkBszGet:
		return tell(native.AppendUint32(nil, 4096))
	case blkIOOpt, blkAlignOff, blkDiscZeroes, unix.BLKROGET:
		return tell(native.AppendUint32(nil, 0))
	case blkRotational:
		return tell(native.AppendUint16(nil, 0))
	case unix.BLKFLSBUF:
		return intercept.Return(0)
	case blkDiscard, blkZeroOut:
		return r.discard(c, fd.N)
	}
	return intercept.Fail(unix.ENOTTY)
}

// discard zeroes a range, which is given back.
func (r *Disk) discard(c *intercept.Call, fd int) intercept.Action {
	var b [16]byte // start and length, bytes
	if err := c.ReadMem(intercept.Addr(c.Args[2]), b[:]); err != nil {
		return intercept.Fail(intercept.Errno(err))
	}
	start, n := binary.NativeEndian.Uint64(b[:]), binary.NativeEndian.Uint64(b[8:])
	size := uint64(r.size)
	if start%sectorSize != 0 || n%sectorSize != 0 || n == 0 || start >= size || n > size-start {
		return intercept.Fail(unix.EINVAL) // block/ioctl.c:blk_ioctl_discard
	}
	// By the caller's descriptor: it must be open for writing.
	if err := unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(start), int64(n)); err != nil {
		return intercept.Fail(intercept.Errno(err))
	}
	return intercept.Return(0)
}
