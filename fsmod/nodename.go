// SPDX-License-Identifier: Apache-2.0

// The name of the machine: uname(2) where the view has one of its own.

package fsmod

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// The calls of the i386 entry that ask for the name, or set it: three structures have been in use
// (linux/utsname.h).
const (
	i386OldOldUname   = 59
	i386OldUname      = 109
	i386Uname         = 122
	i386SetHostname   = 74
	i386SetDomainname = 121
)

// nameRules are those by which the view has a name, nil if it has the host's. A task in another UTS
// namespace than ours has the name that is told there, and changes that (uts_namespaces(7)).
func (m *Module) nameRules() (rules intercept.Rules) {
	if m.hostname == "" {
		return nil
	}
	add := func(f intercept.HandlerFunc, native int, i386 ...int) {
		rules = append(rules, intercept.Rule{NR: native, Handler: f})
		for _, nr := range i386 {
			rules = append(rules, intercept.Rule{Arch: intercept.I386, NR: nr, Handler: f})
		}
	}
	add(m.doUname, unix.SYS_UNAME, i386OldOldUname, i386OldUname, i386Uname)
	add(m.doSetName, unix.SYS_SETHOSTNAME, i386SetHostname)
	add(m.doSetName, unix.SYS_SETDOMAINNAME, i386SetDomainname)
	return rules
}

// ownName reports whether the calling thread has the name of our UTS namespace.
func ownName(c *intercept.Call) bool {
	var ours, its unix.Stat_t
	return unix.Stat("/proc/self/ns/uts", &ours) != nil || unix.Stat(taskFile(c.TID, "ns/uts"), &its) != nil || inodeOf(&ours) == inodeOf(&its)
}

func (m *Module) doUname(c *intercept.Call) intercept.Action {
	if !ownName(c) {
		return intercept.Continue()
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return fail(err)
	}
	u.Nodename = [len(u.Nodename)]byte{}
	copy(u.Nodename[:len(u.Nodename)-1], m.hostname)
	asPersonality(&u, personalityOf(c))
	return result(c.WriteMem(intercept.Addr(c.Args[0]), nameStruct(c, &u)))
}

// nameStruct is the structure that a call fills in.
func nameStruct(c *intercept.Call, u *unix.Utsname) []byte {
	all := unsafe.Slice((*byte)(unsafe.Pointer(u)), unsafe.Sizeof(*u))
	switch {
	case c.Arch != intercept.I386 || c.NR == i386Uname:
		return all
	case c.NR == i386OldUname:
		return all[:unsafe.Offsetof(u.Domainname)]
	}
	var short []byte // 8 bytes of each and a NUL
	for _, f := range [][65]byte{u.Sysname, u.Nodename, u.Release, u.Version, u.Machine} {
		short = append(append(short, f[:8]...), 0)
	}
	return short
}

// Personalities, personality(2).
const (
	perMask = 0xff
	perI386 = 8 // PER_LINUX32
	uname26 = 0x20000
)

// personalityOf is the calling thread's; that of Linux where it cannot be had.
func personalityOf(c *intercept.Call) uint64 {
	text, err := os.ReadFile(taskFile(c.TID, "personality"))
	if err != nil {
		return 0
	}
	p, _ := strconv.ParseUint(strings.TrimSpace(string(text)), 16, 64) // proc_pid_personality(5)
	return p
}

// asPersonality words what the kernel says otherwise to a thread of a personality (kernel/sys.c,
// override_architecture and override_release).
func asPersonality(u *unix.Utsname, p uint64) {
	if p&perMask == perI386 && string(u.Machine[:7]) == "x86_64\x00" {
		u.Machine = [len(u.Machine)]byte{}
		copy(u.Machine[:], "i686")
	}
	if p&uname26 == 0 {
		return
	}
	release, _, _ := bytes.Cut(u.Release[:], []byte{0})
	numbers := strings.SplitN(string(release), ".", 3)
	if len(numbers) < 2 {
		return
	}
	end := strings.IndexFunc(numbers[1], func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(numbers[1])
	}
	minor, err := strconv.Atoi(numbers[1][:end])
	if err != nil {
		return
	}
	// What follows the version is kept: all from where there is no digit or dot any more, or a third dot.
	dots := 0
	rest := strings.IndexFunc(string(release), func(r rune) bool {
		if r == '.' {
			dots++
		}
		return dots >= 3 || r != '.' && (r < '0' || r > '9')
	})
	tail := ""
	if rest >= 0 {
		tail = string(release)[rest:]
	}
	u.Release = [len(u.Release)]byte{}
	copy(u.Release[:len(u.Release)-1], "2.6."+strconv.Itoa(minor+60)+tail)
}

// doSetName keeps the program, which may be root, from changing the host's name.
func (m *Module) doSetName(c *intercept.Call) intercept.Action {
	if !ownName(c) {
		return intercept.Continue()
	}
	return intercept.Fail(unix.EPERM)
}
