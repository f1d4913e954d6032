// SPDX-License-Identifier: Apache-2.0

// Unique: numbers of mounts that are given once (Linux 6.8). Those that mountinfo has are given
// anew when a mount has gone.

package nsmount

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// mountRequest is a struct mnt_id_req (linux/mount.h, v6.8).
type mountRequest struct {
	size  uint32
	_     uint32
	id    uint64 // of statmount(2)
	param uint64 // what is asked for; of listmount(2) the last one that was told
}

// mountStatus is the beginning of a struct statmount, and room for its rest.
type mountStatus struct {
	_      [2]uint32
	mask   uint64
	_      [4]uint64
	parent uint64
	old    uint32 // the number that mountinfo has
	_      [512 - 60]byte
}

const (
	listRoot       = ^uint64(0) // LSMT_ROOT
	statMountBasic = 1 << 1     // STATMOUNT_MNT_BASIC
	sysListMount   = 458
)

// uniqueIDs returns those of the namespace that we are in, by the numbers that mountinfo has. It is
// nil where the kernel has none, or does not tell of them.
func uniqueIDs() map[uint64]uint64 {
	all := make(map[uint64]uint64)
	ids := make([]uint64, 256)
	list := mountRequest{id: listRoot}
	for {
		list.size = uint32(unsafe.Sizeof(list))
		n, _, e := unix.Syscall6(sysListMount, uintptr(unsafe.Pointer(&list)), uintptr(unsafe.Pointer(&ids[0])), uintptr(len(ids)), 0, 0, 0)
		if e != 0 {
			return nil
		}
		for _, id := range ids[:n] {
			var st mountStatus
			one := mountRequest{id: id, param: statMountBasic}
			one.size = uint32(unsafe.Sizeof(one))
			_, _, e := unix.Syscall6(unix.SYS_STATMOUNT, uintptr(unsafe.Pointer(&one)), uintptr(unsafe.Pointer(&st)), unsafe.Sizeof(st), 0, 0, 0)
			switch {
			case e == unix.ENOENT: // gone meanwhile
			case e != 0 || st.mask&statMountBasic == 0:
				return nil
			default:
				all[uint64(st.old)] = id
			}
		}
		if int(n) < len(ids) {
			return all
		}
		list.param = ids[n-1]
	}
}
