// SPDX-License-Identifier: Apache-2.0

//go:build !amd64

// Calls that only some machines have.

package fsmod

import "golang.org/x/sys/unix"

const (
	sysOpen    = -1 // open(2) is openat(2)
	sysFstatat = unix.SYS_FSTATAT
	sysAccess  = -1 // access(2) is faccessat(2)
	sysCreat   = -1 // and creat(2) too
)

// legacyCalls are those without a directory descriptor.
var legacyCalls []pathCall
