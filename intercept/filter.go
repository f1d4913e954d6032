// SPDX-License-Identifier: Apache-2.0

// The filter: Rules compiled to the BPF program that the kernel runs at every call.
// libseccomp writes the programs; they are installed elsewhere, without it.

package intercept

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"

	seccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"
)

// compileFilter returns the program for the rules. Calls by an entry that has no
// rules (x32, a foreign architecture) give ENOSYS.
//
// libseccomp promises nothing when rules of different verdicts overlap, so the
// rules of one call with different verdicts go to different layers: whole programs
// of which each one hands what it allows to the next. Deny comes first, which is
// the precedence that [Rules] documents. There are two layers at most times.
func compileFilter(rules Rules) ([]unix.SockFilter, error) {
	prog, rules, err := unnamed(rules)
	if err != nil {
		return nil, fmt.Errorf("compile the filter: %w", err)
	}
	layers := layer(rules)
	for i, rs := range layers {
		p, err := compileLayer(rs)
		if err != nil {
			return nil, fmt.Errorf("compile the filter: %w", err)
		}
		if i < len(layers)-1 {
			chain(p)
		}
		prog = append(prog, p...)
	}
	const maxInsns = 4096 // BPF_MAXINSNS, linux/bpf_common.h
	if len(prog) > maxInsns {
		return nil, fmt.Errorf("the filter has %d instructions, more than %d: %w", len(prog), maxInsns, unix.E2BIG)
	}
	return prog, nil
}

// firstShared is the first number that calls have at all entries (since Linux 5.1).
const firstShared = 424

// unnamed compiles the rules of the i386 entry for calls that are newer than libseccomp,
// which finds them by their names, and returns the others.
func unnamed(rules Rules) (prog []unix.SockFilter, rest Rules, err error) {
	for _, r := range rules {
		if r.Arch == I386 && r.NR >= firstShared && r.NR < 1000 {
			if _, e := seccomp.ScmpSyscall(r.NR).GetNameByArch(seccomp.ArchX86); e != nil {
				if len(r.Args) > 0 {
					return nil, nil, fmt.Errorf("i386 call %d with conditions: %w", r.NR, e)
				}
				do := uint32(unix.SECCOMP_RET_USER_NOTIF)
				if r.Do.deny {
					do = unix.SECCOMP_RET_ERRNO | uint32(r.Do.errno)
				}
				prog = append(prog,
					unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: uint32(r.NR)},
					unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: do})
				continue
			}
		}
		rest = append(rest, r)
	}
	native, err := seccomp.GetNativeArch()
	if err != nil || len(prog) == 0 || native != seccomp.ArchAMD64 {
		return nil, rest, err
	}
	if len(prog) > 200 {
		return nil, nil, fmt.Errorf("%d calls that libseccomp does not know: %w", len(prog)/2, unix.E2BIG)
	}
	const nr, arch = 0, 4 // in struct seccomp_data
	head := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: arch},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: uint8(len(prog) + 1), K: auditI386},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: nr},
	}
	return append(head, prog...), rest, nil
}

// layer distributes the rules so that in each layer every call has one verdict.
func layer(rules Rules) []Rules {
	var (
		layers   []Rules
		verdicts []map[sysno]Verdict
	)
	put := func(r Rule, from int) int {
		k := sysno{r.Arch, r.NR}
		for i := from; i < len(layers); i++ {
			if v, ok := verdicts[i][k]; !ok || v == r.Do {
				layers[i] = append(layers[i], r)
				verdicts[i][k] = r.Do
				return i
			}
		}
		layers = append(layers, Rules{r})
		verdicts = append(verdicts, map[sysno]Verdict{k: r.Do})
		return len(layers) - 1
	}
	last := make(map[sysno]int) // layer of the last Deny of a call
	for _, r := range rules {
		if r.Do.deny {
			k := sysno{r.Arch, r.NR}
			last[k] = put(r, last[k])
		}
	}
	for _, r := range rules {
		if !r.Do.deny {
			put(r, last[sysno{r.Arch, r.NR}])
		}
	}
	if len(layers) == 0 {
		layers = []Rules{nil} // still refuses the foreign entries
	}
	return layers
}

// chain makes every "allow" of p a jump behind the end of p.
func chain(p []unix.SockFilter) {
	for i, in := range p {
		if in.Code == unix.BPF_RET|unix.BPF_K && in.K == unix.SECCOMP_RET_ALLOW {
			p[i] = unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(len(p) - i - 1)}
		}
	}
}

// compileLayer compiles rules that do not contradict each other.
func compileLayer(rules Rules) ([]unix.SockFilter, error) {
	native, err := seccomp.GetNativeArch()
	if err != nil {
		return nil, err
	}
	f, err := newFilter(rules, Native, native)
	if err != nil {
		return nil, err
	}
	defer f.Release()
	if native == seccomp.ArchAMD64 {
		// The entries differ in numbers and need a filter each; merging
		// moves the rules, and takes src with it.
		src, err := newFilter(rules, I386, seccomp.ArchX86)
		if err != nil {
			return nil, err
		}
		if err := f.Merge(src); err != nil {
			src.Release()
			return nil, fmt.Errorf("merge the i386 rules: %w", err)
		}
	}
	return export(f)
}

