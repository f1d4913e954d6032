// SPDX-License-Identifier: Apache-2.0

// Package tun serves /dev/net/tun: a program opens it, without privileges, and what it
// makes there is an interface of a userspace stack.
//
//	program: open --> [Module.Open] --> one end of a SOCK_SEQPACKET pair
//	         ioctl(TUNSETIFF) --> [Module] --> a device, attached to the stack as a link
//	         read, write ----(the kernel carries them)----> the other end <--> the stack
//
// # The descriptor
//
// It is a socket, whose records are the packets: a read gives one and a write takes
// one, poll, epoll and O_NONBLOCK are the kernel's, and none of them traps. Only ioctls
// of the TUN do. Which open file an ioctl is about is told by the socket's cookie, so
// that duplicates and what is inherited count as the file that they are.
//
// # The device
//
// A device is the stack's link. It carries a virtio_net_hdr towards the stack, so that
// super-segments come down whole; they are cut, and their checksums finished, unless
// the program has said that it takes them (IFF_VNET_HDR and TUNSETOFFLOAD). A device
// goes with the last close of its file, unless TUNSETPERSIST has made it persistent: then
// it stays, and drops what is sent, as one without carrier, until it is opened again.
//
// # What is different
//
// A socket cannot say everything that a TUN says: before TUNSETIFF its reads wait
// instead of failing with EBADFD, a write to an interface that is down, or of what is no
// packet, succeeds and the packet is lost, and the file is a socket for fstat(2). There
// is one queue (no IFF_MULTI_QUEUE), no filter, and no USO.
//
// # Goroutines and locks
//
// A file that has no device yet has a goroutine that waits for its last close; with a
// device it is the stack's reader that notices. The detaching of a device, which waits
// for that reader, has one of its own. Close waits for all. Lock order: Module.making,
// which is held while the stack takes a device; Module.mu, or device.writing, which is held
// while the program does not read; device.mu. The others are not held in calls of the
// stack's, which may call the device with locks held.
package tun
