// SPDX-License-Identifier: Apache-2.0

// A supervisor that tests can kill.

package intercept

func supervise() {}
