// SPDX-License-Identifier: Apache-2.0

// Config: what a view is made from.

package view

import (
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"umrun/fsmod"
	"umrun/intercept"
)

// Config says which program runs on which networks. The zero value of each field
// but Networks, Argv and Log is a sensible setting.
type Config struct {
	Networks []Network // the first is the default for new sockets
	Routes   []string  // who serves what, as --route says it: PATTERN=NAME, @FILE
	Argv     []string  // Argv[0] is searched in the PATH of Env, as execvp(3) does
	Env      []string  // "KEY=VALUE"; nil: the caller's own
	Dir      string    // working directory; empty: the caller's own

	Stdin, Stdout, Stderr *os.File // nil: the caller's own

	Wait    time.Duration // how long Start waits for the network to be up; 0: not at all
	WaitAll bool          // Wait waits for the last descendant, not only for the program
	DNS     string        // "" or "tunnel", "none", or the address of a server
	DBus    bool          // let the program connect to the host's system bus
	Backend string        // "" or "auto", "notify", "ptrace"

	// SigMask, if set, is the signal mask that the program starts with (bit n-1
	// blocks signal n); else it is the calling thread's.
	SigMask *uint64

	// SigIgnore are the signals that the program starts with ignored, as bits like
	// those of SigMask. A Go program that was itself started with some ignored has
	// to remember them: its runtime handles them.
	SigIgnore uint64

	// Missing are those of the first three descriptors that the program starts without.
	// A Go program that was itself started without one has /dev/null in its place.
	Missing []int

	// Umask, if set, is what the program starts with (umask(2)); else it is the caller's.
	Umask *int

	// OnStop, if set, is told when the program is stopped by a signal or
	// continued (then sig is SIGCONT), for job control. It must not block.
	OnStop func(sig unix.Signal)

	// Pending, if set, is called once when the program has ended, and for some
	// time nothing of what it wrote was acknowledged by its peers.
	Pending func(bytes, sockets int)

	// Active, if set, is called whenever the program has written or read what others
	// wait for; it must be quick.
	Active func()

	// Waiting, if set, is told how many threads wait for the program's calls in the kernel,
	// see intercept.Config.
	Waiting func(threads int)

	// NoProc leaves the program the host's /proc/net and /sys/class/net. Without it, and
	// with a userspace stack, it has the view's, and its opens are trapped.
	NoProc bool

	Pcap       string    // file for the packets of all networks (pcapng); empty: none
	Publish    []Publish // ports of the view on the host, by the first network
	PublishAll bool      // every port that the program serves, too

	Flows string // file for flows (JSON lines); empty: none

	Mounts   []fsmod.Mount // what the program sees of files otherwise, as --mount says it
	FSEngine FSEngine      // who makes them; empty: EngineAuto
	Hosts    []HostName    // in the view's /etc/hosts, before the host's own
	Hostname string        // what uname(2) says; empty: the host's

	// Name is what the view is called by `umrun set` and `umrun ps`; empty: it cannot be
	// spoken to.
	Name string

	// Meter, if set, counts the calls that are trapped.
	Meter *intercept.Meter

	Log *slog.Logger

	far *farStack // of a provider: whose network the program brings
}

// lookPath finds the program as execvp(3) does: a name with a slash is the file,
// anything else is searched in PATH. Errors are Problems with the exit statuses
// of env(1): 127 for not found, 126 for found and not executable.
func lookPath(name, path, dir string) (string, error) {
	if name == "" {
		return "", &Problem{Code: ExitNotFound, What: "the program's name is empty"}
	}
	if strings.Contains(name, "/") {
		if err := executable(name, dir); err != nil {
			return "", notRun(name, err)
		}
		return name, nil
	}
	worst := error(unix.ENOENT)
	for _, d := range filepath.SplitList(path) {
		if d == "" {
			d = "." // POSIX: an empty element is the working directory
		}
		file := d + "/" + name
		err := executable(file, dir)
		if err == nil {
			return file, nil
		}
		if err == error(unix.EACCES) {
			worst = err
		}
	}
	return "", notRun(name, worst)
}

// executable checks a file as execve(2) would, as far as permissions go. The
// answer is nil, ENOENT, ENOTDIR, EACCES or the like.
func executable(file, dir string) error {
	if dir != "" && !filepath.IsAbs(file) {
		file = filepath.Join(dir, file)
	}
	st, err := os.Stat(file)
	if err != nil {
		if pe, ok := err.(*fs.PathError); ok {
			if errno, ok := pe.Err.(syscall.Errno); ok {
				return errno
			}
		}
		return err
	}
	if st.IsDir() {
		return unix.EACCES
	}
	return unix.Faccessat(unix.AT_FDCWD, file, unix.X_OK, unix.AT_EACCESS)
}

// notRun words why a program cannot be started.
func notRun(name string, err error) *Problem {
	p := &Problem{Code: ExitNotExec, What: fmt.Sprintf("%s: %v", name, err), Err: err}
	switch {
	case err == error(unix.ENOENT) || err == error(unix.ENOTDIR):
		p.Code = ExitNotFound
		if !strings.Contains(name, "/") {
			p.What = fmt.Sprintf("%s: there is no such program in PATH", name)
		}
	}
	return p
}

// searchPath returns where programs are searched: PATH, or what execvp(3) takes
// where there is none.
func searchPath(env []string) string {
	path := "/bin:/usr/bin"
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			path = v // the last one wins, as in os/exec
		}
	}
	return path
}
