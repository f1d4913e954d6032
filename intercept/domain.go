// SPDX-License-Identifier: Apache-2.0

// The domain: what keeps a target from using other processes of its user.

package intercept

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A process of the same user that is not of the target has other sockets and other files,
// and ptrace(2), process_vm_writev(2), pidfd_getfd(2) and /proc/PID/{mem,fd,cwd,root,ns}
// make them the target's. One check of the kernel is before all of these, and of it a task
// in a Landlock domain may pass for tasks of the same domain and of those made within it,
// and for no others, root included, whatever the domain's rules are about
// (security/landlock/task.c:hook_ptrace_access_check). So the child goes into a domain of
// its own before it becomes the program.
//
// A domain cannot be without rules (ENOMSG). Of the rights that it can take, those over
// files would end mount(2) with them, and those over signals would keep the program from
// kill(2) of processes outside. What is taken is bind(2) of TCP sockets (ABI 4, Linux
// 6.7): of what a program has with a userspace stack nothing is one, and a kernel stack's
// are bound by package netmod, in the program's place.
//
// The supervisor is in no domain, and goes on looking at the target.

// domainABI is the version of Landlock that has LANDLOCK_ACCESS_NET_BIND_TCP.
const domainABI = 4

// HasDomains reports whether the kernel has the domains that targets are put into, in
// which it refuses bind(2) of TCP sockets (EACCES).
func HasDomains() bool {
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	return errno == 0 && abi >= domainABI
}

// EnterDomain puts the calling thread, which can gain no privileges any more (PR_SET_NO_NEW_PRIVS)
// or has CAP_SYS_ADMIN, into a new domain, with all that it becomes and starts.
func EnterDomain() error {
	attr := unix.LandlockRulesetAttr{Handled_access_net: unix.LANDLOCK_ACCESS_NET_BIND_TCP}
	// Before 6.12 there are the first two words; before 6.7 the first alone (E2BIG).
	const size = unsafe.Offsetof(attr.Scoped)
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), size, 0)
	if errno != 0 {
		return fmt.Errorf("landlock_create_ruleset: %w", errno)
	}
	defer unix.Close(int(fd))
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); errno != 0 {
		return fmt.Errorf("landlock_restrict_self: %w", errno)
	}
	return nil
}
