// SPDX-License-Identifier: Apache-2.0

// What tests look at from outside of the package.

package kernel

// HelperPID returns the process number of a stack's helper.
func HelperPID(s *Stack) int { return s.h.pid }
