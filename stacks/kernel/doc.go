// SPDX-License-Identifier: Apache-2.0

// Package kernel makes stacks of the kernel's own TCP/IP: a network namespace of the
// view's own with links as its interfaces ([New]), one that somebody else has made
// ([Open]), and that of the host ([Host]). The program gets real sockets of the
// namespace, made for it elsewhere, and is not in it: it stays where it is, in the
// host's namespaces, with its user, its files and its processes.
//
// # The helper
//
// To make a socket in a namespace one must be in it. Who is there is a helper: this
// same executable once more ([ChildMain]), in a user and a network namespace that are
// made with it. An ordinary user may do that where user namespaces are allowed, and
// owns what is in them. The user is mapped to itself, and to nobody else.
//
//	supervisor                       helper, in the namespace
//	    |-- sockets of a kind --------->| socket(2)
//	    |<-- SCM_RIGHTS ----------------|
//	    |-- TUN device of a name ------>| open, TUNSETIFF
//	    |<-- SCM_RIGHTS ----------------|
//	    |-- setting, value ------------>| /proc/sys/net
//
// It holds nothing of the caller's but that socket, and ends when the other end is
// closed. (A death signal would come when the thread that forked it ends, which is not
// the same.) It is not dumpable, so that no other process of the user can look into it;
// the program of an ordinary user can all the same, as it can look into every other
// process of that user outside of the view, since its user owns the helper's user
// namespace: what it finds is the namespace that it has sockets of anyway.
//
// A socket that nobody has used is like any other of its kind, but for raw and packet
// sockets, which hear of packets at once. So some are kept ready ([pool]): a trapped
// socket(2) then takes no time for the helper, which is asked for many at once.
//
// For a namespace that was there before, the helper enters it instead, which takes
// privileges over it. The host's namespace needs no helper.
//
// # What is changed
//
// In the view's own namespace everyone may ping, bind low ports, and have raw and packet
// sockets; who may do more there is decided by the kernel, for whom the user owns it.
// Nothing is ever changed in other namespaces.
//
// # Interfaces
//
// A link enters the namespace through a TUN or TAP device with virtio_net_hdr, if it
// can have that, so that a super-segment of 64 KiB passes at once. One that can serve
// the device itself does ([stacks.TUNServer]; wireguard-go is made for that) and no byte
// is touched here. Else two goroutines for each link move packets in batches ([device]).
//
// # Names
//
// Programs ask the addresses that resolv.conf names, which need not be those of an
// interface of the namespace. [Stack.ListenNames] turns round what goes there to port
// 53, and nothing else, by a routing rule.
//
// # What remains
//
// What a program has sent when it ends is still on its way in the namespace, which
// lives as long as the stack. [Stack.Undelivered] asks sock_diag(7) for it.
//
// # Goroutines and locks
//
// A stack has one that fills the pool, one that waits for events of its own sockets
// ([watcher]), and those of its devices. Close waits for all. Locks: setMu before that
// of a rtnl; helper.mu is held across an exchange with the helper, and none of the
// others is held then but setMu; stream.sending before socket.mu, and both before that
// of the watcher. All others are leaves.
package kernel
