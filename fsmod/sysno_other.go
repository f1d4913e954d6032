// SPDX-License-Identifier: Apache-2.0

//go:build !amd64

// Calls that only some machines have.

package fsmod

// sysOpen is negative where open(2) is openat(2).
const sysOpen = -1
