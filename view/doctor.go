// SPDX-License-Identifier: Apache-2.0

// Doctor: what this machine allows and lacks.

package view

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"umrun/intercept"
	"umrun/netmod/dns"
	"umrun/stacks/kernel"
)

// Doctor looks at everything that a view needs of the machine, by trying it. It
// changes nothing but the calling process, which becomes a subreaper and not
// dumpable; it needs [Init], as a view does. The order is fixed.
func Doctor(ctx context.Context) []Finding {
	stack := checkKernelStack()
	fs := checkKernel(intercept.Probe(ctx))
	return append(fs, stack, checkMountNamespace(), checkFuse(), checkFiles(), checkPing(), checkUDPBuffers(), checkResolvConf())
}

// features gives the names that are stable, of those that Probe gives.
var features = map[string]string{
	"seccomp user notification":                       "seccomp-notify",
	"memory of the program (process_vm_readv)":        "process-memory",
	"descriptors of the program (pidfd_getfd)":        "pidfd-getfd",
	"SECCOMP_ADDFD_FLAG_SEND":                         "addfd-send",
	"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV":          "wait-killable",
	"SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP":              "sync-wake-up",
	"PIDFD_THREAD":                                    "pidfd-thread",
	"Landlock domains (LANDLOCK_ACCESS_NET_BIND_TCP)": "landlock-domain",
}

// checkKernel words what the trials have shown.
func checkKernel(r *intercept.Report) []Finding {
	fs := []Finding{{Name: "kernel", Verdict: OK, Text: "Linux " + r.Kernel}}
	for _, x := range r.Features {
		f := Finding{Name: features[x.Name], Verdict: OK, Text: x.Name}
		if f.Name == "" {
			f.Name = strings.ToLower(strings.ReplaceAll(x.Name, " ", "-"))
		}
		if x.Err != nil {
			f.Text = fmt.Sprintf("%s: %v", x.Name, x.Err)
			f.Verdict, f.Mend = Fail, mend(r, x)
			if !x.Required {
				f.Verdict = Note
				f.Text += "; " + x.Without
			}
		}
		fs = append(fs, f)
	}
	return fs
}

// mend says what makes a missing feature available.
func mend(r *intercept.Report, x intercept.Feature) string {
	switch {
	case features[x.Name] == "process-memory" && r.Yama >= 3:
		return "set kernel.yama.ptrace_scope to 1 in /etc/sysctl.d and reboot: 3 cannot be lowered"
	case features[x.Name] == "process-memory" && r.Yama == 2:
		return "sysctl kernel.yama.ptrace_scope=1"
	case errors.Is(x.Err, unix.EPERM) || errors.Is(x.Err, unix.EACCES):
		return "in a container: docker run --security-opt seccomp=unconfined, or a profile that allows seccomp(2), process_vm_readv(2) and pidfd_getfd(2)"
	case features[x.Name] == "landlock-domain" && errors.Is(x.Err, unix.EOPNOTSUPP):
		return "add landlock to lsm= on the kernel's command line, before what /sys/kernel/security/lsm has"
	case errors.Is(x.Err, unix.EBUSY):
		return "run it outside of the other view or sandbox: a process can have one seccomp listener"
	case x.Kernel != "":
		return "Linux " + x.Kernel + " or newer"
	}
	return ""
}

// checkFiles: each connection takes descriptors of the supervisor.
func checkFiles() Finding {
	f := Finding{Name: "open-files", Verdict: OK}
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		f.Verdict, f.Text = Note, fmt.Sprintf("getrlimit: %v", err)
		return f
	}
	f.Text = fmt.Sprintf("up to %d descriptors", l.Max)
	if l.Max < 4096 {
		f.Verdict = Note
		f.Mend = "ulimit -Hn 65536, or nofile in /etc/security/limits.conf, for programs with many connections"
	}
	return f
}

// checkKernelStack tells what stack=auto takes, and why.
func checkKernelStack() Finding {
	err := kernel.Probe(true)
	if err == nil {
		return Finding{Name: "kernel-stack", Verdict: OK, Text: "stack=kernel works (a user namespace and a TUN device in it), and stack=auto takes it"}
	}
	f := Finding{Name: "kernel-stack", Verdict: Note, Text: "stack=auto takes netstack: " + err.Error()}
	var un *kernel.UnavailableError
	if errors.As(err, &un) {
		f.Mend = un.Mend + ", for stack=kernel"
	}
	return f
}

// checkPing: nat passes the program's pings on by an ICMP datagram socket.
func checkPing() Finding {
	f := Finding{Name: "nat-ping", Verdict: OK, Text: "ping works through nat"}
	for _, proto := range []struct{ family, proto int }{{unix.AF_INET, unix.IPPROTO_ICMP}, {unix.AF_INET6, unix.IPPROTO_ICMPV6}} {
		fd, err := unix.Socket(proto.family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, proto.proto)
		if err == unix.EAFNOSUPPORT {
			continue
		}
		if err != nil {
			f.Verdict, f.Text = Note, fmt.Sprintf("ping does not work through nat: %v", err)
			f.Mend = `sysctl net.ipv4.ping_group_range="0 2147483647"`
			return f
		}
		unix.Close(fd)
	}
	return f
}

// checkUDPBuffers: WireGuard's outer sockets are fast with some MiB of buffer.
func checkUDPBuffers() Finding {
	f := Finding{Name: "udp-buffers", Verdict: OK}
	b, err := os.ReadFile("/proc/sys/net/core/rmem_max")
	if err != nil {
		f.Text = "net.core.rmem_max is not to be seen here" // a network namespace before 6.x
		return f
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	f.Text = fmt.Sprintf("UDP sockets may buffer %d KiB", n>>10)
	if n < 2<<20 && os.Geteuid() != 0 { // root may exceed it, socket(7) SO_RCVBUFFORCE
		f.Verdict, f.Mend = Note, "sysctl net.core.rmem_max=7340032, for fast WireGuard downloads"
	}
	return f
}

// checkResolvConf: the stub answers on the addresses that are written there.
func checkResolvConf() Finding {
	f := Finding{Name: "resolv-conf", Verdict: OK}
	file, err := os.Open(resolvConf)
	if err != nil {
		f.Text = fmt.Sprintf("%v: programs ask 127.0.0.1, and umrun answers there", err)
		return f
	}
	defer file.Close()
	var names []string
	for _, a := range dns.ParseResolvConf(file).Nameservers {
		names = append(names, a.String())
	}
	f.Text = "programs ask " + strings.Join(names, ", ") + ", and umrun answers there"
	return f
}
