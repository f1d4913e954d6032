// SPDX-License-Identifier: Apache-2.0

// ICMP messages that are faster than connect: gVisor sends the SYN before it tells the
// local port, by which the socket will be found.

package netstack

import (
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// An earlyError is a message about a SYN whose socket is not known.
type earlyError struct {
	id  tcp.TCPEndpointID
	e   icmpError
	nic tcpip.NICID
}

// earlyMax bounds what is kept: anybody may say anything about SYNs that were never sent.
const earlyMax = 64

// earlyErrors keeps such messages while connections are begun.
type earlyErrors struct {
	mu    sync.Mutex // a leaf
	begun int        // connections that are not in sendQueues yet
	list  []earlyError
}

// begin says that a connection is being begun; end follows.
func (k *earlyErrors) begin() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.begun++
}

// end says that the connection is in sendQueues, or will never be.
func (k *earlyErrors) end() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.begun--; k.begun == 0 {
		k.list = nil
	}
}

// keep keeps a message about a connection that is not in q, if it may get there. It
// returns what is there by now.
func (k *earlyErrors) keep(q *sendQueues, m earlyError) (v any, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if v, ok = q.m.Load(m.id); !ok && k.begun > 0 && len(k.list) < earlyMax {
		k.list = append(k.list, m)
	}
	return v, ok
}

// of returns what was kept about a connection that is in sendQueues now.
func (k *earlyErrors) of(id tcp.TCPEndpointID) (about []earlyError) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, m := range k.list {
		if m.id == id {
			about = append(about, m)
		}
	}
	return about
}

// hearEarlyLocked tells the socket what was said about its SYN before it was counted.
// gVisor may have ended the attempt by then.
//
// +checklocks:s.mu
func (s *stream) hearEarlyLocked() {
	if c := s.counted; c != nil {
		for _, m := range s.st.early.of(c.id) {
			s.failSYN(c, m.e, m.nic)
		}
	}
}
