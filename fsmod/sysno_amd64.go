// SPDX-License-Identifier: Apache-2.0

// Calls that only some machines have.

package fsmod

import "golang.org/x/sys/unix"

const (
	sysOpen    = unix.SYS_OPEN
	sysFstatat = unix.SYS_NEWFSTATAT
	sysAccess  = unix.SYS_ACCESS
	sysCreat   = unix.SYS_CREAT
)

// legacyCalls are those without a directory descriptor.
var legacyCalls = []pathCall{
	{native: unix.SYS_OPEN, i386: 5, do: (*Module).doOpen},
	{native: unix.SYS_CREAT, i386: 8, do: (*Module).doCreat},
	{native: unix.SYS_STAT, i386: 195, do: (*Module).doStat},
	{native: unix.SYS_LSTAT, i386: 196, do: (*Module).doLstat},
	{native: unix.SYS_ACCESS, i386: 33, do: (*Module).doAccess},
	{native: unix.SYS_READLINK, i386: 85, do: (*Module).doReadlink},
	{native: unix.SYS_MKDIR, i386: 39, do: (*Module).doMkdir},
	{native: unix.SYS_MKNOD, i386: 14, do: (*Module).doMknod},
	{native: unix.SYS_SYMLINK, i386: 83, do: (*Module).doSymlink},
	{native: unix.SYS_UNLINK, i386: 10, do: (*Module).doUnlink},
	{native: unix.SYS_RMDIR, i386: 40, do: (*Module).doRmdir},
	{native: unix.SYS_RENAME, i386: 38, do: (*Module).doRename},
	{native: unix.SYS_LINK, i386: 9, do: (*Module).doLink},
	{native: unix.SYS_CHMOD, i386: 15, do: (*Module).doChmod},
	{native: unix.SYS_CHOWN, i386: 212, do: (*Module).doChown},
	{native: -1, i386: 182, do: (*Module).doChown16},
	{native: unix.SYS_LCHOWN, i386: 198, do: (*Module).doLchown},
	{native: -1, i386: 16, do: (*Module).doLchown16},
	{native: unix.SYS_UTIME, i386: 30, do: (*Module).doUtime},
	{native: unix.SYS_UTIMES, i386: 271, do: (*Module).doUtimes},
	{native: unix.SYS_FUTIMESAT, i386: 299, do: (*Module).doFutimesat},
}
