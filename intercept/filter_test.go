// SPDX-License-Identifier: Apache-2.0

// Tests of the compiled filter, run by an interpreter of BPF.

package intercept

import (
	"encoding/binary"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// seccompData is struct seccomp_data.
type seccompData struct {
	nr   int32
	arch uint32
	args [6]uint64
}

const auditX8664 = 0xc000003e

// runFilter interprets a program of those instructions that seccomp(2) allows and
// libseccomp uses.
func runFilter(t *testing.T, prog []unix.SockFilter, d seccompData) uint32 {
	t.Helper()
	var mem [64]byte
	binary.NativeEndian.PutUint32(mem[0:], uint32(d.nr))
	binary.NativeEndian.PutUint32(mem[4:], d.arch)
	for i, a := range d.args {
		binary.NativeEndian.PutUint64(mem[16+8*i:], a)
	}
	var a uint32
	for pc := 0; pc < len(prog); pc++ {
		in := prog[pc]
		jump := func(ok bool) {
			if ok {
				pc += int(in.Jt)
			} else {
				pc += int(in.Jf)
			}
		}
		switch in.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			a = binary.NativeEndian.Uint32(mem[in.K:])
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			a &= in.K
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(in.K)
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			jump(a == in.K)
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			jump(a >= in.K)
		case unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K:
			jump(a > in.K)
		case unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K:
			jump(a&in.K != 0)
		case unix.BPF_RET | unix.BPF_K:
			return in.K
		default:
			t.Fatalf("instruction %d: unknown code %#x", pc, in.Code)
		}
	}
	t.Fatal("the filter runs past its end")
	return 0
}

