// SPDX-License-Identifier: Apache-2.0

// Package leak judges where AF_UNIX sockets of the program may connect to. A
// view has its own network, but the machine's daemons do not live in it: a
// program that asks one of them for a name has it looked up on the host's
// network. Those daemons' sockets are the doors that this package keeps shut.
//
// # Which doors
//
// nscd, systemd-resolved (every socket in its directory: the varlink interface
// that nss-resolve speaks, and the monitor), Avahi, mDNSResponder, and the system
// D-Bus, on which resolved, Avahi and NetworkManager do the same; the last
// unless the user wants it. See [Doors].
//
// A closed door answers ECONNREFUSED: a socket that is there and nobody listens.
// It is the one failure that goes together with what else the program can see,
// as stat(2) still finds the file. glibc then does without nscd, and nss-resolve
// and nss-mdns report UNAVAIL, after which nsswitch.conf goes on to dns and so to
// the view's stub.
//
// # How a destination is judged
//
// By the copied sockaddr, never by what the program's memory holds later. The
// path is resolved as connect(2) would: from the task's root or working
// directory, symbolic links and dot-dot staying below that root
// (openat2(2), RESOLVE_IN_ROOT), /proc/self/fd/N by the task's own descriptors.
// What is found is a door if it is the same inode (device and number) as a door
// has in the task's root or in the supervisor's, so that hard links, bind mounts
// and other roots do not matter, or if its name is a door's. What cannot be
// found is let through, for the kernel to give its own errno.
//
// The call is then continued, not made on behalf of the program: credentials,
// security labels and the peer's view of both stay the program's own. In a view
// with files of umrun's own it is made there, to the file that was judged ([Rules.JudgeFile]).
//
// # What this does not do
//
// It keeps programs from leaking that do not try to. A hostile thread can change
// the path between the judgement and the continued call; a sandbox closes that,
// this package cannot. And these doors carry network too, but are left open,
// since programs that use them mean to talk to the host:
//
//   - the session bus and the desktop portals on it, PipeWire, PulseAudio, X11
//     and Wayland;
//   - container engines (docker.sock, podman.sock), ssh's ControlMaster sockets
//     and agents, gpg's dirmngr, adb, tmux, screen and emacs servers: programs
//     that already run, on the host's network;
//   - directory services that also know users, and whose hosts maps are rarely
//     used: sssd, nslcd, winbind;
//   - sockets that a process outside the view passes in by SCM_RIGHTS.
//
// The package has no state but its configuration, starts no goroutine and is
// safe for concurrent use.
package leak
