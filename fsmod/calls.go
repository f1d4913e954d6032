// SPDX-License-Identifier: Apache-2.0

// Which calls trap in a view with mounts.

package fsmod

import (
	"slices"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// A pathCall is a row of the table of calls: its numbers at the two entries, negative
// where there is none, and its handler.
type pathCall struct {
	native, i386 int
	do           func(*Module, *intercept.Call) intercept.Action
	args         []intercept.Arg
	apart        bool // see intercept.Rule
}

// Numbers of calls that x/sys/unix does not have on all machines, the same on all.
const (
	sysStatmount     = 457
	sysListmount     = 458
	sysSetxattrat    = 463
	sysGetxattrat    = 464
	sysListxattrat   = 465
	sysRemovexattrat = 466
	sysOpenTreeAttr  = 467
	sysFileGetattr   = 468
	sysFileSetattr   = 469
)

// ioctls of linux/fs.h, fsverity.h, fscrypt.h, msdos_fs.h and btrfs.h, and of fs/ext4/ext4.h, that change a
// file or directory by any descriptor of it, or say what is in one.
const (
	fsIocSetFlags32     = 0x40046602
	fsIocFSSetXattr     = 0x401c5820
	fsIocSetVersion     = 0x40087602
	fsIocSetVersion32   = 0x40047602
	fsIocEnableVerity   = 0x40806685
	fsIocSetEncryption  = 0x800c6613
	ext4IocSetVersion   = 0x40086604
	ext4IocSetVersion32 = 0x40046604
	ext4IocMigrate      = 0x6609
	fatIocSetAttributes = 0x40047211
)

var btrfsIoctls = []uint32{
	0x50009401, 0x50009417, 0x5000940e, 0x50009418, // BTRFS_IOC_SNAP_CREATE, _V2, SUBVOL_CREATE, _V2
	0x5000940f, 0x5000943f, // SNAP_DESTROY, _V2
	0x4008941a, 0xc0c89425, 0xc0c09425, // SUBVOL_SETFLAGS, SET_RECEIVED_SUBVOL, of 32 bits
	0x50009402, 0x40309410, // DEFRAG, DEFRAG_RANGE
	0xd000943d, 0xd000943e, // GET_SUBVOL_ROOTREF, INO_LOOKUP_USER
}

// perfIocSetFilter is PERF_EVENT_IOC_SET_FILTER of linux/perf_event.h, for which a file may be named.
const (
	perfIocSetFilter   = 0x40082406
	perfIocSetFilter32 = 0x40042406
)

// pathCalls are all calls that name a file, and those on descriptors by which a mount
// that takes no changes could be changed.
var pathCalls = slices.Concat(legacyCalls, []pathCall{
	{native: unix.SYS_OPENAT, i386: 295, do: (*Module).doOpenat},
	{native: unix.SYS_OPENAT2, i386: 437, do: (*Module).doOpenat2},
	{native: sysFstatat, i386: 300, do: (*Module).doFstatat},
	{native: unix.SYS_STATX, i386: 383, do: (*Module).doStatx},
	{native: unix.SYS_FACCESSAT, i386: 307, do: (*Module).doFaccessat},
	{native: unix.SYS_FACCESSAT2, i386: 439, do: (*Module).doFaccessat2},
	{native: unix.SYS_READLINKAT, i386: 305, do: (*Module).doReadlinkat},
	{native: unix.SYS_STATFS, i386: 99, do: (*Module).doStatfs},
	{native: -1, i386: 268, do: (*Module).doStatfs64},

	{native: unix.SYS_MKDIRAT, i386: 296, do: (*Module).doMkdirat},
	{native: unix.SYS_MKNODAT, i386: 297, do: (*Module).doMknodat},
	{native: unix.SYS_SYMLINKAT, i386: 304, do: (*Module).doSymlinkat},
	{native: unix.SYS_UNLINKAT, i386: 301, do: (*Module).doUnlinkat},
	{native: unix.SYS_RENAMEAT, i386: 302, do: (*Module).doRenameat},
	{native: unix.SYS_RENAMEAT2, i386: 353, do: (*Module).doRenameat2},
	{native: unix.SYS_LINKAT, i386: 303, do: (*Module).doLinkat},

	{native: unix.SYS_FCHMODAT, i386: 306, do: (*Module).doFchmodat},
	{native: unix.SYS_FCHMODAT2, i386: 452, do: (*Module).doFchmodat2},
	{native: unix.SYS_FCHMOD, i386: 94, do: (*Module).doFchmod},
	{native: unix.SYS_FCHOWNAT, i386: 298, do: (*Module).doFchownat},
	{native: unix.SYS_FCHOWN, i386: 207, do: (*Module).doFchown},
	{native: unix.SYS_UTIMENSAT, i386: 320, do: (*Module).doUtimensat},
	{native: -1, i386: 412, do: (*Module).doUtimensat64},
	{native: unix.SYS_TRUNCATE, i386: 92, do: (*Module).doTruncate},
	{native: -1, i386: 193, do: (*Module).doTruncate64},
	{native: unix.SYS_SETXATTR, i386: 226, do: (*Module).doSetxattr},
	{native: unix.SYS_LSETXATTR, i386: 227, do: (*Module).doLsetxattr},
	{native: unix.SYS_FSETXATTR, i386: 228, do: (*Module).doFsetxattr},
	{native: unix.SYS_GETXATTR, i386: 229, do: (*Module).doGetxattr},
	{native: unix.SYS_LGETXATTR, i386: 230, do: (*Module).doLgetxattr},
	{native: unix.SYS_LISTXATTR, i386: 232, do: (*Module).doListxattr},
	{native: unix.SYS_LLISTXATTR, i386: 233, do: (*Module).doLlistxattr},
	{native: unix.SYS_REMOVEXATTR, i386: 235, do: (*Module).doRemovexattr},
	{native: unix.SYS_LREMOVEXATTR, i386: 236, do: (*Module).doLremovexattr},
	{native: unix.SYS_FREMOVEXATTR, i386: 237, do: (*Module).doFremovexattr},
	{native: unix.SYS_IOCTL, i386: -1, do: (*Module).doSetFlags, args: []intercept.Arg{intercept.ArgEqual32(1, unix.FS_IOC_SETFLAGS)}},
	{native: -1, i386: 54, do: (*Module).doSetFlags, args: []intercept.Arg{intercept.ArgEqual32(1, fsIocSetFlags32)}},
	{native: unix.SYS_IOCTL, i386: 54, do: (*Module).doSetXattrFlags, args: []intercept.Arg{intercept.ArgEqual32(1, fsIocFSSetXattr)}},
	{native: unix.SYS_FCNTL, i386: 55, do: (*Module).doSetSig, args: []intercept.Arg{intercept.ArgEqual32(1, unix.F_SETSIG)}},
	{native: -1, i386: 221, do: (*Module).doSetSig, args: []intercept.Arg{intercept.ArgEqual32(1, unix.F_SETSIG)}},
	{native: unix.SYS_NAME_TO_HANDLE_AT, i386: 341, do: (*Module).doHandle},
	{native: unix.SYS_INOTIFY_ADD_WATCH, i386: 292, do: (*Module).doInotify},

	{native: unix.SYS_CHDIR, i386: 12, do: (*Module).doChdir},
	{native: unix.SYS_FCHDIR, i386: 133, do: (*Module).doFchdir},
	{native: unix.SYS_GETCWD, i386: 183, do: (*Module).doGetcwd},
	{native: unix.SYS_CHROOT, i386: 61, do: (*Module).doChroot},
	{native: unix.SYS_EXECVE, i386: 11, do: (*Module).doExecve},
	{native: unix.SYS_EXECVEAT, i386: 358, do: (*Module).doExecveat},
})

// A noted call is the kernel's, but has consequences for us.
var notedCalls = []pathCall{
	{native: unix.SYS_UMASK, i386: 60, do: (*Module).noteUmask},
	{native: unix.SYS_SETUID, i386: 213, do: noteIDs(1, 32, users)},
	{native: -1, i386: 23, do: noteIDs(1, 16, users)},
	{native: unix.SYS_SETGID, i386: 214, do: noteIDs(1, 32, groups)},
	{native: -1, i386: 46, do: noteIDs(1, 16, groups)},
	{native: unix.SYS_SETREUID, i386: 203, do: noteIDs(2, 32, users)},
	{native: -1, i386: 70, do: noteIDs(2, 16, users)},
	{native: unix.SYS_SETREGID, i386: 204, do: noteIDs(2, 32, groups)},
	{native: -1, i386: 71, do: noteIDs(2, 16, groups)},
	{native: unix.SYS_SETRESUID, i386: 208, do: noteIDs(3, 32, users)},
	{native: -1, i386: 164, do: noteIDs(3, 16, users)},
	{native: unix.SYS_SETRESGID, i386: 210, do: noteIDs(3, 32, groups)},
	{native: -1, i386: 170, do: noteIDs(3, 16, groups)},
	{native: unix.SYS_SETFSUID, i386: 215, do: noteIDs(1, 32, users)},
	{native: -1, i386: 138, do: noteIDs(1, 16, users)},
	{native: unix.SYS_SETFSGID, i386: 216, do: noteIDs(1, 32, groups)},
	{native: -1, i386: 139, do: noteIDs(1, 16, groups)},
	{native: unix.SYS_SETGROUPS, i386: 206, do: (*Module).noteCredentials},
	{native: -1, i386: 81, do: (*Module).noteCredentials},
	{native: unix.SYS_CAPSET, i386: 185, do: (*Module).noteCredentials},
	{native: unix.SYS_UNSHARE, i386: 310, do: (*Module).noteCredentials, args: []intercept.Arg{intercept.ArgMasked(0, unix.CLONE_NEWUSER, unix.CLONE_NEWUSER)}},
	{native: unix.SYS_SETNS, i386: 346, do: (*Module).noteCredentials, args: []intercept.Arg{intercept.ArgMasked(1, unix.CLONE_NEWUSER, unix.CLONE_NEWUSER)}},
	{native: unix.SYS_UNSHARE, i386: 310, do: (*Module).noteNamespace, args: []intercept.Arg{intercept.ArgMasked(0, unix.CLONE_NEWNS, unix.CLONE_NEWNS)}},
	// With the next execve(2) of root's.
	{native: unix.SYS_PRCTL, i386: 172, do: (*Module).noteCredentials, args: []intercept.Arg{intercept.ArgEqual32(0, unix.PR_CAPBSET_DROP)}},
	{native: unix.SYS_PRCTL, i386: 172, do: (*Module).noteCredentials, args: []intercept.Arg{intercept.ArgEqual32(0, unix.PR_SET_SECUREBITS)}},
	{native: unix.SYS_CLONE, i386: 120, do: (*Module).noteCredentials, args: []intercept.Arg{intercept.ArgMasked(0, unix.CLONE_NEWUSER, unix.CLONE_NEWUSER)}},
}

// refusedCalls cannot be had in a view with mounts: they would change what paths mean to
// the kernel, or reach files by other ways than paths.
var refusedCalls = []struct {
	native, i386 int
	errno        unix.Errno
	args         []intercept.Arg
}{
	{unix.SYS_PIVOT_ROOT, 217, unix.EPERM, nil},
	{unix.SYS_OPEN_BY_HANDLE_AT, 342, unix.EPERM, nil},
	{unix.SYS_FANOTIFY_MARK, 339, unix.EPERM, nil},
	{unix.SYS_SWAPON, 87, unix.EPERM, nil},
	{unix.SYS_SWAPOFF, 115, unix.EPERM, nil},
	{unix.SYS_ACCT, 51, unix.EPERM, nil},
	// What is pinned below a bpffs has a path, which the kernel looks up: it tells of any file.
	{unix.SYS_BPF, 357, unix.EPERM, []intercept.Arg{intercept.ArgEqual32(0, unix.BPF_OBJ_PIN)}},
	{unix.SYS_BPF, 357, unix.EPERM, []intercept.Arg{intercept.ArgEqual32(0, unix.BPF_OBJ_GET)}},
	{unix.SYS_QUOTACTL, 131, unix.EPERM, nil},
	{unix.SYS_QUOTACTL_FD, unix.SYS_QUOTACTL_FD, unix.EPERM, nil},
	// Who joins a mount namespace has another root and working directory.
	{unix.SYS_SETNS, 346, unix.EPERM, []intercept.Arg{intercept.ArgMasked(1, unix.CLONE_NEWNS, unix.CLONE_NEWNS)}},
	{unix.SYS_SETNS, 346, unix.EPERM, []intercept.Arg{intercept.ArgEqual32(1, 0)}},
	// A program could not rely on it, since its files are opened by the supervisor.
	{unix.SYS_LANDLOCK_CREATE_RULESET, 444, unix.EOPNOTSUPP, nil},
	// Programs go back to the calls that have been there before, as mount(8) does to mount(2).
	{unix.SYS_OPEN_TREE, 428, unix.ENOSYS, nil},
	{unix.SYS_MOVE_MOUNT, 429, unix.ENOSYS, nil},
	{unix.SYS_FSOPEN, 430, unix.ENOSYS, nil},
	{unix.SYS_FSCONFIG, 431, unix.ENOSYS, nil},
	{unix.SYS_FSMOUNT, 432, unix.ENOSYS, nil},
	{unix.SYS_FSPICK, 433, unix.ENOSYS, nil},
	{unix.SYS_MOUNT_SETATTR, 442, unix.ENOSYS, nil},
	{sysStatmount, sysStatmount, unix.ENOSYS, nil}, // who has /proc/self/mountinfo
	{sysListmount, sysListmount, unix.ENOSYS, nil},
	{sysOpenTreeAttr, sysOpenTreeAttr, unix.ENOSYS, nil},
	{sysSetxattrat, sysSetxattrat, unix.ENOSYS, nil},
	{sysGetxattrat, sysGetxattrat, unix.ENOSYS, nil},
	{sysListxattrat, sysListxattrat, unix.ENOSYS, nil},
	{sysRemovexattrat, sysRemovexattrat, unix.ENOSYS, nil},
	{sysFileGetattr, sysFileGetattr, unix.ENOSYS, nil},
	{sysFileSetattr, sysFileSetattr, unix.ENOSYS, nil},
	{-1, 18, unix.ENOSYS, nil},  // oldstat
	{-1, 84, unix.ENOSYS, nil},  // oldlstat
	{-1, 106, unix.ENOSYS, nil}, // stat, without 64
	{-1, 107, unix.ENOSYS, nil}, // lstat
	{-1, 86, unix.ENOSYS, nil},  // uselib
}

// refusedIoctls change files, also of a mount that takes no changes, by any descriptor, or take a path.
var refusedIoctls = append([]uint32{fsIocSetVersion, fsIocSetVersion32, fsIocEnableVerity, fsIocSetEncryption,
	ext4IocSetVersion, ext4IocSetVersion32, ext4IocMigrate, fatIocSetAttributes, perfIocSetFilter, perfIocSetFilter32}, btrfsIoctls...)

// listCalls are those that list directories, which trap if a mount merges some, or is not there. getdents(2)
// of old is not among them: programs have the new one since Linux 2.4.
var listCalls = []pathCall{
	{native: unix.SYS_GETDENTS64, i386: 220, do: (*Module).doGetdents64},
}

// mountRules are the rules of a view with mounts.
func (m *Module) mountRules() intercept.Rules {
	var rules intercept.Rules
	add := func(pc pathCall, h intercept.HandlerFunc) {
		if pc.native >= 0 {
			rules = append(rules, intercept.Rule{NR: pc.native, Args: pc.args, Do: intercept.Notify, Handler: h, Apart: pc.apart})
		}
		if pc.i386 >= 0 {
			rules = append(rules, intercept.Rule{Arch: intercept.I386, NR: pc.i386, Args: pc.args, Do: intercept.Notify, Handler: h, Apart: pc.apart})
		}
	}
	calls := pathCalls
	if m.listing {
		calls = slices.Concat(calls, listCalls)
	}
	if m.identifying {
		calls = slices.Concat(calls, identifyCalls)
	}
	for _, pc := range calls {
		pc.apart = true
		add(pc, func(c *intercept.Call) intercept.Action {
			c.MayWait()
			m := m.enterCall()
			defer m.using.RUnlock()
			if !m.mixed.Load() {
				return pc.do(m, c)
			}
			return m.as(c, func() intercept.Action { return pc.do(m, c) })
		})
	}
	for _, mc := range []struct {
		native, i386 int
		do           func(*Module, *intercept.Call) (func() error, error)
	}{
		{unix.SYS_MOUNT, 21, (*Module).doMount},
		{unix.SYS_UMOUNT2, 52, (*Module).doUmount},
		{-1, 22, (*Module).doOldUmount},
	} {
		add(pathCall{native: mc.native, i386: mc.i386}, m.mountCall(mc.do))
	}
	for _, pc := range notedCalls {
		pc.apart = true
		add(pc, func(c *intercept.Call) intercept.Action { return pc.do(m, c) })
	}
	rules = append(rules, m.coreRules()...)
	if m.privileged() {
		// Its flags are in memory, and may ask for a user namespace. Programs go back to clone(2).
		for _, arch := range []intercept.Arch{intercept.Native, intercept.I386} {
			rules = append(rules, intercept.Rule{Arch: arch, NR: unix.SYS_CLONE3, Do: intercept.Deny(unix.ENOSYS)})
		}
	}
	for _, r := range refusedCalls {
		if r.native >= 0 {
			rules = append(rules, intercept.Rule{NR: r.native, Args: r.args, Do: intercept.Deny(r.errno)})
		}
		if r.i386 >= 0 {
			rules = append(rules, intercept.Rule{Arch: intercept.I386, NR: r.i386, Args: r.args, Do: intercept.Deny(r.errno)})
		}
	}
	for _, request := range refusedIoctls {
		args := []intercept.Arg{intercept.ArgEqual32(1, request)}
		rules = append(rules,
			intercept.Rule{NR: unix.SYS_IOCTL, Args: args, Do: intercept.Deny(unix.EOPNOTSUPP)},
			intercept.Rule{Arch: intercept.I386, NR: 54, Args: args, Do: intercept.Deny(unix.EOPNOTSUPP)})
	}
	return rules
}
