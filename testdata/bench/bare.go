// SPDX-License-Identifier: Apache-2.0

// What trapping costs by itself: a supervisor that receives each path call, looks at
// nothing, and lets it go on. No engine that answers path calls on one thread can cost less.

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"unsafe"

	"golang.org/x/sys/unix"

	"umrun/fsmod"
	"umrun/intercept"
)

// bare is the agent that runs a program under such a supervisor: the calls that trap are
// those of a view with a bind mount. The filter is one thread's, which starts the program;
// another answers.
func bare(args []string) int {
	calls, err := pathCalls()
	if err == nil {
		debug.SetGCPercent(-1)                            // it would wait for goOn, which waits in the kernel
		runtime.GOMAXPROCS(max(2, runtime.GOMAXPROCS(0))) // and so would all else, as goOn keeps what it runs by
		runtime.LockOSThread()
		var listener int
		if listener, err = trap(calls); err == nil {
			go goOn(listener) // as long as the process lives
			cmd := exec.Command(args[0], args[1:]...)
			cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
			err = cmd.Run()
		}
	}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: "+err.Error())
		return 1
	}
	return 0
}

// pathCalls are the numbers of the calls that trap whatever their arguments are.
func pathCalls() (calls []int, err error) {
	dir := fsmod.Mount{Kind: fsmod.Bind, Source: "/", Target: "/"}
	tree, err := fsmod.OpenBuiltin(dir)
	if err != nil {
		return nil, err
	}
	m, err := fsmod.New(fsmod.Config{Mounts: []fsmod.Mounted{{Mount: dir, FS: tree}}})
	if err != nil {
		return nil, err
	}
	defer m.Close()
	for _, r := range m.Rules() {
		if r.Arch == intercept.Native && r.Handler != nil && len(r.Args) == 0 {
			calls = append(calls, r.NR)
		}
	}
	return calls, nil
}

// trap installs the filter on this thread, and returns the listener.
func trap(calls []int) (listener int, err error) {
	statement := func(code uint16, k uint32) unix.SockFilter { return unix.SockFilter{Code: code, K: k} }
	prog := []unix.SockFilter{statement(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, 0)} // the number
	for _, nr := range calls {
		prog = append(prog,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: uint32(nr)},
			statement(unix.BPF_RET|unix.BPF_K, unix.SECCOMP_RET_USER_NOTIF))
	}
	prog = append(prog, statement(unix.BPF_RET|unix.BPF_K, unix.SECCOMP_RET_ALLOW))
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return -1, fmt.Errorf("PR_SET_NO_NEW_PRIVS: %w", err)
	}
	const flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&fprog)))
	if errno != 0 {
		return -1, fmt.Errorf("install a filter: %w", errno)
	}
	_, _, errno = unix.Syscall(unix.SYS_IOCTL, fd, unix.SECCOMP_IOCTL_NOTIF_SET_FLAGS, unix.SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
	if errno != 0 {
		return -1, fmt.Errorf("SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP: %w", errno)
	}
	return int(fd), nil
}

// goOn answers. It allocates nothing, and does not tell the runtime of its calls.
func goOn(listener int) {
	runtime.LockOSThread()
	for {
		var notification [10]uint64 // struct seccomp_notif
		_, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&notification)))
		if errno != 0 {
			continue // a signal, or its thread is gone
		}
		response := struct { // struct seccomp_notif_resp
			id    uint64
			val   int64
			errno int32
			flags uint32
		}{id: notification[0], flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
		_, _, _ = unix.RawSyscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&response)))
	}
}
