// SPDX-License-Identifier: Apache-2.0

// IP_FREEBIND and IPV6_FREEBIND: binding to an address that the stack does not have yet.

package netstack

import (
	"net/netip"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// freeBind is the one bit that both options set (net/inet_sock.h:INET_FLAGS_FREEBIND).
var freeBind = optKey{ip4, unix.IP_FREEBIND}

// freeBindOption is the option at the level of IPv6.
func freeBindOption() option {
	return option{
		name: "IPV6_FREEBIND",
		set: func(s *sock, _ tcpip.Endpoint, v []byte) error {
			n, err := truth(intOf)(v)
			if err == nil {
				s.setVal(freeBind, n)
			}
			return err
		},
		get: func(s *sock, _ tcpip.Endpoint) ([]byte, error) { return bytesOf(s.val(freeBind, 0)), nil },
	}
}

// bindFree binds to an address of nobody's, if the socket may. What is sent from it
// has no route; what is sent to it comes when an interface has it. gVisor wants to see
// the address when it binds, and never again: it has it for that moment.
func (s *sock) bindFree(a netip.Addr, f tcpip.FullAddress) error {
	s.mu.Lock()
	free := s.val(freeBind, 0) != 0
	s.mu.Unlock()
	addr := a.Unmap().WithZone("")
	if !free || addr.IsMulticast() || addr.IsUnspecified() || needsScope(addr) {
		return unix.EADDRNOTAVAIL
	}
	s.st.setMu.Lock()
	defer s.st.setMu.Unlock()
	s.st.steering.Lock()
	defer s.st.steering.Unlock()
	// On the first link, by which it may connect when it is there; an address of
	// IPv6 on Ethernet would be asked for first.
	nic := tcpip.NICID(loopbackNIC)
	if all := s.st.links.all(); len(all) > 0 && !(addr.Is6() && all[0].ether) {
		nic = tcpip.NICID(all[0].index)
	}
	pa := tcpip.ProtocolAddress{Protocol: protoOf(addr), AddressWithPrefix: gvAddr(addr).WithPrefix()}
	if err := s.st.gv.AddProtocolAddress(nic, pa, stack.AddressProperties{PEB: stack.NeverPrimaryEndpoint}); err != nil {
		return bindErrno(s.endpoint().Bind(f)) // it is there by now
	}
	err := bindErrno(s.endpoint().Bind(f))
	if gerr := s.st.gv.RemoveAddress(nic, gvAddr(addr)); gerr != nil {
		s.st.log.Error("remove an address that was bound to", "addr", addr, "err", gerr)
	}
	return err
}
