// SPDX-License-Identifier: Apache-2.0

// What the machine does not allow, and what to do about it.

package kernel

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// An UnavailableError says what of the machine a stack needs and cannot have.
type UnavailableError struct {
	What string // "a user namespace", "a TUN device"
	Err  error
	Mend string // a command, or a sentence; what would help
}

// Error says what cannot be had and why.
func (e *UnavailableError) Error() string {
	return fmt.Sprintf("%s cannot be had here: %v", e.What, e.Err)
}

// Unwrap returns the cause.
func (e *UnavailableError) Unwrap() error { return e.Err }

// number reads a setting of the kernel; "" if there is none.
func number(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// mendUserNS says what lets this user make namespaces.
func mendUserNS(e unix.Errno) string {
	switch {
	case number("/proc/sys/kernel/unprivileged_userns_clone") == "0":
		return "sysctl kernel.unprivileged_userns_clone=1"
	case number("/proc/sys/user/max_user_namespaces") == "0":
		return "sysctl user.max_user_namespaces=15000"
	case number("/proc/sys/user/max_net_namespaces") == "0":
		return "sysctl user.max_net_namespaces=15000"
	case number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
		return "sysctl kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile that allows umrun userns"
	case e == unix.ENOSPC || e == unix.EUSERS:
		return "sysctl user.max_user_namespaces and user.max_net_namespaces: too many are in use"
	case e == unix.EINVAL || e == unix.ENOSYS:
		return "a kernel with CONFIG_USER_NS and CONFIG_NET_NS"
	}
	return "umrun must not run in a chroot, and the container or security module that it runs in must allow clone(2) with CLONE_NEWUSER and CLONE_NEWNET"
}

// mendTUN says what lets this user make TUN devices.
func mendTUN(e unix.Errno) string {
	switch e {
	case unix.ENOENT, unix.ENODEV, unix.ENXIO:
		return "modprobe tun, and the device node: mknod -m 666 " + tunDevice + " c 10 200"
	case unix.EACCES, unix.EPERM:
		if st, err := os.Stat(tunDevice); err == nil && st.Mode().Perm()&0o006 != 0o006 {
			return "chmod 666 " + tunDevice + ", which is safe: without privileges it makes devices in namespaces of one's own only"
		}
		return "the container that umrun runs in must let it use " + tunDevice
	}
	return "see tun(4)"
}

// enterProblem words why a namespace cannot be entered.
func enterProblem(path string, err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return &UnavailableError{What: "the namespace " + path, Err: err,
			Mend: "root, or umrun inside the user namespace that owns it: nsenter --user --preserve-credentials --target PID -- umrun ..."}
	}
	return err
}
