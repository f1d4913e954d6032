// SPDX-License-Identifier: Apache-2.0

// Core files, which the kernel writes by itself: to a path of the host's.

package fsmod

import (
	"bytes"
	"os"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// A process that dies has its core written to its working directory, or wherever core(5)
// says, as the host has these: into what a copy on write covers, past a mount that takes
// no changes. So there are none; RLIMIT_CORE is 0 from the start, and stays so.

// coreRules keep RLIMIT_CORE at 0. Where cores are given to a program of the host's they
// are no files of the view, and there are no rules.
func (m *Module) coreRules() (rules intercept.Rules) {
	pattern, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	if err == nil && bytes.HasPrefix(pattern, []byte("|")) {
		return nil
	}
	for _, r := range []struct {
		arch         intercept.Arch
		nr, resource int
		do           func(*Module, *intercept.Call) intercept.Action
	}{
		{intercept.Native, unix.SYS_PRLIMIT64, 1, (*Module).doPrlimit},
		{intercept.I386, 340, 1, (*Module).doPrlimit},
		{intercept.Native, unix.SYS_SETRLIMIT, 0, (*Module).doSetrlimit},
		{intercept.I386, 75, 0, (*Module).doSetrlimit},
	} {
		rules = append(rules, intercept.Rule{Arch: r.arch, NR: r.nr, Args: []intercept.Arg{intercept.ArgEqual32(r.resource, unix.RLIMIT_CORE)},
			Do: intercept.Notify, Handler: intercept.HandlerFunc(func(c *intercept.Call) intercept.Action { return r.do(m, c) })})
	}
	m.cores = len(rules) > 0
	return rules
}

// noCores gives the first task the limit, which all others have from it.
func (m *Module) noCores(c *intercept.Call) {
	if !m.cores {
		return
	}
	m.limited.Do(func() {
		if err := unix.Prlimit(c.Task.TGID(), unix.RLIMIT_CORE, &unix.Rlimit{}, nil); err != nil {
			m.log.Warn("cores of the program would be written to the host's files", "err", err)
		}
	})
}

func (m *Module) doSetrlimit(c *intercept.Call) intercept.Action {
	size := 16 // struct rlimit
	if c.Arch == intercept.I386 {
		size = 8
	}
	return result(limitCores(c, intercept.Addr(c.Args[1]), size))
}

// limitCores is setting RLIMIT_CORE by a limit in memory: the hard one is 0.
func limitCores(c *intercept.Call, at intercept.Addr, size int) error {
	b := make([]byte, size)
	if err := c.ReadMem(at, b); err != nil {
		return err
	}
	if !bytes.Equal(b, make([]byte, size)) {
		return unix.EPERM // getrlimit(2): above the hard limit
	}
	return nil
}

func (m *Module) doPrlimit(c *intercept.Call) intercept.Action {
	if c.Args[2] == 0 {
		return intercept.Continue() // which changes none
	}
	if pid := int(int32(c.Args[0])); pid != 0 && pid != c.Task.TGID() && pid != c.TID {
		return intercept.Fail(unix.EPERM)
	}
	if err := limitCores(c, intercept.Addr(c.Args[2]), 16); err != nil {
		return fail(err)
	}
	if c.Args[3] != 0 {
		var old [16]byte
		return result(c.WriteMem(intercept.Addr(c.Args[3]), old[:]))
	}
	return intercept.Return(0)
}