// newFilter makes libseccomp's form of the rules of one entry.
func newFilter(rules Rules, arch Arch, as seccomp.ScmpArch) (*seccomp.ScmpFilter, error) {
	f, err := seccomp.NewFilter(seccomp.ActAllow)
	if err != nil {
		return nil, err
	}
	if err := fillFilter(f, rules, arch, as); err != nil {
		f.Release()
		return nil, err
	}
	return f, nil
}

func fillFilter(f *seccomp.ScmpFilter, rules Rules, arch Arch, as seccomp.ScmpArch) error {
	if err := f.SetBadArchAction(seccomp.ActErrno.SetReturnCode(int16(unix.ENOSYS))); err != nil {
		return err
	}
	if arch != Native {
		if err := f.AddArch(as); err != nil {
			return err
		}
		native, err := seccomp.GetNativeArch()
		if err != nil {
			return err
		}
		if err := f.RemoveArch(native); err != nil {
			return err
		}
	}
	for i := range rules {
		if r := &rules[i]; r.Arch == arch {
			if err := addRule(f, r, as); err != nil {
				return fmt.Errorf("rule for %s call %d: %w", r.Arch, r.NR, err)
			}
		}
	}
	return nil
}

func addRule(f *seccomp.ScmpFilter, r *Rule, as seccomp.ScmpArch) error {
	nr := seccomp.ScmpSyscall(r.NR)
	if r.Arch != Native {
		// libseccomp wants the native number of the call of that name, or a
		// negative stand-in where the native entry has none.
		name, err := nr.GetNameByArch(as)
		if err != nil {
			return err
		}
		if nr, err = seccomp.GetSyscallFromName(name); err != nil {
			return err
		}
	}
	do := seccomp.ActNotify
	if r.Do.deny {
		do = seccomp.ActErrno.SetReturnCode(int16(r.Do.errno))
	}
	conds, err := conditions(r.Args)
	if err != nil {
		return err
	}
	if len(conds) == 0 {
		return f.AddRule(nr, do)
	}
	return f.AddRuleConditional(nr, do, conds)
}

// conditions joins the conditions of each argument, as libseccomp takes only one.
func conditions(args []Arg) ([]seccomp.ScmpCondition, error) {
	var conds []seccomp.ScmpCondition
	for i := range 6 {
		var (
			joined Arg
			n      int
		)
		for _, a := range args {
			if a.index != i {
				continue
			}
			if n++; n == 1 {
				joined = a
				continue
			}
			if a.op != argMasked || joined.op != argMasked || joined.value&a.mask != a.value&joined.mask {
				return nil, fmt.Errorf("conditions on argument %d cannot be joined: %w", i, unix.EINVAL)
			}
			joined.mask |= a.mask
			joined.value |= a.value
		}
		if n == 0 {
			continue
		}
		var (
			c   seccomp.ScmpCondition
			err error
		)
		if joined.op == argNonZero {
			c, err = seccomp.MakeCondition(uint(i), seccomp.CompareNotEqual, 0)
		} else {
			c, err = seccomp.MakeCondition(uint(i), seccomp.CompareMaskedEqual, joined.mask, joined.value)
		}
		if err != nil {
			return nil, err
		}
		conds = append(conds, c)
	}
	return conds, nil
}

// maxFilter is the size in bytes of the largest program that the kernel takes.
const maxFilter = 4096 * unix.SizeofSockFilter // BPF_MAXINSNS

// export takes the program out of libseccomp, which writes it to a descriptor only
// (to memory from version 2.6 on), in one piece. To a socket that keeps pieces whole the
// limit of a file's size (RLIMIT_FSIZE) does not apply.
func export(f *seccomp.ScmpFilter) ([]unix.SockFilter, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	defer unix.Close(fds[1])
	file := os.NewFile(uintptr(fds[0]), "filter")
	defer file.Close()
	_ = unix.SetsockoptInt(fds[0], unix.SOL_SOCKET, unix.SO_SNDBUF, 2*maxFilter) // if the default is less
	if err := f.ExportBPF(file); err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	buf := make([]byte, maxFilter+1)
	n, err := unix.Read(fds[1], buf)
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the filter: %w", err)
	case n > maxFilter:
		return nil, fmt.Errorf("the filter has more than %d bytes: %w", maxFilter, unix.E2BIG)
	}
	prog := make([]unix.SockFilter, n/unix.SizeofSockFilter)
	return prog, binary.Read(bytes.NewReader(buf[:n]), binary.NativeEndian, prog)
}

// callName returns the name of a call, or its number if libseccomp does not know it.
func callName(arch Arch, nr int) string {
	as, err := seccomp.GetNativeArch()
	if arch == I386 {
		as = seccomp.ArchX86
	}
	var name string
	if err == nil {
		name, err = seccomp.ScmpSyscall(nr).GetNameByArch(as)
	}
	if err != nil {
		name = fmt.Sprint(nr)
	}
	if arch == I386 {
		name += " (i386)"
	}
	return name
}

// LibseccompVersion returns the version of the libseccomp that is loaded, as
// "2.5.4".
func LibseccompVersion() string {
	major, minor, micro := seccomp.GetLibraryVersion()
	return fmt.Sprintf("%d.%d.%d", major, minor, micro)
}
