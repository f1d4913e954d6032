// SPDX-License-Identifier: Apache-2.0

// Doctor: what this machine allows and lacks.

package view

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"umrun/netmod/dns"
)

// Doctor looks at everything that a view needs of the machine. It changes
// nothing. The order is fixed.
func Doctor() []Finding {
	return []Finding{
		checkSeccomp(),
		checkYama(),
		checkFiles(),
		checkPing(),
		checkUDPBuffers(),
		checkResolvConf(),
	}
}

// checkSeccomp: user notification is what calls are intercepted by.
func checkSeccomp() Finding {
	f := Finding{Name: "seccomp-notify", Verdict: OK, Text: "the kernel has seccomp user notification"}
	b, err := os.ReadFile("/proc/sys/kernel/seccomp/actions_avail")
	if err != nil || !slices.Contains(strings.Fields(string(b)), "user_notif") {
		f.Verdict, f.Text = Fail, "the kernel has no seccomp user notification"
		f.Mend = "a kernel of 5.19 or later with CONFIG_SECCOMP_FILTER"
	}
	return f
}

// checkYama: the supervisor reads the memory of its descendants, which
// ptrace_scope allows up to 1, and 2 with CAP_SYS_PTRACE.
func checkYama() Finding {
	f := Finding{Name: "yama", Verdict: OK, Text: "the memory of descendants may be read"}
	b, err := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope")
	if err != nil {
		return f // no Yama
	}
	scope, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	if scope >= 3 || scope == 2 && os.Geteuid() != 0 {
		f.Verdict = Fail
		f.Text = fmt.Sprintf("kernel.yama.ptrace_scope is %d: the program's memory cannot be read", scope)
		f.Mend = "sysctl kernel.yama.ptrace_scope=1"
		if scope >= 3 {
			f.Mend += " after a reboot (3 cannot be lowered)"
		}
	}
	return f
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
