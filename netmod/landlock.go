// SPDX-License-Identifier: Apache-2.0

// Sandboxes that programs put themselves into: what of landlock(7) does not hold here.

package netmod

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// The kernel applies a domain's rules about TCP ports (ABI 4, Linux 6.7) in bind(2) and
// connect(2) of its own TCP sockets. Sockets of a userspace stack are none, and a kernel
// stack's are bound in the program's place. A program that asked for such rules would be told
// that it has them, and have none. So here is the version before: who takes what there is
// (landlock(7), "best-effort security") does without, and who insists gets the error that
// it gets from that version. Rules about files, and the scopes, are the kernel's, and hold.

// landlockABI is the last version of Landlock that has no rules about the network.
const landlockABI = 3

// Offsets in struct landlock_ruleset_attr (linux/landlock.h), whose three words are the file
// rights, the network's, and the scopes. Version 3 has the first.
const (
	rulesetNet   = 8
	rulesetScope = 16
)

func (m *Module) landlockRules() intercept.Rules {
	return intercept.Rules{
		on(unix.SYS_LANDLOCK_CREATE_RULESET, m.handleCreateRuleset),
		compat(unix.SYS_LANDLOCK_CREATE_RULESET, m.handleCreateRuleset), // one number since Linux 5.13
	}
}

// handleCreateRuleset answers landlock_create_ruleset(2) where it asks for the version, or for
// rights over the network.
func (m *Module) handleCreateRuleset(c *intercept.Call) intercept.Action {
	attr, size, flags := intercept.Addr(c.Args[0]), c.Args[1], uint32(c.Args[2])
	if flags == unix.LANDLOCK_CREATE_RULESET_VERSION && attr == 0 && size == 0 {
		abi, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
		if errno != 0 {
			return intercept.Fail(errno)
		}
		return intercept.Return(min(int64(abi), landlockABI))
	}
	if flags != 0 || size <= rulesetNet {
		return intercept.Next()
	}
	// Whether another thread changes it meanwhile is the program's affair: it is its sandbox.
	var net [rulesetScope - rulesetNet]byte
	if err := c.ReadMem(attr+rulesetNet, net[:min(size, rulesetScope)-rulesetNet]); err != nil {
		return intercept.Fail(intercept.Errno(err))
	}
	if binary.NativeEndian.Uint64(net[:]) != 0 {
		return intercept.Fail(unix.E2BIG)
	}
	return intercept.Next()
}
