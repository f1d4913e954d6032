// SPDX-License-Identifier: Apache-2.0

// Probe: whether this machine allows the engine, tried and not guessed.

package nsmount

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// An UnavailableError says why there is no private mount namespace.
type UnavailableError struct {
	Err  error
	Mend string // a command, or a sentence; what would help
}

// Error says so.
func (e *UnavailableError) Error() string {
	return fmt.Sprintf("a private mount namespace cannot be had here: %v", e.Err)
}

// Unwrap returns the cause.
func (e *UnavailableError) Unwrap() error { return e.Err }

// Probe makes a namespace with a mount in it, and lets it go. The error is an
// [*UnavailableError].
func Probe() error {
	p := Plan{Trial: true}
	ns, err := p.Namespaces()
	if err == nil {
		err = ns.Try()
	}
	if err == nil {
		return nil
	}
	var errno unix.Errno
	errors.As(err, &errno)
	return &UnavailableError{Err: err, Mend: mend(errno)}
}

// Unprivileged reports whether the caller may not mount where it is, and needs a user
// namespace of its own for that.
func Unprivileged() bool {
	var caps [2]unix.CapUserData
	if err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &caps[0]); err != nil {
		return os.Geteuid() != 0
	}
	return caps[0].Effective&(1<<unix.CAP_SYS_ADMIN) == 0
}

// mend says what lets this user have one.
func mend(e unix.Errno) string {
	is := func(file, value string) bool {
		b, err := os.ReadFile("/proc/sys/" + file)
		return err == nil && strings.TrimSpace(string(b)) == value
	}
	switch {
	case !Unprivileged() && e == unix.EINVAL && !rootIsMount():
		return "in a chroot the root directory must be a mount: mount --bind DIR DIR before"
	case !Unprivileged():
		return "the container or security module that umrun runs in must allow mount(2)"
	case is("kernel/unprivileged_userns_clone", "0"):
		return "sysctl kernel.unprivileged_userns_clone=1"
	case is("user/max_user_namespaces", "0"):
		return "sysctl user.max_user_namespaces=15000"
	case is("user/max_mnt_namespaces", "0"):
		return "sysctl user.max_mnt_namespaces=15000"
	case is("kernel/apparmor_restrict_unprivileged_userns", "1"):
		return "sysctl kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile that allows umrun userns"
	case e == unix.ENOSPC || e == unix.EUSERS:
		return "sysctl user.max_user_namespaces and user.max_mnt_namespaces: too many are in use"
	case e == unix.EINVAL || e == unix.ENOSYS:
		return "a kernel with CONFIG_USER_NS"
	}
	return "umrun must not run in a chroot, and the container or security module that it runs in must allow clone(2) with CLONE_NEWUSER and CLONE_NEWNS"
}

// rootIsMount reports whether our root directory is that of a mount.
func rootIsMount() bool {
	fd, err := openPath(unix.AT_FDCWD, "/")
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return isRoot(fd)
}
