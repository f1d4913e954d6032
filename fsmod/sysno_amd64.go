// SPDX-License-Identifier: Apache-2.0

// Calls that only some machines have.

package fsmod

import "golang.org/x/sys/unix"

const sysOpen = unix.SYS_OPEN