func TestFilter(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the numbers of this table are those of amd64")
	}
	const (
		allow  = unix.SECCOMP_RET_ALLOW
		notify = unix.SECCOMP_RET_USER_NOTIF
		enosys = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
		ebusy  = unix.SECCOMP_RET_ERRNO | uint32(unix.EBUSY)
		zero   = unix.SECCOMP_RET_ERRNO
		high   = 0xdead << 32
	)
	rules := append(baseRules(), Rules{
		{NR: unix.SYS_SOCKET, Args: []Arg{ArgEqual32(0, unix.AF_INET)}},
		{NR: unix.SYS_SOCKET, Args: []Arg{ArgEqual32(0, unix.AF_INET6)}},
		{NR: unix.SYS_SOCKET, Args: []Arg{ArgEqual32(0, unix.AF_PACKET)}, Do: Deny(unix.EPERM)},
		{NR: unix.SYS_SOCKET, Args: []Arg{ArgEqual32(0, unix.AF_TIPC)}, Do: Deny(unix.EAFNOSUPPORT)},
		{NR: unix.SYS_CONNECT},
		{NR: unix.SYS_CONNECT, Args: []Arg{ArgEqual32(2, 0)}, Do: Deny(unix.EINVAL)},
		{NR: unix.SYS_RECVFROM, Args: []Arg{ArgNonZero(4)}},
		{NR: unix.SYS_RECVFROM, Args: []Arg{ArgMasked(3, unix.MSG_ERRQUEUE, unix.MSG_ERRQUEUE)}},
		{NR: unix.SYS_IOCTL, Args: []Arg{ArgMasked(1, 0xffffff00, 0x8900)}},
		{NR: unix.SYS_PRCTL, Args: []Arg{ArgEqual32(0, unix.PR_SET_NAME)}},
		{NR: 900}, // newer than libseccomp
		{NR: unix.SYS_SHUTDOWN},
		{NR: unix.SYS_SHUTDOWN, Args: []Arg{ArgEqual32(1, 1)}},
		{NR: unix.SYS_SETSOCKOPT, Args: []Arg{ArgMasked(1, 0xff, 1), ArgMasked(1, 0xffffff00, 0), ArgEqual32(2, 9)}},
		{Arch: I386, NR: 359, Args: []Arg{ArgEqual32(0, unix.AF_INET)}},
		{Arch: I386, NR: 102},
		{Arch: I386, NR: 54, Args: []Arg{ArgMasked(1, 0xffffff00, 0x8900)}},
	}...)
	prog, err := compileFilter(rules)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d instructions", len(prog))
	for _, tt := range []struct {
		name string
		arch uint32
		nr   int32
		args [6]uint64
		want uint32
	}{
		{"getpid", auditX8664, unix.SYS_GETPID, [6]uint64{}, allow},
		{"read", auditX8664, unix.SYS_READ, [6]uint64{}, allow},
		{"last known", auditX8664, 460, [6]uint64{}, allow},
		{"newer than libseccomp", auditX8664, 900, [6]uint64{}, notify},
		{"minus one", auditX8664, -1, [6]uint64{}, allow}, // ENOSYS in the kernel
		{"x32 getpid", auditX8664, 0x40000000 | 39, [6]uint64{}, enosys},
		{"x32 socket", auditX8664, 0x40000000 | 41, [6]uint64{2}, enosys},
		{"x32 high", auditX8664, 0x7fffffff, [6]uint64{}, enosys},
		{"arm", 0x40000028, 1, [6]uint64{}, enosys},

		{"socket inet", auditX8664, unix.SYS_SOCKET, [6]uint64{2, 1}, notify},
		{"socket inet, high bits", auditX8664, unix.SYS_SOCKET, [6]uint64{high | 2, 1}, notify},
		{"socket inet6", auditX8664, unix.SYS_SOCKET, [6]uint64{10, 1}, notify},
		{"socket unix", auditX8664, unix.SYS_SOCKET, [6]uint64{1, 1}, allow},
		{"socket packet", auditX8664, unix.SYS_SOCKET, [6]uint64{17, 1}, unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{"socket tipc", auditX8664, unix.SYS_SOCKET, [6]uint64{30, 1}, unix.SECCOMP_RET_ERRNO | uint32(unix.EAFNOSUPPORT)},

		{"connect", auditX8664, unix.SYS_CONNECT, [6]uint64{3, 4096, 16}, notify},
		{"connect, denied", auditX8664, unix.SYS_CONNECT, [6]uint64{3, 4096, high}, unix.SECCOMP_RET_ERRNO | uint32(unix.EINVAL)},

		{"recvfrom", auditX8664, unix.SYS_RECVFROM, [6]uint64{3, 1, 1, 0, 0}, allow},
		{"recvfrom address", auditX8664, unix.SYS_RECVFROM, [6]uint64{3, 1, 1, 0, 8}, notify},
		{"recvfrom high address", auditX8664, unix.SYS_RECVFROM, [6]uint64{3, 1, 1, 0, 1 << 40}, notify},
		{"recvfrom flags", auditX8664, unix.SYS_RECVFROM, [6]uint64{3, 1, 1, 0x2000 | 0x40, 0}, notify},
		{"recvfrom other flags", auditX8664, unix.SYS_RECVFROM, [6]uint64{3, 1, 1, 0x40, 0}, allow},

		{"ioctl SIOCGIFCONF", auditX8664, unix.SYS_IOCTL, [6]uint64{3, 0x8912}, notify},
		{"ioctl SIOCGIFCONF, high bits", auditX8664, unix.SYS_IOCTL, [6]uint64{3, high | 0x8912}, notify},
		{"ioctl TCGETS", auditX8664, unix.SYS_IOCTL, [6]uint64{3, 0x5401}, allow},

		{"shutdown 0", auditX8664, unix.SYS_SHUTDOWN, [6]uint64{3, 0}, notify},
		{"shutdown 1", auditX8664, unix.SYS_SHUTDOWN, [6]uint64{3, 1}, notify},
		{"joined", auditX8664, unix.SYS_SETSOCKOPT, [6]uint64{3, 1, 9}, notify},
		{"joined, not", auditX8664, unix.SYS_SETSOCKOPT, [6]uint64{3, 0x101, 9}, allow},

		{"prctl dumpable 0", auditX8664, unix.SYS_PRCTL, [6]uint64{4, 0}, zero},
		{"prctl dumpable 0, high bits", auditX8664, unix.SYS_PRCTL, [6]uint64{high | 4, 0}, zero},
		{"prctl dumpable 1", auditX8664, unix.SYS_PRCTL, [6]uint64{4, 1}, allow},
		{"prctl dumpable 1<<32", auditX8664, unix.SYS_PRCTL, [6]uint64{4, 1 << 32}, allow},
		{"prctl name", auditX8664, unix.SYS_PRCTL, [6]uint64{15, 1}, notify},

		{"seccomp listener", auditX8664, unix.SYS_SECCOMP, [6]uint64{1, 8}, ebusy},
		{"seccomp listener, high bits", auditX8664, unix.SYS_SECCOMP, [6]uint64{high | 1, high | 8 | 2}, ebusy},
		{"seccomp filter", auditX8664, unix.SYS_SECCOMP, [6]uint64{1, 1}, allow},
		{"seccomp sizes", auditX8664, unix.SYS_SECCOMP, [6]uint64{3, 0}, allow},
		{"io_uring_setup", auditX8664, 425, [6]uint64{}, enosys},
		{"io_uring_enter", auditX8664, 426, [6]uint64{}, enosys},
		{"io_uring_register", auditX8664, 427, [6]uint64{}, enosys},
		{"keyctl", auditX8664, unix.SYS_KEYCTL, [6]uint64{}, enosys},

		{"i386 socket inet", auditI386, 359, [6]uint64{2}, notify},
		{"i386 socket unix", auditI386, 359, [6]uint64{1}, allow},
		{"i386 socketcall", auditI386, 102, [6]uint64{1}, notify},
		{"i386 socketcall 3", auditI386, 102, [6]uint64{3}, notify},
		{"i386 ioctl", auditI386, 54, [6]uint64{3, 0x8912}, notify},
		{"i386 ioctl other", auditI386, 54, [6]uint64{3, 0x5401}, allow},
		{"i386 seccomp listener", auditI386, 354, [6]uint64{1, 8}, ebusy},
		{"i386 seccomp filter", auditI386, 354, [6]uint64{1, 0}, allow},
		{"i386 io_uring_setup", auditI386, 425, [6]uint64{}, enosys},
		{"i386 prctl dumpable", auditI386, 172, [6]uint64{4, 0}, zero},
		{"i386 keyctl", auditI386, 288, [6]uint64{}, enosys},
		{"i386 number of native socket", auditI386, 41, [6]uint64{2}, allow},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := runFilter(t, prog, seccompData{tt.nr, tt.arch, tt.args}); got != tt.want {
				t.Errorf("filter says %#x, want %#x", got, tt.want)
			}
		})
	}
}

// TestFilterRefuses has rules that cannot be compiled.
func TestFilterRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		rule Rule
	}{
		{"unknown number", Rule{Arch: I386, NR: 100000}},
		{"contradiction", Rule{NR: unix.SYS_READ, Args: []Arg{ArgEqual32(0, 1), ArgEqual32(0, 2)}}},
	} {
		if _, err := compileFilter(Rules{tt.rule}); err == nil {
			t.Errorf("%s: compiled", tt.name)
		}
	}
}
