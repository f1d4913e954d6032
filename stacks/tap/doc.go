// SPDX-License-Identifier: Apache-2.0

// Package tap is the link to a TAP or TUN device of the kernel.
//
//	netstack --Link--> [Link] --read, write--> /dev/net/tun = tap0 --- bridge, routes
//
// [Open] attaches to a device that is there, which its owner may do without
// privileges, or makes one that goes away with the link. [New] takes a device that
// somebody else has opened, in another network namespace for instance: from then on
// only the file counts.
//
// # Packets
//
// Every packet has a virtio_net_hdr, in both directions (IFF_VNET_HDR, without
// IFF_NO_PI's opposite): the kernel hands over super-segments of TCP and of UDP and
// unfinished checksums, and takes the former from the stack. Those of UDP are cut
// here, since no stack of umrun's reads them. A device carries one packet a system
// call; Read makes as many calls as there are packets, so that what comes together
// goes on together.
//
// # Blocking
//
// The file is non-blocking and waited for by the runtime's poller: no thread waits in
// the kernel. Read is one goroutine's at a time, as [stacks.Link] has it, Write
// anybody's. There are no goroutines here.
package tap
